"""`bonito keys …`, `providers …`, `models …` and `logs`: who may ask, which models answer, and what was asked."""

from __future__ import annotations

import json
import sys
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
    expires_at: Annotated[str | None, typer.Option(help="When it ends, as 2027-01-31T00:00:00Z.")] = None,
) -> None:
    """Make a key and show it, this once."""
    body = {"name": name} | ({"expires_at": expires_at} if expires_at else {})
    answer = session.request("POST", "/api/keys", json=body)
    session.show(answer, lambda: fields(answer))


@command(keys, "revoke")
def revoke_key(session: Session, key_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """End a key at once."""
    session.request("DELETE", f"/api/keys/{key_id}")
    session.show({"revoked": key_id}, lambda: f"Revoked {key_id}.")


@command(keys, "rotate")
def rotate_key(session: Session, key_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Make a successor; the old key works on until the overlap ends."""
    answer = session.request("POST", f"/api/keys/{key_id}/rotate", json={})
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
    key_from_stdin: Annotated[
        bool, typer.Option("--api-key-stdin", help="Read the provider's key from stdin.")
    ] = False,
    credential_from_stdin: Annotated[
        bool, typer.Option("--credential-stdin", help="Read the credential's fields from stdin, as JSON.")
    ] = False,
    service_account: Annotated[
        Path | None, typer.Option(help="vertex: the key file of a service account.", exists=True, dir_okay=False)
    ] = None,
    region: Annotated[str | None, typer.Option(help="bedrock, vertex: as eu-central-1, europe-west4.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Offer only these; repeat it for several.")] = None,
) -> None:
    """Add a provider; its key is asked for or read from stdin, never an argument that others could see."""
    body: dict[str, Any] = {"name": name, "type": type_}
    credential = _credential(key_from_stdin, credential_from_stdin, service_account)
    body |= {"credential": credential} if credential else {}
    body |= {"region": region} if region else {}
    body |= {"base_url": base_url} if base_url else {}
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
    session: Session, limit: Annotated[int, typer.Option(min=1, max=100, help="Newest requests to show.")] = 20
) -> None:
    """Show the newest requests: model, tokens, cost, latency, knowledge base; never what was said."""
    rows = session.get("/api/gateway/logs", limit=limit)["items"]
    columns = (
        "created_at",
        "model_used",
        "status",
        "input_tokens",
        "output_tokens",
        "cost",
        "latency_ms",
        "request_id",
    )
    session.show(rows, lambda: table(rows, *columns))


def _credential(key_from_stdin: bool, fields_from_stdin: bool, service_account: Path | None) -> dict[str, str]:
    """The credential by field; of the three ways to give it, the one that was asked for."""
    if service_account is not None:
        return {"service_account": service_account.read_text()}
    if fields_from_stdin:
        try:
            return dict(json.load(sys.stdin))
        except (ValueError, TypeError) as error:
            raise CommandFailed("stdin must hold one JSON object of the credential's fields.") from error
    secret = _provider_key(key_from_stdin)
    return {"api_key": secret} if secret else {}


def _provider_key(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().strip()
    if sys.stdin.isatty():
        answer: str = typer.prompt("API key (empty for none)", default="", show_default=False, hide_input=True)
        return answer.strip()
    return ""
