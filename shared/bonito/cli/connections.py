"""`bonito connections …` and `secrets …`: access to cloud accounts, and what it refers to."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from bonito.cli.session import CommandFailed, Session, command, fields, table

connections = typer.Typer(no_args_is_help=True, help="Access to your cloud accounts, without long-lived keys.")
secrets = typer.Typer(no_args_is_help=True, help="Secrets that connections refer to, where there is no other way.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name or id of the connection.")]


@command(connections, "list")
def list_connections(session: Session) -> None:
    """List the connections and what they are for."""
    rows = list(session.items("/api/connections"))
    session.show(rows, lambda: table(rows, "name", "cloud", "credential", "buckets", "id"))


@command(connections, "create")
def create_connection(
    session: Session,
    name: Annotated[str, typer.Argument(help="Unique in the organization.")],
    cloud: Annotated[str, typer.Option(help="aws, azure or gcp.")],
    bucket: Annotated[
        list[str] | None, typer.Option(help="What it may be used for, or account/container; repeat it for several.")
    ] = None,
    role_arn: Annotated[str | None, typer.Option(help="aws: the role.")] = None,
    external_id: Annotated[
        bool, typer.Option("--external-id", help="aws: the role trusts Bonito's own role, not its tokens.")
    ] = False,
    tenant_id: Annotated[str | None, typer.Option(help="azure: the directory.")] = None,
    client_id: Annotated[str | None, typer.Option(help="azure: the app registration.")] = None,
    provider: Annotated[str | None, typer.Option(help="gcp: projects/…/workloadIdentityPools/…/providers/…")] = None,
    service_account: Annotated[str | None, typer.Option(help="gcp: the account to act as.")] = None,
    secret: Annotated[str | None, typer.Option(help="Instead of all that: the name of a secret with keys.")] = None,
) -> None:
    """Add a connection; the answer says what the account has to trust."""
    members = {
        "role_arn": role_arn, "tenant_id": tenant_id, "client_id": client_id, "provider": provider,
        "service_account": service_account,
    }  # fmt: skip
    named = {member: value for member, value in members.items() if value is not None}
    if secret is not None and named:
        raise typer.BadParameter("--secret stands alone.")
    credential: dict[str, Any] = {"federated": named}
    if secret is not None:
        credential = {"secret": secret}
    elif external_id:
        credential = named
    body = {"name": name, "cloud": cloud, "credential": credential, "buckets": bucket or []}
    answer = session.request("POST", "/api/connections", json=body)
    session.show(answer, lambda: fields(answer))


@command(connections, "info")
def info(session: Session, name: NameArgument) -> None:
    """Show a connection and what the account has to trust."""
    answer = session.get(f"/api/connections/{id_of(session, name)}")
    session.show(answer, lambda: fields(answer))


@command(connections, "verify")
def verify(
    session: Session,
    name: NameArgument,
    prefix: Annotated[str, typer.Option(help="List below it, where the account allows no more.")] = "",
    region: Annotated[str | None, typer.Option(help="Of the buckets, on AWS.")] = None,
) -> None:
    """Obtain a session of the account and list the buckets with it; status 1 says which step failed."""
    body = {"prefix": prefix} | ({"region": region} if region else {})
    answer = session.request("POST", f"/api/connections/{id_of(session, name)}/verify", json=body)
    session.show(answer, lambda: table(answer["buckets"], "bucket", "error"))
    if not answer["is_verified"]:
        raise CommandFailed(answer["error"] or "A bucket could not be listed.")


@command(connections, "delete")
def delete(session: Session, name: NameArgument) -> None:
    """Remove a connection that nothing uses."""
    session.request("DELETE", f"/api/connections/{id_of(session, name)}")
    session.show({"deleted": name}, lambda: f"Deleted {name}.")


@command(secrets, "list")
def list_secrets(session: Session) -> None:
    """List the names of the secrets."""
    rows = list(session.items("/api/secrets"))
    session.show(rows, lambda: table(rows, "name"))


@command(secrets, "set")
def set_secret(session: Session, name: Annotated[str, typer.Argument(help="Small letters, digits, dashes.")]) -> None:
    """Store a secret that is read from stdin, never an argument that others could see."""
    if sys.stdin.isatty():
        value: str = typer.prompt("Value", hide_input=True)
    else:
        value = sys.stdin.read()
    answer = session.request("POST", "/api/secrets", json={"name": name, "value": value.strip()})
    session.show(answer, lambda: f"Stored {name}.")


@command(secrets, "delete")
def delete_secret(session: Session, name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Forget a secret that no connection refers to."""
    session.request("DELETE", f"/api/secrets/{name}")
    session.show({"deleted": name}, lambda: f"Deleted {name}.")


def id_of(session: Session, name: str) -> str:
    """The id of the connection of that name, in whatever case; what is no name is taken for the id."""
    found = (row for row in session.items("/api/connections") if row["name"].lower() == name.lower())
    return str(next(found, {"id": name})["id"])
