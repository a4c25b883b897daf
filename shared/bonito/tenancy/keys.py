"""Gateway keys (`bn-`): an application's access to /v1, to all or some knowledge bases of one organization."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import LiteralString
from uuid import UUID

from psycopg.errors import UniqueViolation
from psycopg.rows import class_row

from bonito.database.pool import Connection, Pool, lookup
from bonito.errors import AlreadyExists, AuthenticationFailed, NotFound, StateConflict
from bonito.tenancy import credentials
from bonito.tenancy.credentials import Credential

DEFAULT_OVERLAP = timedelta(hours=24)


@dataclass(frozen=True)
class Principal:
    """Which application calls /v1; `knowledge_base_ids` None is every base of the organization."""

    org_id: UUID
    key_id: UUID
    knowledge_base_ids: frozenset[UUID] | None
    expires_at: datetime | None


@dataclass(frozen=True)
class Key:
    """A gateway key as its organization sees it; the key itself is nowhere kept."""

    id: UUID
    name: str
    key_prefix: str
    knowledge_base_ids: list[UUID] | None
    created_by: UUID | None
    replaced_by: UUID | None
    expires_at: datetime | None
    revoked_at: datetime | None
    created_at: datetime


AUTHENTICATE: LiteralString = """
    SELECT org_id, key_id, knowledge_base_ids, expires_at, revoked_at FROM find_gateway_key(%(key_hash)s)
"""


async def find(pool: Pool, key_hash: bytes) -> Principal | None:
    """Who holds the key of this hash; None where it is unknown, revoked or expired.

    Whoever keeps the answer for a while checks `expires_at` again.
    """
    async with lookup(pool) as conn:
        row = await (await conn.execute(AUTHENTICATE, {"key_hash": key_hash})).fetchone()
    if row is None or row[4] is not None:
        return None
    org_id, key_id, knowledge_base_ids, expires_at, _ = row
    if expires_at is not None and expires_at <= datetime.now(UTC):
        return None
    readable = None if knowledge_base_ids is None else frozenset(knowledge_base_ids)
    return Principal(org_id, key_id, readable, expires_at)


async def authenticate(pool: Pool, presented: str) -> Principal:
    """Find who holds a key.

    Raises:
        AuthenticationFailed: not a key, unknown, revoked or expired; which of them is not told.
    """
    found = await find(pool, credentials.hash_of(presented)) if credentials.is_well_formed("bn-", presented) else None
    if found is None:
        raise AuthenticationFailed("The gateway key (bn-…) is unknown, expired or revoked.")
    return found


CREATE: LiteralString = """
    INSERT INTO gateway_keys (org_id, id, name, key_hash, key_prefix, knowledge_base_ids, created_by, expires_at)
    VALUES (%(org_id)s, %(id)s, %(name)s, %(hash)s, %(prefix)s, %(knowledge_base_ids)s, %(created_by)s, %(expires_at)s)
    RETURNING id, name, key_prefix, knowledge_base_ids, created_by, replaced_by, expires_at, revoked_at, created_at
"""


async def create(
    conn: Connection,
    *,
    org_id: UUID,
    key_id: UUID,
    name: str,
    credential: Credential,
    knowledge_base_ids: Sequence[UUID] | None = None,
    expires_at: datetime | None = None,
    created_by: UUID | None = None,
) -> Key:
    """Make a key of a new `bn-` credential.

    Raises:
        AlreadyExists: a living key has the name.
        InvalidRequest: it would have ended already.
    """
    credentials.check_expiry(expires_at)
    row = {
        "org_id": org_id,
        "id": key_id,
        "name": name,
        "hash": credential.hash,
        "prefix": credential.prefix,
        "knowledge_base_ids": None if knowledge_base_ids is None else list(knowledge_base_ids),
        "created_by": created_by,
        "expires_at": expires_at,
    }
    async with conn.cursor(row_factory=class_row(Key)) as cursor:
        try:
            created = await (await cursor.execute(CREATE, row)).fetchone()
        except UniqueViolation as error:
            raise AlreadyExists(f"There is a key named {name} already.", param="name") from error
    assert created is not None  # noqa: S101 - INSERT … RETURNING answers one row
    return created


PAGE: LiteralString = """
    SELECT id, name, key_prefix, knowledge_base_ids, created_by, replaced_by, expires_at, revoked_at, created_at
      FROM gateway_keys
     WHERE org_id = %(org_id)s
       AND (%(after_at)s::timestamptz IS NULL OR (created_at, id) > (%(after_at)s, %(after_id)s))
     ORDER BY created_at, id LIMIT %(limit)s
