"""The `bonito` command: every group of commands, under one name."""

from __future__ import annotations

from typing import Annotated

import typer

from bonito import __version__
from bonito.cli import access, connections, deployment, knowledge
from bonito.cli.chat import chat
from bonito.cli.invoking import invoke
from bonito.cli.session import command

app = typer.Typer(
    name="bonito",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Ask questions of your own documents, with any model, on any cloud.",
)
app.add_typer(knowledge.app, name="kb")
app.add_typer(access.keys, name="keys")
app.add_typer(access.providers, name="providers")
app.add_typer(connections.connections, name="connections")
app.add_typer(connections.secrets, name="secrets")
app.add_typer(access.models, name="models")
app.add_typer(access.logs, name="logs")
app.add_typer(deployment.admin, name="admin")
app.add_typer(deployment.audit, name="audit")
app.add_typer(deployment.serve, name="serve")
app.command("chat")(chat)
command(app, "up", calls_api=False)(deployment.up)
app.command("worker")(deployment.worker)
command(app, "migrate", calls_api=False)(deployment.migrate)
command(app, "invoke", calls_api=False)(invoke)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bonito {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Ask questions of your own documents, with any model, on any cloud."""


def main() -> None:
    """Run the command; exit status 0 done, 1 refused or failed, 2 wrong usage."""
    app()
