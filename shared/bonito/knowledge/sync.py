"""Syncs: a source is listed to its end and compared with its documents; what differs is sent to be looked at.

A listing decides nothing by itself: a path that is missing from it becomes a message like any other, and only the
store's own answer for that path removes the document. A listing that fails changes nothing that is served.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, LiteralString
from uuid import UUID, uuid4

from psycopg.rows import class_row

from bonito.clouds.base import ObjectInfo
from bonito.database.pool import Connection, Pool, tenant
from bonito.errors import KnowledgeBaseNotFound
from bonito.knowledge import bases, claims, generations, progress
from bonito.knowledge.bases import KnowledgeBase
from bonito.knowledge.context import Ingestion, send_all
from bonito.knowledge.messages import IngestMessage, SyncMessage
from bonito.knowledge.retries import explain, is_unforeseen, kept

logger = logging.getLogger(__name__)

# Objects of a listing that are compared at once.
PAGE = 500
LISTING_LEASE = timedelta(minutes=1)
# How long a found document may wait for its message to be sent, then for its turn, before the sweeper sends another.
SENDING_LEASE, PENDING_LEASE = timedelta(minutes=2), timedelta(hours=6)
# When to ask again for a listing that began while another was under way: what changed behind its back is in this one.
AGAIN = timedelta(seconds=15)
KEEP = timedelta(days=7)

SyncState = Literal["never", "listing", "processing", "done", "failed"]

FORGET: LiteralString = """
    DELETE FROM kb_syncs
     WHERE org_id = %(org_id)s AND knowledge_base_id = %(knowledge_base_id)s AND finished_at < now() - %(keep)s
"""

# One sync per base runs at a time, the unique index sees to that. Whoever asks for another while documents are in
# work has the source listed again for the same sync; while another worker lists, that one's listing goes on.
BEGIN: LiteralString = """
    INSERT INTO kb_syncs AS s (org_id, id, knowledge_base_id, retry_failed, fence, lease_until)
    VALUES (%(org_id)s, %(new_id)s, %(knowledge_base_id)s, %(retry_failed)s, 1, now() + %(lease)s)
    ON CONFLICT (org_id, knowledge_base_id) WHERE status IN ('listing', 'processing') DO UPDATE
       SET status = 'listing', fence = s.fence + 1, lease_until = excluded.lease_until, unchanged_count = 0,
           retry_failed = s.retry_failed OR excluded.retry_failed
     WHERE s.status = 'processing' OR s.lease_until < now()
    RETURNING s.id, s.fence, s.retry_failed
"""

SHOW_SYNCING: LiteralString = """
    UPDATE knowledge_bases SET status = 'syncing', updated_at = now()
     WHERE org_id = %(org_id)s AND id = %(knowledge_base_id)s AND status <> 'syncing'
"""

RENEW: LiteralString = """
    UPDATE kb_syncs SET lease_until = now() + %(lease)s
     WHERE org_id = %(org_id)s AND id = %(sync_id)s AND fence = %(fence)s AND status = 'listing'
"""

# A page of the listing reaches from behind `after` to its own last path; documents in between that it does not name
# are missing from the source, as far as the listing can tell.
MISSING: LiteralString = """
    SELECT d.file_path FROM kb_documents d
     WHERE d.org_id = %(org_id)s AND d.knowledge_base_id = %(knowledge_base_id)s AND d.deleted_at IS NULL
       AND d.file_path > %(after)s AND (%(last)s::text IS NULL OR d.file_path <= %(last)s)
       AND NOT d.file_path = ANY(%(paths)s::text[])
"""

# What has to be looked at: new or changed paths; failed ones, where that is asked for; and those that a generation
# which is being built lacks. What waits or is in a worker's hands with this version is left to it.
COMPARE: LiteralString = """
    SELECT o.path, o.version
      FROM unnest(%(paths)s::text[], %(versions)s::text[]) AS o (path, version)
      LEFT JOIN kb_documents d ON d.org_id = %(org_id)s AND d.knowledge_base_id = %(knowledge_base_id)s
                              AND d.file_path = o.path
     WHERE d.id IS NULL OR d.deleted_at IS NOT NULL OR d.source_version IS DISTINCT FROM o.version
        OR (%(retry_failed)s AND (d.status = 'error' OR (d.status = 'pending' AND d.attempts > 0)))
        OR (%(building)s::uuid IS NOT NULL AND d.status <> 'pending'
            AND NOT EXISTS (
               SELECT FROM kb_revisions r
                WHERE r.org_id = d.org_id AND r.document_id = d.id AND r.generation_id = %(building)s
                  AND (r.status = 'building' OR (r.status IN ('served', 'failed') AND r.file_hash = d.file_hash)))
            AND (d.status <> 'processing' OR EXISTS (
               SELECT FROM kb_revisions r
                WHERE r.org_id = d.org_id AND r.document_id = d.id AND r.status = 'building')))
     ORDER BY o.path