"""


async def list_page(
    conn: Connection, *, org_id: UUID, limit: int, after: tuple[datetime, UUID] | None = None
) -> list[Key]:
    """Up to `limit` keys, ended ones too, the oldest first, those after the place `after`."""
    after_at, after_id = after or (None, None)
    async with conn.cursor(row_factory=class_row(Key)) as cursor:
        row = {"org_id": org_id, "after_at": after_at, "after_id": after_id, "limit": limit}
        return await (await cursor.execute(PAGE, row)).fetchall()


REVOKE: LiteralString = """
    UPDATE gateway_keys SET revoked_at = now()
     WHERE org_id = %(org_id)s AND id = %(id)s AND revoked_at IS NULL
    RETURNING name
"""


async def revoke(conn: Connection, *, org_id: UUID, key_id: UUID) -> str:
    """End a key and return its name; a gateway may answer to it for the seconds that it remembers keys.

    Raises:
        NotFound: there is none that was not revoked before.
    """
    row = await (await conn.execute(REVOKE, {"org_id": org_id, "id": key_id})).fetchone()
    if row is None:
        raise NotFound("There is no such key.")
    return str(row[0])


LOCK: LiteralString = """
    SELECT id, name, key_prefix, knowledge_base_ids, created_by, replaced_by, expires_at, revoked_at, created_at
      FROM gateway_keys WHERE org_id = %(org_id)s AND id = %(id)s FOR UPDATE
"""

REPLACE: LiteralString = """
    UPDATE gateway_keys
       SET replaced_by = %(successor)s, expires_at = least(expires_at, now() + %(overlap)s)
     WHERE org_id = %(org_id)s AND id = %(id)s
"""


async def rotate(
    conn: Connection,
    *,
    org_id: UUID,
    key_id: UUID,
    successor_id: UUID,
    credential: Credential,
    overlap: timedelta = DEFAULT_OVERLAP,
    created_by: UUID | None = None,
) -> Key:
    """Make a key's successor of the same name, rights and lifetime; the old one lives on for the overlap at most.

    Args:
        conn: a transaction of the organization.
        org_id: the organization.
        key_id: the key to replace.
        successor_id: the new key's id.
        credential: a new `bn-` credential.
        overlap: how long both work.
        created_by: the member who asks.

    Raises:
        NotFound: there is no such key.
        StateConflict: it has ended, or was replaced before.
    """
    async with conn.cursor(row_factory=class_row(Key)) as cursor:
        old = await (await cursor.execute(LOCK, {"org_id": org_id, "id": key_id})).fetchone()
    if old is None:
        raise NotFound("There is no such key.")
    now = datetime.now(UTC)
    if old.revoked_at is not None or (old.expires_at is not None and old.expires_at <= now):
        raise StateConflict("The key has ended; make a new one.")
    if old.replaced_by is not None:
        raise StateConflict("The key was replaced already; rotate its successor.")
    await conn.execute(REPLACE, {"org_id": org_id, "id": key_id, "successor": successor_id, "overlap": overlap})
    return await create(
        conn,
        org_id=org_id,
        key_id=successor_id,
        name=old.name,
        credential=credential,
        knowledge_base_ids=old.knowledge_base_ids,
        expires_at=None if old.expires_at is None else now + (old.expires_at - old.created_at),
        created_by=created_by,
    )
