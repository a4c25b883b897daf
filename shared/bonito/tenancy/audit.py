"""The audit log: one hash-chained sequence per organization that only grows, and its verification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, LiteralString
from uuid import UUID

from psycopg.types.json import Jsonb

from bonito.database.pool import Pool, tenant


@dataclass(frozen=True)
class Entry:
    """One thing that somebody did or was refused; `details` are plain JSON values without secrets."""

    actor: str
    action: str
    target: str
    details: Mapping[str, Any]
    request_id: str


APPEND: LiteralString = """
    SELECT append_audit(%(org_id)s, %(actor)s, %(action)s, %(target)s, %(details)s, %(request_id)s)
"""


async def append(pool: Pool, org_id: UUID, entry: Entry) -> int:
    """Write an entry in a transaction of its own, so that no other's rollback takes it along.

    Returns:
        Its sequence: 1 for the organization's first, without gaps.
    """
    parameters = {
        "org_id": org_id,
        "actor": entry.actor,
        "action": entry.action,
        "target": entry.target,
        "details": Jsonb(dict(entry.details)),
        "request_id": entry.request_id,
    }
    async with tenant(pool, org_id) as conn:
        row = await (await conn.execute(APPEND, parameters)).fetchone()
    assert row is not None  # noqa: S101 - a function's call answers one row
    return int(row[0])