"""

ANNOUNCE: LiteralString = """
    INSERT INTO kb_documents AS d (org_id, id, knowledge_base_id, file_path, file_name, source_version, sync_id,
                                   lease_until)
    SELECT %(org_id)s, o.id, %(knowledge_base_id)s, o.path, regexp_replace(o.path, '^.*/', ''), o.version, %(sync_id)s,
           now() + %(lease)s
      FROM unnest(%(ids)s::uuid[], %(paths)s::text[], %(versions)s::text[]) AS o (id, path, version)
    ON CONFLICT (org_id, knowledge_base_id, file_path) DO UPDATE
       SET status = 'pending', source_version = excluded.source_version, sync_id = excluded.sync_id, attempts = 0,
           lease_until = excluded.lease_until, error_message = NULL, deleted_at = NULL, updated_at = now()
"""

# A document that is already waiting or in work keeps its status, so that nobody takes it from its worker.
ANNOUNCE_MISSING: LiteralString = """
    UPDATE kb_documents
       SET sync_id = %(sync_id)s, updated_at = now(),
           status = CASE WHEN status = 'processing' THEN status ELSE 'pending' END,
           lease_until = CASE WHEN status = 'processing' THEN lease_until ELSE now() + %(lease)s END
     WHERE org_id = %(org_id)s AND knowledge_base_id = %(knowledge_base_id)s AND deleted_at IS NULL
       AND file_path = ANY(%(paths)s::text[])
    RETURNING file_path
"""

SENT: LiteralString = """
    UPDATE kb_documents SET lease_until = now() + %(lease)s
     WHERE org_id = %(org_id)s AND knowledge_base_id = %(knowledge_base_id)s AND status = 'pending'
       AND file_path = ANY(%(paths)s::text[])
"""

# Those that an earlier listing of this sync sent are counted by their rows.
COUNT_UNCHANGED: LiteralString = """
    UPDATE kb_syncs s
       SET lease_until = now() + %(lease)s, unchanged_count = unchanged_count + (
           SELECT count(*) FROM kb_documents d
            WHERE d.org_id = s.org_id AND d.knowledge_base_id = s.knowledge_base_id
              AND d.file_path = ANY(%(paths)s::text[]) AND d.sync_id IS DISTINCT FROM s.id)
     WHERE s.org_id = %(org_id)s AND s.id = %(sync_id)s AND s.fence = %(fence)s AND s.status = 'listing'
    RETURNING s.id
"""

LISTED: LiteralString = """
    UPDATE kb_syncs SET status = 'processing', lease_until = now() + %(lease)s
     WHERE org_id = %(org_id)s AND id = %(sync_id)s AND fence = %(fence)s AND status = 'listing'
    RETURNING id
"""

END_FAILED: LiteralString = """
    UPDATE kb_syncs SET status = 'failed', error_message = %(message)s, finished_at = now(), lease_until = NULL
     WHERE org_id = %(org_id)s AND id = %(sync_id)s AND fence = %(fence)s AND status = 'listing'
    RETURNING id
"""

SHOW_ERROR: LiteralString = """
    UPDATE knowledge_bases SET status = 'error', error_message = %(message)s, updated_at = now()
     WHERE org_id = %(org_id)s AND id = %(knowledge_base_id)s
"""

STATUS: LiteralString = """
    SELECT s.status, s.error_message, s.started_at, s.finished_at, s.unchanged_count + count(d.id) AS files_total,
           s.unchanged_count + count(d.id) FILTER (WHERE d.status NOT IN ('pending', 'processing')) AS files_processed,
           (SELECT count(*) FROM kb_documents e
             WHERE e.org_id = s.org_id AND e.knowledge_base_id = s.knowledge_base_id AND e.deleted_at IS NULL
               AND e.status = 'error') AS files_failed,
           (SELECT p.file_path FROM kb_documents p
             WHERE p.org_id = s.org_id AND p.sync_id = s.id AND p.status = 'processing'
             ORDER BY p.updated_at DESC LIMIT 1) AS current_file
      FROM kb_syncs s LEFT JOIN kb_documents d ON d.org_id = s.org_id AND d.sync_id = s.id
     WHERE s.org_id = %(org_id)s AND s.id = (
           SELECT l.id FROM kb_syncs l
            WHERE l.org_id = %(org_id)s AND l.knowledge_base_id = %(knowledge_base_id)s
            ORDER BY l.started_at DESC, l.id LIMIT 1)
     GROUP BY s.org_id, s.id
