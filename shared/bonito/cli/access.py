"""`bonito keys …`, `providers …`, `models …` and `logs`: who may ask, which models answer, and what was asked."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from bonito.cli.session import CommandFailed, Session, command, fields, table

keys = typer.Typer(no_args_is_help=True, help="Gateway keys of applications.")
providers = typer.Typer(no_args_is_help=True, help="Model providers under the organization's own credentials.")
models = typer.Typer(no_args_is_help=True, help="Models that the gateway offers.")
logs = typer.Typer(no_args_is_help=True, help="Requests through the gateway.")


@command(keys, "list")
def list_keys(session: Session) -> None:
    """List the keys; the keys themselves are shown only when they are made."""
    rows = list(session.items("/api/keys"))
    session.show(rows, lambda: table(rows, "name", "key_prefix", "created_at", "expires_at", "revoked_at", "id"))


@command(keys, "create")
def create_key(
    session: Session,
    name: Annotated[str, typer.Argument(help="Which application it is for.")],
    knowledge_base: Annotated[
        list[str] | None, typer.Option(help="Name or id of what it may read; repeat it for several. All without.")
    ] = None,
    expires_at: Annotated[str | None, typer.Option(help="When it ends, as 2027-01-31T00:00:00Z.")] = None,
) -> None:
    """Make a key and show it, this once."""
    body: dict[str, Any] = {"name": name} | ({"expires_at": expires_at} if expires_at else {})
    body |= {"knowledge_bases": knowledge_base} if knowledge_base else {}
    answer = session.request("POST", "/api/keys", json=body)
    session.show(answer, lambda: fields(answer))


@command(keys, "revoke")
def revoke_key(session: Session, key_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """End a key at once."""
    session.request("DELETE", f"/api/keys/{key_id}")
    session.show({"revoked": key_id}, lambda: f"Revoked {key_id}.")


@command(keys, "rotate")
def rotate_key(
    session: Session,
    key_id: Annotated[str, typer.Argument(metavar="ID")],
    overlap: Annotated[int | None, typer.Option(min=0, metavar="HOURS", help="How long both work; 24 without.")] = None,
) -> None:
    """Make a successor; the old key works on until the overlap ends."""
    body = {} if overlap is None else {"overlap_hours": overlap}
    answer = session.request("POST", f"/api/keys/{key_id}/rotate", json=body)
    session.show(answer, lambda: fields(answer))


@command(providers, "list")
def list_providers(session: Session) -> None:
    """List the providers and whether their credential was accepted."""
    rows = list(session.items("/api/providers"))
    session.show(
        rows, lambda: table(rows, "name", "type", "base_url", "models", "verified_at", "verification_error", "id")
    )


@command(providers, "add")
def add_provider(
    session: Session,
    name: Annotated[str, typer.Argument(help="The part before the slash in `provider/model`.")],
    type_: Annotated[
        str, typer.Option("--type", help="openai, openai_compatible, azure_openai, bedrock, vertex or litellm.")
    ] = "openai_compatible",
    base_url: Annotated[str | None, typer.Option(help="Where it answers, as http://127.0.0.1:11434/v1.")] = None,
    vendor: Annotated[str | None, typer.Option(help="litellm: LiteLLM's name of the vendor, as bedrock.")] = None,
    region: Annotated[str | None, typer.Option(help="bedrock, vertex, litellm: as eu-central-1, europe-west4.")] = None,
    key_from_stdin: Annotated[
        bool, typer.Option("--api-key-stdin", help="Read the provider's key from stdin.")
    ] = False,
    credential: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=VALUE]",
            help="A field of the credential, as aws_access_key_id; without a value it is asked for, or is the next "
            "line of stdin; @FILE reads a file. Repeat it for several.",
        ),
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="Offer only these; repeat it for several.")] = None,
) -> None:
    """Add a provider; what is secret is asked for or read from stdin, so that no list of processes shows it."""
    body: dict[str, Any] = {"name": name, "type": type_}
    fields_given = _credential(credential or [], asks_for_key=not credential, key_from_stdin=key_from_stdin)
    body |= {"credential": fields_given} if fields_given else {}
    body |= {"base_url": base_url} if base_url else {}
    body |= {"vendor": vendor} if vendor else {}
    body |= {"region": region} if region else {}
    body |= {"models": model} if model else {}
    answer = session.request("POST", "/api/providers", json=body)
    session.show(answer, lambda: fields(answer))


@command(providers, "verify")
def verify_provider(session: Session, provider: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Call the provider with its stored credential; status 1 if it refuses."""
    answer = session.request("POST", f"/api/providers/{provider}/verify")
    session.show(answer, lambda: fields(answer))
    if answer.get("verification_error"):
        raise CommandFailed(answer["verification_error"])


@command(providers, "remove")
def remove_provider(session: Session, provider: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Remove a provider and its stored credential."""
    session.request("DELETE", f"/api/providers/{provider}")
    session.show({"removed": provider}, lambda: f"Removed {provider}.")


@command(models, "list")
def list_models(session: Session) -> None:
    """List what the gateway offers, as `provider/model`."""
    rows = list(session.items("/api/models"))
    session.show(rows, lambda: table(rows, "id", "provider", "operations"))


@command(logs, "list")
def list_logs(
    session: Session,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Newest requests to show.")] = 20,
    operation: Annotated[
        str | None, typer.Option(help="Only these: chat.completions, embeddings, embeddings.ingest, …")
    ] = None,
) -> None:
    """Show the newest requests: model, tokens, cost, latency, knowledge base; never what was said."""
    rows = session.get("/api/gateway/logs", limit=limit, operation=operation)["items"]
    columns = (
        "created_at",
        "operation",
        "model_used",
        "status",
        "input_tokens",
        "output_tokens",
        "cost",
        "latency_ms",
        "request_id",
    )
    session.show(rows, lambda: table(rows, *columns))


def _credential(given: Sequence[str], *, asks_for_key: bool, key_from_stdin: bool) -> dict[str, str]:
    """The credential by field: an API key where one is told, and the fields that were named."""
    found: dict[str, str] = {}
    if key_from_stdin:
        found["api_key"] = sys.stdin.readline().strip()
    elif asks_for_key and sys.stdin.isatty():
        found["api_key"] = _ask("API key (empty for none)")
    for field in given:
        name, is_given, value = field.partition("=")
        if not is_given:
            value = _ask(name) if sys.stdin.isatty() else sys.stdin.readline().strip()
        elif value.startswith("@"):
            value = _read(Path(value[1:]))
        if not name or not value:
            raise typer.BadParameter(f"The field {name or field!r} of the credential has no name or no value.")
        found[name] = value
    return {name: value for name, value in found.items() if value}


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{file} cannot be read: {error}.") from error


def _ask(what: str) -> str:
    answer: str = typer.prompt(what, default="", show_default=False, hide_input=True)
    return answer.strip()
