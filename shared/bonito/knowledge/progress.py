"""What follows when a document is done: the end of its sync, the switch to a generation that is complete.

Nothing of it happens in the document's own transaction: whoever commits last sees that all others have, so that two
who finish at once cannot both miss it, and the knowledge base is locked first, as everywhere.
"""

from __future__ import annotations

from typing import LiteralString
from uuid import UUID

from bonito.database.pool import Connection, Pool, tenant
from bonito.errors import KnowledgeBaseNotFound
from bonito.knowledge import claims, counts, generations

# One look at indexes, without locks: after most documents there is nothing to do.
LOOK: LiteralString = """
    SELECT s.id,
           EXISTS (SELECT FROM kb_documents d
                    WHERE d.org_id = s.org_id AND d.sync_id = s.id AND d.status IN ('pending', 'processing')),
           EXISTS (SELECT FROM kb_generations g
                    WHERE g.org_id = b.org_id AND g.knowledge_base_id = b.id AND g.status = 'building')
      FROM knowledge_bases b
      LEFT JOIN kb_syncs s ON s.org_id = b.org_id AND s.knowledge_base_id = b.id
                          AND s.status IN ('listing', 'processing')
     WHERE b.org_id = %(org_id)s AND b.id = %(knowledge_base_id)s AND b.deleted_at IS NULL
"""

# Waits for every flip in progress and holds off new ones, so that whoever changes the base waits for nobody after this.
LOCK_BASE: LiteralString = """
    SELECT served_generation FROM knowledge_bases
     WHERE org_id = %(org_id)s AND id = %(knowledge_base_id)s AND deleted_at IS NULL FOR UPDATE
"""

END_SYNC: LiteralString = """
    UPDATE kb_syncs s
       SET status = 'done', finished_at = now(), lease_until = NULL,
           removed_count = (SELECT count(*) FROM kb_documents d
                             WHERE d.org_id = s.org_id AND d.sync_id = s.id AND d.deleted_at IS NOT NULL),
           failed_count = (SELECT count(*) FROM kb_documents d
                            WHERE d.org_id = s.org_id AND d.knowledge_base_id = s.knowledge_base_id
                              AND d.status = 'error' AND d.deleted_at IS NULL)
     WHERE s.org_id = %(org_id)s AND s.id = %(sync_id)s AND s.status = 'processing'
       AND NOT EXISTS (SELECT FROM kb_documents d
                        WHERE d.org_id = s.org_id AND d.sync_id = s.id AND d.status IN ('pending', 'processing'))
    RETURNING s.id
"""

SHOW_END: LiteralString = """
    UPDATE knowledge_bases
       SET status = CASE WHEN %(message)s::text IS NULL THEN 'ready' ELSE 'error' END, error_message = %(message)s,
           last_synced_at = now(), updated_at = now()
     WHERE org_id = %(org_id)s AND id = %(knowledge_base_id)s
"""

# Documents that are served now, and those of them that just this content failed for in the generation beside: the
# documents are sound, so it is the new build that is not.
LOST: LiteralString = """
    SELECT count(*), count(*) FILTER (WHERE EXISTS (
               SELECT FROM kb_revisions new
                WHERE new.org_id = old.org_id AND new.document_id = old.document_id AND new.generation_id = building.id
                  AND new.status = 'failed' AND new.file_hash = old.file_hash))
      FROM kb_generations served
      JOIN kb_generations building ON building.org_id = served.org_id AND building.status = 'building'
                                  AND building.knowledge_base_id = served.knowledge_base_id
      JOIN kb_revisions old ON old.org_id = served.org_id AND old.generation_id = served.id AND old.status = 'served'
     WHERE served.org_id = %(org_id)s AND served.knowledge_base_id = %(knowledge_base_id)s AND served.status = 'served'
"""


