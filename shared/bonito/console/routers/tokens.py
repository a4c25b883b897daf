"""/api/tokens: the caller's own personal tokens."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Annotated
from uuid import UUID, uuid4

from pydantic import BaseModel, Field

from bonito.console.fields import Body, Moment, Name
from bonito.console.pagination import DEFAULT_LIMIT, Limit, Page, TimeCursor, cursor_of, page_of, place_of
from bonito.console.permissions import Call, requires
from bonito.console.routing import api_router
from bonito.tenancy import credentials, tokens
from bonito.tenancy.permissions import Permission, Role

router = api_router("/tokens", "tokens")


class NewToken(Body):
    """A token to make."""

    name: Name
    role: Role | None = Field(default=None, description="The most that it may do; null: as much as the present token.")
    expires_at: Moment | None = Field(default=None, description="When it ends; null: when the present token does.")


class Token(BaseModel):
    """A token, without the secret."""

    id: UUID
    name: str
    token_prefix: str = Field(description="Its first 12 characters, to recognise it by.")
    role: Role = Field(description="It acts with the lesser of this and the member's role.")
    expires_at: datetime | None
    revoked_at: datetime | None
    created_at: datetime


class CreatedToken(Token):
    """A new token with its secret."""

    token: str = Field(description="The token itself, shown this once.")


@router.post("", status_code=201)
async def create_token(
    body: NewToken, call: Annotated[Call, requires(Permission.TOKENS_OWN, audit="token.create")]
) -> CreatedToken:
    """Make a personal token for oneself; it can do no more than the present one, and not for longer."""
    credential = credentials.mint("bp-", secrets.token_bytes(credentials.ENTROPY_BYTES))
    async with call.transaction() as conn:
        created = await tokens.create(
            conn,
            maker=call.principal,
            token_id=uuid4(),
            name=body.name,
            credential=credential,
            role=body.role,
            expires_at=body.expires_at,
        )
    call.note(f"token:{created.id}", name=created.name, token_prefix=created.token_prefix, role=created.role)
    return CreatedToken(**_shown(created).model_dump(), token=credential.text)


@router.get("")
async def list_tokens(
    call: Annotated[Call, requires(Permission.TOKENS_OWN)], limit: Limit = DEFAULT_LIMIT, cursor: TimeCursor = None
) -> Page[Token]:
    """The caller's own tokens, ended ones too, the oldest first."""
    async with call.transaction() as conn:
        rows = await tokens.list_page(
            conn, org_id=call.org_id, user_id=call.principal.user_id, limit=limit + 1, after=place_of(cursor)
        )
    return page_of(rows, limit=limit, show=_shown, cursor=lambda row: cursor_of(row.created_at, row.id))


@router.delete("/{token_id}", status_code=204)
async def revoke_token(
    token_id: UUID, call: Annotated[Call, requires(Permission.TOKENS_OWN, audit="token.revoke")]
) -> None:
    """End one of the caller's own tokens at once."""
    async with call.transaction() as conn:
        await tokens.revoke(conn, org_id=call.org_id, user_id=call.principal.user_id, token_id=token_id)
    call.note(f"token:{token_id}")


def _shown(token: tokens.Token) -> Token:
    return Token.model_validate(token, from_attributes=True)
