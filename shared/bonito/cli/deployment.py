"""`bonito up`, `serve`, `worker`, `migrate`, `admin` and `audit`: running a deployment and looking after it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bonito.cli.session import CommandFailed, Session, command, fields, reporting_errors
from bonito.errors import InvalidSettings

if TYPE_CHECKING:
    from bonito.settings import Settings

admin = typer.Typer(no_args_is_help=True, help="What only the owner of the deployment may do.")
audit = typer.Typer(no_args_is_help=True, help="The audit log.")
serve = typer.Typer(no_args_is_help=True, help="One server, for containers and virtual machines.")
# As bonito.tenancy.tiers has them; most commands start without the database's library.
TierName = Literal["free", "pro", "enterprise", "scale"]

HostOption = Annotated[str, typer.Option(help="Address to listen on.")]
PortOption = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")]
WorkersOption = Annotated[int, typer.Option(min=1, help="Processes.")]


def up(
    session: Session,
    data_dir: Annotated[Path | None, typer.Option(help="Where everything is kept; .bonito or BONITO_DATA_DIR.")] = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    watch: Annotated[
        Path | None,
        typer.Option(help="A folder that becomes a knowledge base of its name.", exists=True, file_okay=False),
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo/--no-demo", help="Create the demo knowledge base at the first start.")
    ] = True,
) -> None:
    """Run everything in one process, with nothing to install; prints the address and a key."""
    from bonito.local import up as local_up

    settings = read_settings()
    if data_dir is not None:
        settings = settings.model_copy(update={"data_dir": data_dir})
    speech: Literal["text", "json", "none"] = "json" if session.as_json else "none" if session.quiet else "text"
    local_up.run(settings, local_up.Options(host=host, port=port, watch=watch, demo=demo, speech=speech))


@serve.command("gateway")
def serve_gateway(host: HostOption = "127.0.0.1", port: PortOption = 8000, workers: WorkersOption = 1) -> None:
    """Serve /v1; BONITO_DATABASE_URL says where the state is."""
    reporting_errors(_serve)("gateway", host, port, workers)


@serve.command("console")
def serve_console(host: HostOption = "127.0.0.1", port: PortOption = 8001, workers: WorkersOption = 1) -> None:
    """Serve /api; BONITO_DATABASE_URL says where the state is."""
    reporting_errors(_serve)("console", host, port, workers)


def _serve(part: Literal["gateway", "console"], host: str, port: int, workers: int) -> None:
    from bonito.local import servers

    servers.serve(part, read_settings(), host=host, port=port, workers=workers)


def worker() -> None:
    """Run the queue worker and the schedule beside a server, where no cloud queue is used."""
    reporting_errors(_worker)()


def _worker() -> None:
    from bonito.local import servers

    servers.run_worker(read_settings())


def migrate(
    session: Session,
    sql: Annotated[bool, typer.Option("--sql", help="Print the whole migration as SQL, and change nothing.")] = False,
) -> None:
    """Bring the database to this version's schema (BONITO_MIGRATION_DATABASE_URL)."""
    from bonito.database import migrate as migration

    if sql and not session.as_json:
        sys.stdout.write("" if session.quiet else migration.render())
    elif sql:
        session.show({"sql": migration.render()})
    else:
        migration.migrate(_migration_url())
        version = migration.SCHEMA_VERSION
        session.show({"schema_version": version}, lambda: f"The schema is at {version}.")


@command(admin, "create-organization", calls_api=False)
def create_organization(
    session: Session,
    name: Annotated[str, typer.Argument(help="Its name, unique in the deployment.")],
    owner_email: Annotated[str, typer.Option("--owner-email", help="Its first owner; everybody else is invited.")],
    tier: Annotated[TierName, typer.Option(help="What it may have; enterprise has no limits.")] = "enterprise",
) -> None:
    """Create an organization with its first owner, and show the owner's token, this once."""
    from bonito.tenancy import organizations

    created = organizations.create_organization(_migration_url(), name=name, owner_email=owner_email, tier=tier)
    answer = {"organization_id": str(created.org_id), "user_id": str(created.user_id), "personal_token": created.token}
    session.show(answer, lambda: fields(answer))


@command(admin, "set-tier", calls_api=False)
def set_tier(
    session: Session,
    name: Annotated[str, typer.Argument(help="The organization's name.")],
    tier: Annotated[TierName, typer.Argument(help="What it may have from now on; what it has stays.")],
) -> None:
    """Change an organization's tier."""
    from bonito.tenancy import organizations

    org_id = organizations.set_tier(_migration_url(), name=name, tier=tier)
    answer = {"organization_id": str(org_id), "tier": tier}
    session.show(answer, lambda: fields(answer))


@command(admin, "rotate-secrets", calls_api=False)
def rotate_secrets(
    session: Session,
    new_key: Annotated[bool, typer.Option("--new-key", help="Make a new key in the data directory first.")] = False,
) -> None:
    """Seal all stored secrets anew under the newest encryption key."""
    import asyncio

    from bonito.local import up as local_up
    from bonito.tenancy import secrets

    settings = read_settings()
    if new_key and settings.encryption_key is not None:
        raise InvalidSettings(
            "The keys are in BONITO_ENCRYPTION_KEY: put the new one in front there, without --new-key."
        )
    with local_up.administered(settings) as owner_url:
        if new_key:
            secrets.add_key(settings.data_dir)
        done = asyncio.run(secrets.rotate_everywhere(owner_url, secrets.open_box(settings)))
    answer = {"resealed": done.resealed, "left_behind": [str(org_id) for org_id in done.left_behind]}
    session.show(answer, lambda: fields(answer))
    if done.left_behind:
        raise CommandFailed("Some secrets do not open with any known key; the older keys are still needed.")


@command(audit, "verify")
def verify(session: Session) -> None:
    """Recompute the organization's audit chain; status 1 names the first row that does not fit."""
    answer = session.get("/api/audit-log/verify")
    session.show(answer, lambda: fields(answer))
    if not answer["is_intact"]:
        raise CommandFailed(f"The audit log was tampered with: entry {answer['fault_sequence']}. {answer['fault']}")


def read_settings() -> Settings:
    """The settings of this process; InvalidSettings is one line."""
    from bonito.settings import Settings  # Pydantic: most commands start without it

    return Settings.from_environ(os.environ)


def _migration_url() -> str:
    from bonito.local.external import check_reachable

    url = read_settings().migration_database_url
    if url is None:
        raise InvalidSettings("BONITO_MIGRATION_DATABASE_URL is not set; it names the login that owns the schema.")
    check_reachable("BONITO_MIGRATION_DATABASE_URL", url.get_secret_value())
    return url.get_secret_value()
