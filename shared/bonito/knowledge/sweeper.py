"""The sweeper: work whose worker was lost goes on, and what nobody is served any more goes away, in batches.

Any number of sweepers may run at once: whoever finds the same work skips what another holds, and every step is
idempotent.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, LiteralString
from uuid import UUID

from bonito.database.pool import lookup, tenant
from bonito.knowledge import direct_uploads, progress, webhooks
from bonito.knowledge.context import Ingestion
from bonito.knowledge.messages import IngestMessage, SyncMessage

logger = logging.getLogger(__name__)

Kind = Literal["document", "sync", "revision", "generation", "knowledge_base", "tombstone", "upload"]

# Of each kind, in one call.
ITEMS = 200
# Rows of one DELETE, and how many of them for one item in one call: what is left waits for the next.
ROWS, ROUNDS = 1000, 20

FIND: LiteralString = "SELECT kind, org_id, id FROM find_sweeping(%(limit)s, %(grace)s, %(keep)s)"

# Only one of several sweepers gets the row; the base's deletion ends its documents' work.
TAKE_DOCUMENT: LiteralString = """
    UPDATE kb_documents d
       SET lease_until = CASE WHEN b.deleted_at IS NULL THEN now() + %(lease)s END
      FROM knowledge_bases b
     WHERE d.org_id = %(org_id)s AND d.lease_until < now() AND b.org_id = d.org_id AND b.id = d.knowledge_base_id
       AND d.id = (SELECT l.id FROM kb_documents l WHERE l.org_id = %(org_id)s AND l.id = %(id)s FOR UPDATE SKIP LOCKED)
    RETURNING d.knowledge_base_id, d.file_path, d.lease_until IS NOT NULL
"""

# A lost worker counts as a failed try, unless the document only waited for vectors.
COUNT_LOSS: LiteralString = """
    UPDATE kb_documents d SET attempts = attempts + 1, status = 'pending'
     WHERE d.org_id = %(org_id)s AND d.id = %(id)s AND d.status = 'processing' AND NOT EXISTS (
           SELECT FROM kb_revisions r
            WHERE r.org_id = d.org_id AND r.document_id = d.id AND r.status = 'building')
"""

# Whoever held the listing, should he be alive, no longer does.
TAKE_SYNC: LiteralString = """
    UPDATE kb_syncs s SET fence = s.fence + 1, lease_until = now() + %(lease)s
      FROM (SELECT l.id FROM kb_syncs l
             WHERE l.org_id = %(org_id)s AND l.id = %(id)s AND l.lease_until < now() FOR UPDATE SKIP LOCKED) before
     WHERE s.org_id = %(org_id)s AND s.id = before.id
    RETURNING s.knowledge_base_id, s.status, s.fence
"""

# While this is held nobody takes the content up again.
LOCK_ENDED: LiteralString = """
    SELECT r.status = 'failed' AND d.file_hash IS NOT DISTINCT FROM r.file_hash
      FROM kb_revisions r JOIN kb_documents d ON d.org_id = r.org_id AND d.id = r.document_id
     WHERE r.org_id = %(org_id)s AND r.id = %(id)s AND r.ended_at IS NOT NULL FOR UPDATE OF r SKIP LOCKED
"""

DELETE_INDEX: LiteralString = """
    DELETE FROM kb_index WHERE org_id = %(org_id)s AND chunk_id = ANY (ARRAY(
        SELECT chunk_id FROM kb_index WHERE org_id = %(org_id)s AND revision_id = %(id)s LIMIT %(rows)s))
"""
DELETE_CHUNKS: LiteralString = """
    DELETE FROM kb_chunks WHERE org_id = %(org_id)s AND id = ANY (ARRAY(
        SELECT id FROM kb_chunks WHERE org_id = %(org_id)s AND revision_id = %(id)s LIMIT %(rows)s))
