"""Members: people in an organization and their roles. An organization always has an owner."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg.rows import dict_row

from bonito.database.pool import Connection
from bonito.errors import NotFound, PermissionDenied, StateConflict
from bonito.tenancy.permissions import Permission, Role, is_allowed


@dataclass(frozen=True)
class Member:
    """A person with a role."""

    user_id: UUID
    email: str
    name: str
    role: Role
    created_at: datetime


PAGE: LiteralString = """
    SELECT m.user_id, u.email, u.name, m.role, m.created_at
      FROM memberships m JOIN users u ON u.id = m.user_id
     WHERE m.org_id = %(org_id)s
       AND (%(after_at)s::timestamptz IS NULL OR (m.created_at, m.user_id) > (%(after_at)s, %(after_id)s))
     ORDER BY m.created_at, m.user_id LIMIT %(limit)s
"""


async def list_page(
    conn: Connection, *, org_id: UUID, limit: int, after: tuple[datetime, UUID] | None = None
) -> list[Member]:
    """Up to `limit` members, the first to join first, those after the place `after`."""
    after_at, after_id = after or (None, None)
    row = {"org_id": org_id, "after_at": after_at, "after_id": after_id, "limit": limit}
    async with conn.cursor(row_factory=dict_row) as cursor:
        return [_member(found) for found in await (await cursor.execute(PAGE, row)).fetchall()]


# The owners' rows are held too, so that of two owners who step down at once the second sees the first gone.
LOCK: LiteralString = """
    SELECT user_id, role FROM memberships
     WHERE org_id = %(org_id)s AND (user_id = %(user_id)s OR role = 'owner')
     ORDER BY user_id FOR UPDATE
"""

SET_ROLE: LiteralString = """
    WITH changed AS (
        UPDATE memberships SET role = %(role)s WHERE org_id = %(org_id)s AND user_id = %(user_id)s
        RETURNING user_id, role, created_at
    )
    SELECT c.user_id, u.email, u.name, c.role, c.created_at FROM changed c JOIN users u ON u.id = c.user_id
"""


async def set_role(conn: Connection, *, org_id: UUID, user_id: UUID, role: Role, by: Role) -> Member:
    """Give a member another role; with a lower one the invites that the member sent are withdrawn.

    Args:
        conn: a transaction of the organization.
        org_id: the organization.
        user_id: the member.
        role: the new one.
        by: the role of whoever asks.

    Raises:
        NotFound: no such member.
        PermissionDenied: making or changing an owner takes an owner.
        StateConflict: the last owner would be gone.
    """
    present = await _lock(conn, org_id=org_id, user_id=user_id, wanted=role, by=by)
    if not role.covers(present):
        await _withdraw_invites(conn, org_id=org_id, user_id=user_id)
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(SET_ROLE, {"org_id": org_id, "user_id": user_id, "role": role})
        changed = await cursor.fetchone()
    assert changed is not None  # noqa: S101 - the row is locked
    return _member(changed)


REMOVE: LiteralString = "DELETE FROM memberships WHERE org_id = %(org_id)s AND user_id = %(user_id)s"


async def remove(conn: Connection, *, org_id: UUID, user_id: UUID, by: Role) -> None:
    """Take a member out, with all personal tokens and the open invites that the member sent; gateway keys live on.

    Raises:
        NotFound, PermissionDenied, StateConflict: as `set_role`.
    """
    await _lock(conn, org_id=org_id, user_id=user_id, wanted=None, by=by)
    await _withdraw_invites(conn, org_id=org_id, user_id=user_id)
    await conn.execute(REMOVE, {"org_id": org_id, "user_id": user_id})


async def _lock(conn: Connection, *, org_id: UUID, user_id: UUID, wanted: Role | None, by: Role) -> Role:
    """Hold the member and all owners, check that the change is allowed, and return the member's present role."""
    rows = await (await conn.execute(LOCK, {"org_id": org_id, "user_id": user_id})).fetchall()
    roles = {found: Role(role) for found, role in rows}
    present = roles.get(user_id)
    if present is None:
        raise NotFound("There is no such member.")
    if Role.OWNER in (present, wanted) and not is_allowed(by, Permission.OWNERS_MANAGE):
        raise PermissionDenied("Only an owner makes, changes or removes an owner.")
    other_owners = sum(1 for found, role in roles.items() if role is Role.OWNER and found != user_id)
    if present is Role.OWNER and wanted is not Role.OWNER and other_owners == 0:
        raise StateConflict("This is the last owner; make another member an owner first.")
    return present


WITHDRAW: LiteralString = """
    DELETE FROM invites WHERE org_id = %(org_id)s AND invited_by = %(user_id)s AND accepted_at IS NULL
"""


async def _withdraw_invites(conn: Connection, *, org_id: UUID, user_id: UUID) -> None:
    """Or an administrator who must go could come back through an invite to himself."""
    await conn.execute(WITHDRAW, {"org_id": org_id, "user_id": user_id})


def _member(row: dict[str, Any]) -> Member:
    return Member(**row | {"role": Role(row["role"])})
