"""Personal tokens (`bp-`): a person's access to /api, acting in one organization with at most a stated role."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import LiteralString
from uuid import UUID

from bonito.database.pool import Pool, lookup
from bonito.errors import AuthenticationFailed
from bonito.tenancy import credentials
from bonito.tenancy.permissions import Role


@dataclass(frozen=True)
class Principal:
    """Who calls /api; `role` is the lesser of the member's role and the token's."""

    org_id: UUID
    user_id: UUID
    token_id: UUID
    role: Role
    expires_at: datetime | None = None


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
