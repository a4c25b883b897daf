"""/api/secrets: what connections refer to, where Bonito itself keeps it. A value goes in and never comes out."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from pydantic import BaseModel, Field, SecretStr

from bonito.console.fields import Body
from bonito.console.pagination import DEFAULT_LIMIT, Limit, Page, TextCursor, page_of, text_cursor_of, text_of
from bonito.console.permissions import Call, requires
from bonito.console.problems import responses
from bonito.console.routing import api_router
from bonito.errors import StateConflict
from bonito.tenancy import connections, named_secrets
from bonito.tenancy.permissions import Permission

router = api_router("/secrets", "secrets")

NamePath = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="Unique in the organization.")]


class SecretBody(Body):
    """A secret."""

    name: connections.SecretName
    value: Annotated[SecretStr, Field(min_length=1, max_length=16_384)] = Field(
        description='JSON, as the connection\'s cloud needs it: `{"access_key_id", "secret_access_key"}` for AWS, '
        '`{"tenant_id", "client_id", "client_secret"}` for Azure, the key of a service account for Google Cloud.'
    )


class Secret(BaseModel):
    """That there is a secret."""

    name: str


@router.get("", responses=responses(409))
async def list_secrets(
    call: Annotated[Call, requires(Permission.CONNECTIONS_READ)],
    limit: Limit = DEFAULT_LIMIT,
    cursor: TextCursor = None,
) -> Page[Secret]:
    """The names of all secrets."""
    _check_kept_here(call)
    async with call.transaction() as conn:
        names = await named_secrets.list_page(conn, org_id=call.org_id, limit=limit + 1, after=text_of(cursor))
    return page_of(names, limit=limit, show=lambda name: Secret(name=name), cursor=text_cursor_of)


@router.post("", responses=responses(409))
async def set_secret(
    body: SecretBody, call: Annotated[Call, requires(Permission.CONNECTIONS_MANAGE, audit="secret.set")]
) -> Secret:
    """Store a secret, or replace the one of this name; whoever uses it notices within five minutes."""
    _check_kept_here(call)
    async with call.transaction() as conn:
        await named_secrets.put(
            conn,
            call.services.secret_box,
            org_id=call.org_id,
            name=body.name,
            value=body.value.get_secret_value(),
        )
    call.note(f"secret:{body.name}")
    return Secret(name=body.name)


@router.delete("/{secret_name}", status_code=204, responses=responses(409))
async def delete_secret(
    secret_name: NamePath, call: Annotated[Call, requires(Permission.CONNECTIONS_MANAGE, audit="secret.delete")]
) -> None:
    """Forget a secret that no connection refers to."""
    _check_kept_here(call)
    async with call.transaction() as conn:
        user = await connections.secret_user(conn, org_id=call.org_id, secret=secret_name)
        if user is not None:
            raise StateConflict(f"The connection {user} refers to this secret.")
        await named_secrets.delete(conn, org_id=call.org_id, name=secret_name)
    call.note(f"secret:{secret_name}")


def _check_kept_here(call: Call) -> None:
    cloud = call.services.settings.cloud
    if cloud != "local":
        raise StateConflict(
            f"This deployment keeps secrets in the secret store of {cloud}; its operator puts them there."
        )