"""


@dataclass(frozen=True)
class SyncStatus:
    """How far the last sync of a knowledge base came.

    Attributes:
        status: `never` before the first; `listing`, then `processing`, then `done` or `failed`.
        error_message: why the listing failed.
        files_total: objects that were listed so far, and documents that vanished.
        files_processed: those of them that are done: unchanged, ready, or ended with an error.
        files_failed: those that ended with an error, in this sync or before and have not changed since.
        current_file: the path of one in work.
    """

    status: SyncState
    error_message: str | None
    started_at: datetime | None
    finished_at: datetime | None
    files_total: int
    files_processed: int
    files_failed: int
    current_file: str | None

    @property
    def progress_percentage(self) -> float:
        """0 to 100; while the source is still being listed it may fall."""
        if self.status == "done":
            return 100.0
        return round(100 * self.files_processed / self.files_total, 1) if self.files_total else 0.0


NEVER = SyncStatus("never", None, None, None, 0, 0, 0, None)


@dataclass(frozen=True)
class Listing:
    """A sync whose listing is in our hands."""

    id: UUID
    fence: int
    retry_failed: bool


@dataclass(frozen=True)
class Page:
    """A part of the listing: objects by path, from behind the path `after`; `is_last` when nothing follows."""

    after: str
    objects: dict[str, ObjectInfo]
    is_last: bool


async def sync_status(conn: Connection, *, org_id: UUID, knowledge_base_id: UUID) -> SyncStatus:
    """The last sync of a knowledge base, running or ended."""
    async with conn.cursor(row_factory=class_row(SyncStatus)) as cursor:
        await cursor.execute(STATUS, {"org_id": org_id, "knowledge_base_id": knowledge_base_id})
        return await cursor.fetchone() or NEVER


async def sync(context: Ingestion, org_id: UUID, knowledge_base_id: UUID, *, retry_failed: bool = False) -> UUID | None:
    """Compare a knowledge base's source with its documents, and send what differs to be looked at.

    Args:
        context: what ingestion works with.
        org_id: the organization.
        knowledge_base_id: a base that is not deleted; of another one nothing is done.
        retry_failed: send documents too that ended with an error and have not changed.

    Returns:
        The sync's id; None when another worker is listing just now (then it is asked for again a little later), or
        there is no such base.

    Raises:
        Exception: of the database, or unforeseen: to be tried again. A source that cannot be listed is no exception:
            the base shows it.
    """
    try:
        base, listing = await _begin(context, org_id, knowledge_base_id, retry_failed)
        if listing is None:
            again = SyncMessage(org_id, knowledge_base_id, retry_failed)
            await context.queue.send(again.queue, again.to_json(), delay=AGAIN)
            return None
        async with kept(lambda: _renew(context.pool, org_id, listing), context.leases.renewal):
            failure = await _list(context, org_id, base, listing)
        if failure is not None:
            await _end_failed(context.pool, org_id, base, listing, failure)
    except KnowledgeBaseNotFound:
        return None
    await progress.conclude(context.pool, org_id=org_id, knowledge_base_id=base.id)
    return listing.id


async def _begin(
    context: Ingestion, org_id: UUID, knowledge_base_id: UUID, retry_failed: bool
) -> tuple[KnowledgeBase, Listing | None]:
    row = {
        "org_id": org_id,
        "new_id": uuid4(),
        "knowledge_base_id": knowledge_base_id,
        "retry_failed": retry_failed,
        "lease": LISTING_LEASE,
    }
    async with tenant(context.pool, org_id) as conn:
        base = await bases.lock(conn, org_id=org_id, knowledge_base_id=knowledge_base_id)
        await conn.execute(FORGET, row | {"keep": KEEP})
        async with conn.cursor(row_factory=class_row(Listing)) as cursor:
            await cursor.execute(BEGIN, row)
            listing = await cursor.fetchone()
        if listing is not None and base.status != "ready":
            await conn.execute(SHOW_SYNCING, row)
        return base, listing


async def _renew(pool: Pool, org_id: UUID, listing: Listing) -> bool:
    async with tenant(pool, org_id) as conn:
        row = {"org_id": org_id, "sync_id": listing.id, "fence": listing.fence, "lease": LISTING_LEASE}
        return (await conn.execute(RENEW, row)).rowcount == 1


async def _list(context: Ingestion, org_id: UUID, base: KnowledgeBase, listing: Listing) -> str | None:
    """Work through the listing; a sentence why the source could not be listed, None when all is well."""
    vanished: list[str] = []
    pages = _pages(context, org_id, base)
    while (page := await _next(pages)) is not None:
        if isinstance(page, str):
            return page
        paths = await _compare(context, org_id, base, listing, page, vanished)
        if paths is None:
            return None  # somebody else took the listing over
        await _send(context, org_id, base, paths)
    await _send(context, org_id, base, await _finish_listing(context, org_id, base, listing, vanished))
    return None


async def _next(pages: AsyncIterator[Page]) -> Page | str | None:
    """The next page, None after the last; or why the source cannot be listed."""
    try:
        return await anext(pages, None)
    except Exception as error:  # whatever it is, the base must not stay in `syncing`
        logger.warning("A source cannot be listed: %s", type(error).__name__, exc_info=is_unforeseen(error))
        return f"The source could not be listed: {explain(error)}"


async def _send(context: Ingestion, org_id: UUID, base: KnowledgeBase, paths: Sequence[str]) -> None:
    if not paths:
        return
    row = {"org_id": org_id, "knowledge_base_id": base.id, "paths": list(paths), "lease": PENDING_LEASE}
    async with tenant(context.pool, org_id) as conn:
        await conn.execute(SHOW_SYNCING, row)
    await send_all(context.queue, [IngestMessage(org_id, base.id, path, is_bulk=True) for path in paths])
    async with tenant(context.pool, org_id) as conn:
        await conn.execute(SENT, row)


async def _pages(context: Ingestion, org_id: UUID, base: KnowledgeBase) -> AsyncIterator[Page]:
    """The listing in pages; folders' placeholders and the prefix itself are no documents."""
    prefix = base.source_prefix
    after, some = "", dict[str, ObjectInfo]()
    store = await context.stores.store(org_id, base)
    async for info in store.list(prefix):
        path = info.key.removeprefix(prefix)
        if not path or path.endswith("/") or not info.key.startswith(prefix):
            continue
        some[path] = info
        if len(some) == PAGE:
            yield Page(after, some, is_last=False)
            after, some = path, {}
    yield Page(after, some, is_last=True)