"""
DELETE_REVISION: LiteralString = "DELETE FROM kb_revisions WHERE org_id = %(org_id)s AND id = %(id)s"

# The mark of what failed outlives its rows for as long as the document has this content: a switch looks for it.
KEEP_MARK: LiteralString = "UPDATE kb_revisions SET ended_at = NULL WHERE org_id = %(org_id)s AND id = %(id)s"

# The revisions' own sweeping does the work; the generation goes once nothing of it is left.
END_OF_GENERATION: LiteralString = """
    UPDATE kb_revisions SET status = 'superseded', ended_at = 'epoch'
     WHERE org_id = %(org_id)s AND id = ANY (ARRAY(
        SELECT id FROM kb_revisions
         WHERE org_id = %(org_id)s AND generation_id = %(id)s AND (ended_at IS NULL OR status = 'failed')
         LIMIT %(rows)s FOR UPDATE SKIP LOCKED))
"""
DELETE_TERMS: LiteralString = """
    DELETE FROM kb_terms WHERE org_id = %(org_id)s AND generation_id = %(id)s AND term = ANY (ARRAY(
        SELECT term FROM kb_terms WHERE org_id = %(org_id)s AND generation_id = %(id)s LIMIT %(rows)s))
"""
DELETE_GENERATION: LiteralString = """
    DELETE FROM kb_generations g
     WHERE g.org_id = %(org_id)s AND g.id = %(id)s AND g.status = 'retired'
       AND NOT EXISTS (SELECT FROM kb_revisions r WHERE r.org_id = g.org_id AND r.generation_id = g.id)
       AND NOT EXISTS (SELECT FROM kb_terms t WHERE t.org_id = g.org_id AND t.generation_id = g.id)
"""

RETIRE_ALL: LiteralString = """
    UPDATE kb_generations SET status = 'retired', retired_at = 'epoch'
     WHERE org_id = %(org_id)s AND knowledge_base_id = %(id)s AND retired_at IS DISTINCT FROM 'epoch'::timestamptz
"""
DELETE_DOCUMENTS: LiteralString = """
    DELETE FROM kb_documents WHERE org_id = %(org_id)s AND id = ANY (ARRAY(
        SELECT d.id FROM kb_documents d
         WHERE d.org_id = %(org_id)s AND d.knowledge_base_id = %(id)s AND NOT EXISTS (
               SELECT FROM kb_revisions r WHERE r.org_id = d.org_id AND r.document_id = d.id)
         LIMIT %(rows)s FOR UPDATE SKIP LOCKED))
"""
DELETE_BASE: LiteralString = """
    DELETE FROM knowledge_bases b
     WHERE b.org_id = %(org_id)s AND b.id = %(id)s AND b.deleted_at IS NOT NULL
       AND NOT EXISTS (SELECT FROM kb_documents d WHERE d.org_id = b.org_id AND d.knowledge_base_id = b.id)
       AND NOT EXISTS (SELECT FROM kb_generations g WHERE g.org_id = b.org_id AND g.knowledge_base_id = b.id)
"""

DELETE_TOMBSTONE: LiteralString = """
    DELETE FROM kb_documents d
     WHERE d.org_id = %(org_id)s AND d.id = %(id)s AND d.deleted_at < now() - %(keep)s
       AND NOT EXISTS (SELECT FROM kb_revisions r WHERE r.org_id = d.org_id AND r.document_id = d.id)