async def conclude(pool: Pool, *, org_id: UUID, knowledge_base_id: UUID) -> None:
    """Do what is due once a document of the base is done; nothing while its sync has others in work."""
    row = {"org_id": org_id, "knowledge_base_id": knowledge_base_id}
    async with tenant(pool, org_id) as conn:
        found = await (await conn.execute(LOOK, row)).fetchone()
    if found is None:
        return
    sync_id, has_unfinished, is_building = found
    if has_unfinished:
        return
    try:
        if is_building and await rebuild_fault(pool, org_id=org_id, knowledge_base_id=knowledge_base_id) is None:
            async with tenant(pool, org_id) as conn:
                await generations.switch_if_complete(conn, org_id=org_id, knowledge_base_id=knowledge_base_id)
        if sync_id is not None:
            await end_sync(pool, org_id=org_id, knowledge_base_id=knowledge_base_id, sync_id=sync_id)
    except KnowledgeBaseNotFound:
        return  # deleted meanwhile


async def rebuild_fault(pool: Pool, *, org_id: UUID, knowledge_base_id: UUID) -> str | None:
    """Why the generation that is being built may not be served, in a sentence for a person; None when it may be.

    A document here and there that the new build cannot take does not hold it up; when it is more than half of them,
    the base would lose what it answers from.
    """
    async with tenant(pool, org_id) as conn:
        row = {"org_id": org_id, "knowledge_base_id": knowledge_base_id}
        counted = await (await conn.execute(LOST, row)).fetchone()
    served, lost = counted if counted is not None else (0, 0)
    if 2 * lost <= served:
        return None
    return (
        f"The new build failed for {lost} of {served} documents and is not served; the previous one still answers. "
        "The documents say why."
    )


async def end_sync(pool: Pool, *, org_id: UUID, knowledge_base_id: UUID, sync_id: UUID) -> bool:
    """End a sync whose documents are all done, and show how the base stands; whether this call ended it."""
    row = {"org_id": org_id, "knowledge_base_id": knowledge_base_id, "sync_id": sync_id}
    await reword(pool, org_id=org_id, knowledge_base_id=knowledge_base_id)
    fault = await rebuild_fault(pool, org_id=org_id, knowledge_base_id=knowledge_base_id)
    async with tenant(pool, org_id) as conn:
        base = await (await conn.execute(LOCK_BASE, row)).fetchone()
        if base is None or await (await conn.execute(END_SYNC, row)).fetchone() is None:
            return False
        if base[0] is None:
            await _serve_what_there_is(conn, org_id=org_id, knowledge_base_id=knowledge_base_id)
        await conn.execute(SHOW_END, row | {"message": fault})
        return True


async def reword(pool: Pool, *, org_id: UUID, knowledge_base_id: UUID) -> None:
    """Rewrite what was served before its generation's language was known, a document at a time."""
    async with tenant(pool, org_id) as conn:
        opened = await generations.building_or_served(conn, org_id=org_id, knowledge_base_id=knowledge_base_id)
    for generation in opened:
        while await _reword_one(pool, org_id=org_id, generation_id=generation.id):
            pass


async def _reword_one(pool: Pool, *, org_id: UUID, generation_id: UUID) -> bool:
    async with tenant(pool, org_id) as conn:
        found = await counts.find_otherwise_worded(conn, org_id=org_id, generation_id=generation_id)
    if found is None:
        return False
    revision_id, document_id, knowledge_base_id = found
    async with tenant(pool, org_id) as conn:
        await claims.lock_base(conn, org_id=org_id, knowledge_base_id=knowledge_base_id)
        if await claims.lock_document(conn, org_id=org_id, document_id=document_id) is None:
            return True
        again = await counts.find_otherwise_worded(conn, org_id=org_id, generation_id=generation_id)
        if again == found:
            await counts.reword(conn, org_id=org_id, generation_id=generation_id, revision_id=revision_id)
    return True


async def _serve_what_there_is(conn: Connection, *, org_id: UUID, knowledge_base_id: UUID) -> None:
    """The first sync ended and nothing flipped: the base is empty, and answers so."""
    opened = await generations.building_or_served(conn, org_id=org_id, knowledge_base_id=knowledge_base_id)
    for generation in opened[:1]:
        await generations.serve_first(
            conn, org_id=org_id, knowledge_base_id=knowledge_base_id, generation_id=generation.id
        )
