"""/api/keys: the gateway keys of applications."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID, uuid4

from pydantic import BaseModel, Field

from bonito.console.fields import Body, Moment, Name, Whole
from bonito.console.pagination import DEFAULT_LIMIT, Limit, Page, TimeCursor, cursor_of, page_of, place_of
from bonito.console.permissions import Call, requires
from bonito.console.problems import responses
from bonito.console.routing import api_router
from bonito.knowledge import bases
from bonito.tenancy import credentials, keys
from bonito.tenancy.permissions import Permission

router = api_router("/keys", "keys")


class NewKey(Body):
    """A key to make."""

    name: Name
    knowledge_bases: list[str] | None = Field(
        default=None, max_length=100, description="Names or ids of what the key may read; null: everything."
    )
    expires_at: Moment | None = None


class Rotation(Body):
    """How a key is replaced."""

    overlap_hours: Whole = Field(
        default=24, ge=0, le=24 * 30, description="How long the old key works beside its successor."
    )


class Key(BaseModel):
    """A key, without the secret."""

    id: UUID
    name: str
    key_prefix: str = Field(description="Its first 12 characters, to recognise it by.")
    knowledge_base_ids: list[UUID] | None = Field(description="What it may read; null: everything.")
    created_by: UUID | None = Field(description="The member who made it.")
    replaced_by: UUID | None = Field(description="Its successor, after a rotation.")
    expires_at: datetime | None
    revoked_at: datetime | None
    created_at: datetime


class CreatedKey(Key):
    """A new key with its secret."""

    key: str = Field(description="The key itself, shown this once.")


@router.post("", status_code=201, responses=responses(404, 409))
async def create_key(
    body: NewKey, call: Annotated[Call, requires(Permission.KEYS_MANAGE, audit="key.create")]
) -> CreatedKey:
    """Make a gateway key; its secret is shown this once."""
    credential = credentials.mint("bn-", secrets.token_bytes(credentials.ENTROPY_BYTES))
    async with call.transaction() as conn:
        readable = None
        if body.knowledge_bases is not None:
            found = [await bases.get(conn, org_id=call.org_id, name_or_id=name) for name in body.knowledge_bases]
            readable = [base.id for base in found]
        created = await keys.create(
            conn,
            org_id=call.org_id,
            key_id=uuid4(),
            name=body.name,
            credential=credential,
            knowledge_base_ids=readable,
            expires_at=body.expires_at,
            created_by=call.principal.user_id,
        )
    call.note(f"key:{created.id}", name=created.name, key_prefix=created.key_prefix)
    return CreatedKey(**_shown(created).model_dump(), key=credential.text)


@router.get("")
async def list_keys(
    call: Annotated[Call, requires(Permission.KEYS_READ)], limit: Limit = DEFAULT_LIMIT, cursor: TimeCursor = None
) -> Page[Key]:
    """All keys, ended ones too, the oldest first."""
    async with call.transaction() as conn:
        rows = await keys.list_page(conn, org_id=call.org_id, limit=limit + 1, after=place_of(cursor))
    return page_of(rows, limit=limit, show=_shown, cursor=lambda row: cursor_of(row.created_at, row.id))


@router.delete("/{key_id}", status_code=204)
async def revoke_key(key_id: UUID, call: Annotated[Call, requires(Permission.KEYS_MANAGE, audit="key.revoke")]) -> None:
    """End a key; gateways notice within ten seconds."""
    async with call.transaction() as conn:
        name = await keys.revoke(conn, org_id=call.org_id, key_id=key_id)
    call.note(f"key:{key_id}", name=name)


@router.post("/{key_id}/rotate", status_code=201, responses=responses(409))
async def rotate_key(
    key_id: UUID, body: Rotation, call: Annotated[Call, requires(Permission.KEYS_MANAGE, audit="key.rotate")]
) -> CreatedKey:
    """Make a key's successor of the same name and rights; its secret is shown this once."""
    credential = credentials.mint("bn-", secrets.token_bytes(credentials.ENTROPY_BYTES))
    async with call.transaction() as conn:
        created = await keys.rotate(
            conn,
            org_id=call.org_id,
            key_id=key_id,
            successor_id=uuid4(),
            credential=credential,
            overlap=timedelta(hours=body.overlap_hours),
            created_by=call.principal.user_id,
        )
    call.note(f"key:{key_id}", successor=str(created.id), overlap_hours=body.overlap_hours)
    return CreatedKey(**_shown(created).model_dump(), key=credential.text)


def _shown(key: keys.Key) -> Key:
    return Key.model_validate(key, from_attributes=True)