"""


@dataclass(frozen=True)
class Patience:
    """How long things stay before they are swept.

    Attributes:
        grace: rows that are no longer served: a content that comes back soon finds its vectors.
        tombstones: deleted documents.
        uploads: beyond their time, for files that are still under way.
    """

    grace: timedelta = timedelta(minutes=10)
    tombstones: timedelta = timedelta(days=30)
    uploads: timedelta = direct_uploads.GRACE


async def sweep(context: Ingestion, *, patience: Patience | None = None) -> Mapping[Kind, int]:
    """Do a bounded amount of whatever is due, in all organizations.

    Returns:
        How many items of each kind were worked on; all 0 when nothing is due.
    """
    patience = patience or Patience()
    row = {"limit": ITEMS, "grace": patience.grace, "keep": patience.tombstones}
    async with lookup(context.pool) as conn:
        found = await (await conn.execute(FIND, row)).fetchall()
    swept = Counter[Kind]()
    for kind, org_id, item in found:
        try:
            swept[kind] += await _STEPS[kind](context, org_id, item, patience)
        except Exception:
            logger.exception("Sweeping a %s failed; it is tried again.", kind)
    swept["upload"] += await direct_uploads.sweep(context, grace=patience.uploads)
    return swept


async def _document(context: Ingestion, org_id: UUID, item: UUID, patience: Patience) -> bool:
    """A lease ran out: have the path looked at again."""
    row = {"org_id": org_id, "id": item, "lease": context.leases.waiting}
    async with tenant(context.pool, org_id) as conn:
        taken = await (await conn.execute(TAKE_DOCUMENT, row)).fetchone()
        if taken is None:
            return False
        await conn.execute(COUNT_LOSS, row)
    knowledge_base_id, path, is_live = taken
    if is_live:
        message = IngestMessage(org_id, knowledge_base_id, path, is_bulk=True)
        await context.queue.send(message.queue, message.to_json())
    return True


async def _sync(context: Ingestion, org_id: UUID, item: UUID, patience: Patience) -> bool:
    """A listing whose worker or message was lost goes on; a sync whose documents are all done ends."""
    row = {"org_id": org_id, "id": item, "lease": context.leases.sync}
    async with tenant(context.pool, org_id) as conn:
        taken = await (await conn.execute(TAKE_SYNC, row)).fetchone()
    if taken is None:
        return False
    knowledge_base_id, status, fence = taken
    if status == "processing":
        await progress.conclude(context.pool, org_id=org_id, knowledge_base_id=knowledge_base_id)
    else:
        message = SyncMessage(org_id, knowledge_base_id, slice=(item, fence))
        await context.queue.send(message.queue, message.to_json())
    return True


async def _revision(context: Ingestion, org_id: UUID, item: UUID, patience: Patience) -> bool:
    """Remove the rows of a revision that nobody is served, then the revision."""
    row = {"org_id": org_id, "id": item, "rows": ROWS}
    for _ in range(ROUNDS):
        async with tenant(context.pool, org_id) as conn:
            locked = await (await conn.execute(LOCK_ENDED, row)).fetchone()
            if locked is None:
                return False  # in another sweeper's hands, or taken up again
            deleted = (await conn.execute(DELETE_INDEX, row)).rowcount + (
                await conn.execute(DELETE_CHUNKS, row)
            ).rowcount
            if deleted == 0:
                await conn.execute(KEEP_MARK if locked[0] else DELETE_REVISION, row)
                return True
    return True


async def _generation(context: Ingestion, org_id: UUID, item: UUID, patience: Patience) -> bool:
    """Hand a retired generation's revisions to the sweeper, remove its terms, and at last itself."""
    row = {"org_id": org_id, "id": item, "rows": ROWS}
    await _repeat(context, row, END_OF_GENERATION)
    await _repeat(context, row, DELETE_TERMS)
    async with tenant(context.pool, org_id) as conn:
        await conn.execute(DELETE_GENERATION, row)
    return True


async def _knowledge_base(context: Ingestion, org_id: UUID, item: UUID, patience: Patience) -> bool:
    """Remove a deleted base's uploads and webhook, retire its generations; once they are swept, remove the rest."""
    row = {"org_id": org_id, "id": item, "rows": ROWS}
    await context.stores.discard(org_id, item)
    async with tenant(context.pool, org_id) as conn:
        await webhooks.delete(conn, org_id=org_id, knowledge_base_id=item)
        await conn.execute(RETIRE_ALL, row)
    await _repeat(context, row, DELETE_DOCUMENTS)
    async with tenant(context.pool, org_id) as conn:
        await conn.execute(DELETE_BASE, row)
    return True


async def _tombstone(context: Ingestion, org_id: UUID, item: UUID, patience: Patience) -> bool:
    row = {"org_id": org_id, "id": item, "keep": patience.tombstones}
    async with tenant(context.pool, org_id) as conn:
        return (await conn.execute(DELETE_TOMBSTONE, row)).rowcount == 1


async def _repeat(context: Ingestion, row: Mapping[str, Any], statement: LiteralString) -> None:
    """Run a statement, each time in its own transaction, until it finds nothing or has had its rounds."""
    for _ in range(ROUNDS):
        async with tenant(context.pool, row["org_id"]) as conn:
            if (await conn.execute(statement, row)).rowcount == 0:
                return


_STEPS: dict[Kind, Callable[[Ingestion, UUID, UUID, Patience], Awaitable[bool]]] = {
    "document": _document,
    "sync": _sync,
    "revision": _revision,
    "generation": _generation,
    "knowledge_base": _knowledge_base,
    "tombstone": _tombstone,
}
