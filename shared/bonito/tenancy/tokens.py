"""Personal tokens (`bp-`): a person's access to /api, acting in one organization with at most a stated role."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg.rows import dict_row

from bonito.database.pool import Connection, Pool, lookup
from bonito.errors import AuthenticationFailed, NotFound, PermissionDenied
from bonito.tenancy import credentials
from bonito.tenancy.credentials import Credential
from bonito.tenancy.permissions import Role


@dataclass(frozen=True)
class Principal:
    """Who calls /api; `role` is the lesser of the member's role and the token's."""

    org_id: UUID
    user_id: UUID
    token_id: UUID
    role: Role
    expires_at: datetime | None = None


@dataclass(frozen=True)
class Token:
    """A personal token as its owner sees it; the token itself is nowhere kept."""

    id: UUID
    user_id: UUID
    name: str
    token_prefix: str
    role: Role
    expires_at: datetime | None
    revoked_at: datetime | None
    created_at: datetime


AUTHENTICATE: LiteralString = """
    SELECT org_id, user_id, token_id, role, expires_at, revoked_at FROM find_personal_token(%(token_hash)s)
"""


async def authenticate(pool: Pool, presented: str) -> Principal:
    """Find who holds a token; asked on every call, so that a revocation or a changed role counts at once.

    Raises:
        AuthenticationFailed: not a token, unknown, revoked, expired, or its holder is no member any more.
    """
    if not credentials.is_well_formed("bp-", presented):
        raise AuthenticationFailed("A personal token (bp-…) is needed in the Authorization header.")
    async with lookup(pool) as conn:
        row = await (await conn.execute(AUTHENTICATE, {"token_hash": credentials.hash_of(presented)})).fetchone()
    if row is None or row[5] is not None:
        raise AuthenticationFailed("The personal token is unknown or was revoked.")
    org_id, user_id, token_id, role, expires_at, _ = row
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise AuthenticationFailed("The personal token has expired.")
    return Principal(org_id, user_id, token_id, Role(role), expires_at)


CREATE: LiteralString = """
    INSERT INTO personal_tokens (org_id, id, user_id, name, token_hash, token_prefix, role, expires_at)
    VALUES (%(org_id)s, %(id)s, %(user_id)s, %(name)s, %(hash)s, %(prefix)s, %(role)s, %(expires_at)s)
    RETURNING id, user_id, name, token_prefix, role, expires_at, revoked_at, created_at
"""


async def create(
    conn: Connection,
    *,
    maker: Principal,
    token_id: UUID,
    name: str,
    credential: Credential,
    role: Role | None = None,
    expires_at: datetime | None = None,
) -> Token:
    """Make a token for its maker; it can do no more than the maker's token, and not for longer.

    Args:
        conn: a transaction of the maker's organization.
        maker: who makes it, and for whom it is.
        token_id: its id.
        name: what it is for.
        credential: a new `bp-` credential.
        role: the most that it may do; None is the maker's.
        expires_at: when it ends; None is when the maker's token does, which may be never.

    Raises:
        PermissionDenied: it would do more, or live longer, than the maker's token.
        InvalidRequest: it would have ended already.
    """
    role, expires_at = role or maker.role, expires_at or maker.expires_at
    if not maker.role.covers(role):
        raise PermissionDenied(f"A token that acts as {maker.role} cannot make one that acts as {role}.")
    if maker.expires_at is not None and expires_at is not None and expires_at > maker.expires_at:
        raise PermissionDenied("A token cannot make one that outlives it.")
    credentials.check_expiry(expires_at)
    row = {"org_id": maker.org_id, "id": token_id, "user_id": maker.user_id, "name": name, "expires_at": expires_at}
    columns = row | {"hash": credential.hash, "prefix": credential.prefix, "role": role}
    async with conn.cursor(row_factory=dict_row) as cursor:
        created = await (await cursor.execute(CREATE, columns)).fetchone()
    assert created is not None  # noqa: S101 - INSERT … RETURNING answers one row
    return _token(created)


PAGE: LiteralString = """
    SELECT id, user_id, name, token_prefix, role, expires_at, revoked_at, created_at
      FROM personal_tokens
     WHERE org_id = %(org_id)s AND user_id = %(user_id)s
       AND (%(after_at)s::timestamptz IS NULL OR (created_at, id) > (%(after_at)s, %(after_id)s))
     ORDER BY created_at, id LIMIT %(limit)s
"""


async def list_page(
    conn: Connection, *, org_id: UUID, user_id: UUID, limit: int, after: tuple[datetime, UUID] | None = None
) -> list[Token]:
    """Up to `limit` tokens of one person, the oldest first, those after the place `after`."""
    after_at, after_id = after or (None, None)
    row = {"org_id": org_id, "user_id": user_id, "after_at": after_at, "after_id": after_id, "limit": limit}
    async with conn.cursor(row_factory=dict_row) as cursor:
        return [_token(found) for found in await (await cursor.execute(PAGE, row)).fetchall()]


REVOKE: LiteralString = """
    UPDATE personal_tokens SET revoked_at = now()
     WHERE org_id = %(org_id)s AND user_id = %(user_id)s AND id = %(id)s AND revoked_at IS NULL
    RETURNING id
"""


async def revoke(conn: Connection, *, org_id: UUID, user_id: UUID, token_id: UUID) -> None:
    """End a person's own token at once; NotFound where there is none that still lives."""
    cursor = await conn.execute(REVOKE, {"org_id": org_id, "user_id": user_id, "id": token_id})
    if await cursor.fetchone() is None:
        raise NotFound("There is no such token.")


def _token(row: dict[str, Any]) -> Token:
    return Token(**row | {"role": Role(row["role"])})
