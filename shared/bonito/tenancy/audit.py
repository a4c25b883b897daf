"""The audit log: one hash-chained sequence per organization that only grows, and its verification.

The verification finds a row that was changed, removed, inserted or moved, and a chain whose end was cut off, since the
end is also kept apart (`audit_heads`). Whoever can rewrite both tables can write a whole new chain: only a head that
was noted outside of the database shows that, so `verify` answers the head and takes one that was noted earlier.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from bonito.database.pool import Connection, Pool, tenant

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BATCH = 500


@dataclass(frozen=True)
class Entry:
    """One thing that somebody did or was refused; `details` are plain JSON values without secrets."""

    actor: str
    action: str
    target: str
    details: Mapping[str, Any]
    request_id: str


@dataclass(frozen=True)
class Row:
    """An entry as it is kept."""

    sequence: int
    at: datetime
    actor: str
    action: str
    target: str
    details: dict[str, Any]
    request_id: str
    hash: bytes


@dataclass(frozen=True)
class Head:
    """The end of a chain; noted outside of the database, it proves everything up to it."""

    sequence: int
    hash: bytes


@dataclass(frozen=True)
class Verification:
    """What the recomputation found; `fault` is None for an intact chain, else a sentence on the first row at fault."""

    head: Head
    fault_sequence: int | None = None
    fault: str | None = None

    @property
    def is_intact(self) -> bool:
        """Whether every row is as it was written."""
        return self.fault is None


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


PAGE: LiteralString = """
    SELECT sequence, at, actor, action, target, details, request_id, hash
      FROM audit_log
     WHERE org_id = %(org_id)s AND (%(before)s::bigint IS NULL OR sequence < %(before)s)
     ORDER BY sequence DESC LIMIT %(limit)s
"""


async def list_page(conn: Connection, *, org_id: UUID, limit: int, before: int | None = None) -> list[Row]:
    """Up to `limit` rows, the newest first, those before the sequence `before`."""
    async with conn.cursor(row_factory=class_row(Row)) as cursor:
        await cursor.execute(PAGE, {"org_id": org_id, "before": before, "limit": limit})
        return await cursor.fetchall()


# One statement, so one snapshot of both tables. `details::text` is jsonb's canonical text.
CHAIN: LiteralString = """
    SELECT h.sequence, h.hash, l.sequence, l.at, l.actor, l.action, l.target, l.details::text, l.request_id,
           l.previous_hash, l.hash
      FROM (SELECT * FROM audit_log WHERE org_id = %(org_id)s) l
      FULL JOIN (SELECT * FROM audit_heads WHERE org_id = %(org_id)s) h ON h.org_id = l.org_id
     ORDER BY l.sequence
"""


async def verify(conn: Connection, *, org_id: UUID, noted: Head | None = None) -> Verification:
    """Recompute the chain from its first row on, here and not in the database.

    Args:
        conn: a transaction of the organization; rows stream through a server-side cursor, so any length will do.
        org_id: the organization.
        noted: a head that an earlier verification answered and that was kept elsewhere.

    Returns:
        The head that was found, and the first row at fault.
    """
    kept: Head | None = None
    reached = Head(0, hashlib.sha256(str(org_id).encode()).digest())
    async with conn.cursor("audit_chain") as cursor:
        cursor.itersize = BATCH
        await cursor.execute(CHAIN, {"org_id": org_id})
        async for head_sequence, head_hash, sequence, *fields, previous_hash, row_hash in cursor:
            kept = Head(head_sequence, head_hash) if head_sequence is not None else None
            if sequence is None:
                break  # a head without any row
            fault = _fault_of(org_id, reached, sequence, fields, previous_hash, row_hash)
            if fault is not None:
                return Verification(kept or reached, sequence, fault)
            reached = Head(sequence, row_hash)
            if noted is not None and noted.sequence == sequence and noted.hash != row_hash:
                return Verification(kept or reached, sequence, "The row is not the one that was noted earlier.")
    return _check_end(reached, kept, noted)


def _fault_of(
    org_id: UUID, reached: Head, sequence: int, fields: list[Any], previous_hash: bytes, row_hash: bytes
) -> str | None:
    if sequence != reached.sequence + 1:
        return f"The row after {reached.sequence} is missing."
    if previous_hash != reached.hash:
        return "The row does not follow the one before it."
    if row_hash != _hash(previous_hash, org_id, sequence, *fields):
        return "The row was changed after it was written."
    return None


def _check_end(reached: Head, kept: Head | None, noted: Head | None) -> Verification:
    if kept is None and reached.sequence > 0:
        return Verification(reached, reached.sequence, "The record of the chain's end is missing.")
    if kept is not None and kept != reached:
        first = min(kept.sequence, reached.sequence) + 1
        return Verification(kept, first, f"The rows end at {reached.sequence}, the chain at {kept.sequence}.")
    if noted is not None and noted.sequence > reached.sequence:
        return Verification(reached, reached.sequence + 1, f"An end at {noted.sequence} was noted earlier.")
    return Verification(reached)


def _hash(
    previous_hash: bytes,
    org_id: UUID,
    sequence: int,
    at: datetime,
    actor: str,
    action: str,
    target: str,
    details: str,
    request_id: str,
) -> bytes:
    """The twin of `audit_hash` in 0001_tenancy.sql: lengths keep two fields from passing as one."""
    microseconds = (at - EPOCH) // timedelta(microseconds=1)
    fields = [str(org_id), str(sequence), str(microseconds), actor, action, target, details, request_id]
    text = ",".join(f"{len(field)}:{field}" for field in fields)
    return hashlib.sha256(previous_hash + text.encode()).digest()