async def _compare(
    context: Ingestion, org_id: UUID, base: KnowledgeBase, listing: Listing, page: Page, vanished: list[str]
) -> Sequence[str] | None:
    """Mark what a page has new or changed; those paths, or None when the listing is no longer ours."""
    paths = list(page.objects)
    row = {
        "org_id": org_id,
        "knowledge_base_id": base.id,
        "sync_id": listing.id,
        "fence": listing.fence,
        "retry_failed": listing.retry_failed,
        "after": page.after,
        "last": None if page.is_last else max(paths, key=str.encode),
        "paths": paths,
        "versions": [page.objects[path].version for path in paths],
    }
    async with tenant(context.pool, org_id) as conn:
        await claims.lock_base(conn, org_id=org_id, knowledge_base_id=base.id)
        vanished += [found[0] for found in await (await conn.execute(MISSING, row)).fetchall()]
        opened = await generations.building_or_served(conn, org_id=org_id, knowledge_base_id=base.id)
        building = next((generation.id for generation in opened if generation.status == "building"), None)
        changed = await (await conn.execute(COMPARE, row | {"building": building})).fetchall()
        announced = {
            "ids": [uuid4() for _ in changed],
            "paths": [path for path, _ in changed],
            "versions": [version for _, version in changed],
            "lease": SENDING_LEASE,
        }
        await conn.execute(ANNOUNCE, row | announced)
        counted = row | {"lease": LISTING_LEASE}
        if await (await conn.execute(COUNT_UNCHANGED, counted)).fetchone() is None:
            await conn.rollback()
            return None
    return [path for path, _ in changed]


async def _finish_listing(
    context: Ingestion, org_id: UUID, base: KnowledgeBase, listing: Listing, vanished: Sequence[str]
) -> Sequence[str]:
    """The listing is whole: mark what it did not name; those paths. None of them is removed by this."""
    row = {
        "org_id": org_id,
        "knowledge_base_id": base.id,
        "sync_id": listing.id,
        "fence": listing.fence,
        "paths": list(vanished),
        "lease": SENDING_LEASE,
    }
    async with tenant(context.pool, org_id) as conn:
        await claims.lock_base(conn, org_id=org_id, knowledge_base_id=base.id)
        gone = [found[0] for found in await (await conn.execute(ANNOUNCE_MISSING, row)).fetchall()]
        if await (await conn.execute(LISTED, row | {"lease": context.leases.sync})).fetchone() is None:
            await conn.rollback()
            return []
    return gone


async def _end_failed(pool: Pool, org_id: UUID, base: KnowledgeBase, listing: Listing, message: str) -> None:
    row = {
        "org_id": org_id,
        "knowledge_base_id": base.id,
        "sync_id": listing.id,
        "fence": listing.fence,
        "message": claims.storable(message),
    }
    async with tenant(pool, org_id) as conn:
        await bases.lock(conn, org_id=org_id, knowledge_base_id=base.id)
        if await (await conn.execute(END_FAILED, row)).fetchone() is not None:
            await conn.execute(SHOW_ERROR, row)
