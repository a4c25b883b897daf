"""An organization's use of what its tier limits, and the guards that keep two at once from passing a limit together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal, LiteralString
from uuid import UUID

from psycopg.rows import class_row

from bonito.database.pool import Connection
from bonito.errors import TierLimit
from bonito.tenancy import tiers
from bonito.tenancy.tiers import TIERS, Limits, Tier

Counted = Literal["knowledge_bases", "documents", "chunks"]

# Whoever adds something waits for whoever adds something else of the same organization, until that is committed.
LOCK: LiteralString = "SELECT pg_advisory_xact_lock(hashtextextended('bonito limits ' || %(org_id)s::text, 0))"

# A generation counts what it serves, in the transaction of each flip. What is being read counts as what it will be:
# a new content in place of the one that is served. A base that is rebuilt counts once, as its larger build.
USAGE: LiteralString = """
    WITH opened AS (
        SELECT g.id, g.knowledge_base_id, g.document_count, g.chunk_count
          FROM knowledge_bases b
          JOIN kb_generations g ON g.org_id = b.org_id AND g.knowledge_base_id = b.id
         WHERE b.org_id = %(org_id)s AND b.deleted_at IS NULL AND g.status IN ('served', 'building')),
    coming AS (
        SELECT r.generation_id, count(*) FILTER (WHERE s.id IS NULL) AS documents,
               sum(r.chunk_count - coalesce(s.chunk_count, 0)) AS chunks
          FROM opened o
          JOIN kb_revisions r ON r.org_id = %(org_id)s AND r.generation_id = o.id AND r.status = 'building'
          LEFT JOIN kb_revisions s ON s.org_id = r.org_id AND s.document_id = r.document_id
                                  AND s.generation_id = r.generation_id AND s.status = 'served'
         GROUP BY r.generation_id)
    SELECT (SELECT count(*) FROM knowledge_bases b WHERE b.org_id = %(org_id)s AND b.deleted_at IS NULL)
               AS knowledge_bases,
           coalesce(sum(each.documents), 0)::bigint AS documents, coalesce(sum(each.chunks), 0)::bigint AS chunks
      FROM (SELECT max(o.document_count + coalesce(c.documents, 0)) AS documents,
                   max(o.chunk_count + coalesce(c.chunks, 0)) AS chunks
              FROM opened o LEFT JOIN coming c ON c.generation_id = o.id
             GROUP BY o.knowledge_base_id) each
"""

IS_KEPT: LiteralString = """
    SELECT EXISTS (SELECT FROM kb_revisions
                    WHERE org_id = %(org_id)s AND document_id = %(document_id)s AND status IN ('building', 'served'))
"""

NOUNS: dict[Counted, tuple[str, str]] = {
    "knowledge_bases": ("knowledge base", "knowledge bases"),
    "documents": ("document", "documents"),
    "chunks": ("chunk", "chunks"),
}


@dataclass(frozen=True)
class Usage:
    """What an organization has of what tiers limit."""

    knowledge_bases: int
    documents: int
    chunks: int


async def usage(conn: Connection, *, org_id: UUID) -> Usage:
    """Counted as `tiers.Limits` says."""
    async with conn.cursor(row_factory=class_row(Usage)) as cursor:
        await cursor.execute(USAGE, {"org_id": org_id})
        found = await cursor.fetchone()
    assert found is not None  # noqa: S101 - an aggregate always answers
    return found


@asynccontextmanager
async def guarded(conn: Connection, *, org_id: UUID, tier: Tier) -> AsyncIterator[None]:
    """Let the body add to what the organization has, unless that passes a limit.

    What an organization has above a limit already, after its tier was lowered, stays, and may be replaced by less.

    Args:
        conn: a transaction; until its end nobody else adds anything, where the tier has limits.
        org_id: the organization.
        tier: its tier.

    Raises:
        TierLimit: it does; the transaction has to be rolled back.
    """
    limits = TIERS[tier]
    if limits.knowledge_bases is limits.documents is limits.chunks is None:
        yield
        return
    await conn.execute(LOCK, {"org_id": org_id})
    before = await usage(conn, org_id=org_id)
    yield
    after = await usage(conn, org_id=org_id)
    for counted in NOUNS:
        if getattr(after, counted) > getattr(before, counted):
            _check(tier, counted, getattr(after, counted))


async def check_document(conn: Connection, *, org_id: UUID, tier: Tier, document_id: UUID) -> None:
    """Refuse a new document where there is no room for it, before it is read; the guard decides.

    Raises:
        TierLimit: the organization has as many documents or chunks as it may have.
    """
    limits = TIERS[tier]
    if limits.documents is limits.chunks is None:
        return
    row = {"org_id": org_id, "document_id": document_id}
    kept = await (await conn.execute(IS_KEPT, row)).fetchone()
    if kept is not None and kept[0]:
        return
    present = await usage(conn, org_id=org_id)
    _check(tier, "documents", present.documents + 1)
    _check(tier, "chunks", present.chunks + 1)


def _check(tier: Tier, counted: Counted, number: int) -> None:
    most = _most(TIERS[tier], counted)
    if most is None or number <= most:
        return
    required = tiers.least(lambda limits: (limit := _most(limits, counted)) is None or limit >= number)
    noun = NOUNS[counted][most != 1]
    raise TierLimit(
        f"The tier {tier} holds {most:,} {noun} at most; remove some, or change to {required}.", required_tier=required
    )


def _most(limits: Limits, counted: Counted) -> int | None:
    most: int | None = getattr(limits, counted)
    return most
