"""Syncs: a source is listed to its end and compared with its documents; what differs is sent to be looked at.

A listing decides nothing by itself: a path that is missing from it becomes a message like any other, and only the
store's own answer for that path removes the document. A listing that fails changes nothing that is served.

A listing of any length is worked off in slices, each within the time that its worker has. The place that was compared
last stands in kb_syncs; a message has the next slice go on from there, and where the message or its worker is lost,
the sweeper sends another.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import Any, LiteralString
from uuid import UUID, uuid4

from psycopg.rows import class_row

from bonito.database.pool import Connection, Pool, tenant
from bonito.errors import KnowledgeBaseNotFound
from bonito.knowledge import bases, claims, listing, progress
from bonito.knowledge.bases import KnowledgeBase
from bonito.knowledge.context import Ingestion, send_all
from bonito.knowledge.listing import LISTING_LEASE, Listing, Page
from bonito.knowledge.messages import IngestMessage, SyncMessage
from bonito.knowledge.retries import explain, is_retryable, is_unforeseen, kept, retry_pause

logger = logging.getLogger(__name__)

# How long a sent document may wait for its turn before the sweeper sends another message.
PENDING_LEASE = timedelta(hours=6)
SLICE = timedelta(seconds=40)  # of listing; a function has a minute at least
# How long the message of the next slice may take before the sweeper sends another.
BETWEEN_SLICES = timedelta(minutes=5)
# Failed tries to list on from one place; a listing that fails at its beginning is shown at once.
ATTEMPTS = 5
# What is remembered of a base's syncs. Those that came by the clock and found nothing are remembered until the next.
KEEP, KEEP_COUNT = timedelta(days=90), 1000

FORGET: LiteralString = """
    DELETE FROM kb_syncs
     WHERE org_id = %(org_id)s AND knowledge_base_id = %(knowledge_base_id)s AND finished_at IS NOT NULL
       AND (finished_at < now() - %(keep)s OR (trigger = 'reconcile' AND status = 'done' AND sent_count = 0)
            OR (started_at, id) < (
               SELECT started_at, id FROM kb_syncs
                WHERE org_id = %(org_id)s AND knowledge_base_id = %(knowledge_base_id)s
                ORDER BY started_at DESC, id DESC OFFSET %(count)s - 1 LIMIT 1))
"""

# One sync per base runs at a time, the unique index sees to that. Whoever asks for another while documents are in
# work has the source listed again for the same sync. A listing whose worker was lost goes on; what changed behind its
# cursor before this was asked for is found when it is repeated.
BEGIN: LiteralString = """
    INSERT INTO kb_syncs AS s (org_id, id, knowledge_base_id, trigger, retry_failed, fence, lease_until)
    VALUES (%(org_id)s, %(new_id)s, %(knowledge_base_id)s, %(trigger)s, %(retry_failed)s, 1, now() + %(lease)s)
    ON CONFLICT (org_id, knowledge_base_id) WHERE status IN ('listing', 'processing') DO UPDATE
       SET status = 'listing', fence = s.fence + 1, lease_until = excluded.lease_until, attempts = 0,
           cursor = CASE s.status WHEN 'listing' THEN s.cursor ELSE '' END,
           unchanged_count = CASE s.status WHEN 'listing' THEN s.unchanged_count ELSE 0 END,
           is_wanted_again = s.is_wanted_again OR (s.status = 'listing' AND s.cursor <> '' AND NOT %(is_periodic)s),
           retry_failed = s.retry_failed OR excluded.retry_failed
     WHERE s.status = 'processing' OR s.lease_until < now()
    RETURNING s.id, s.knowledge_base_id, s.fence, s.cursor
"""

# While another worker lists, its sync is joined: it lists once more when it is through.
JOIN: LiteralString = """
    UPDATE kb_syncs SET is_wanted_again = true, retry_failed = retry_failed OR %(retry_failed)s
     WHERE org_id = %(org_id)s AND knowledge_base_id = %(knowledge_base_id)s AND status = 'listing'
"""

# Of several messages for one slice the first moves the fence, and the others find another.
GO_ON: LiteralString = """
    UPDATE kb_syncs SET fence = fence + 1, lease_until = now() + %(lease)s
     WHERE org_id = %(org_id)s AND id = %(sync_id)s AND fence = %(fence)s AND status = 'listing'
    RETURNING id, knowledge_base_id, fence, cursor
"""

SHOW_LISTED: LiteralString = """
    UPDATE knowledge_bases SET listed_at = now() WHERE org_id = %(org_id)s AND id = %(knowledge_base_id)s
"""

SHOW_SYNCING: LiteralString = """
    UPDATE knowledge_bases SET status = 'syncing', updated_at = now()
     WHERE org_id = %(org_id)s AND id = %(knowledge_base_id)s AND status <> 'syncing'
"""

RENEW: LiteralString = """
    UPDATE kb_syncs SET lease_until = now() + %(lease)s
     WHERE org_id = %(org_id)s AND id = %(sync_id)s AND fence = %(fence)s AND status = 'listing'
"""

SENT: LiteralString = """
    UPDATE kb_documents SET lease_until = now() + %(lease)s
     WHERE org_id = %(org_id)s AND knowledge_base_id = %(knowledge_base_id)s AND status = 'pending'
       AND file_path = ANY(%(paths)s::text[])
"""

COUNT_FAILURE: LiteralString = """
    UPDATE kb_syncs SET attempts = attempts + 1
     WHERE org_id = %(org_id)s AND id = %(sync_id)s AND fence = %(fence)s AND status = 'listing' AND cursor <> ''
    RETURNING attempts
"""

END_FAILED: LiteralString = """
    UPDATE kb_syncs s
       SET status = 'failed', error_message = %(message)s, finished_at = now(), lease_until = NULL,
           removed_count = (SELECT count(*) FROM kb_documents d
                             WHERE d.org_id = s.org_id AND d.sync_id = s.id AND d.deleted_at IS NOT NULL),
           failed_count = (SELECT count(*) FROM kb_documents d
                            WHERE d.org_id = s.org_id AND d.knowledge_base_id = s.knowledge_base_id
                              AND d.status = 'error' AND d.deleted_at IS NULL)
     WHERE s.org_id = %(org_id)s AND s.id = %(sync_id)s AND s.fence = %(fence)s AND s.status = 'listing'
    RETURNING s.id
"""

SHOW_ERROR: LiteralString = """
    UPDATE knowledge_bases SET status = 'error', error_message = %(message)s, updated_at = now()
     WHERE org_id = %(org_id)s AND id = %(knowledge_base_id)s
"""


class Overtaken(Exception):
    """Somebody else took the listing up."""


class Unlistable(Exception):
    """The source could not be listed; the cause says why."""


def without_end() -> bool:
    """There is always time for another page."""
    return True


async def receive(context: Ingestion, body: Mapping[str, object]) -> None:
    """Do what a message of the queue `sync` asks for, for as long as a slice may take; raises as `sync`."""
    await sync(context, SyncMessage.from_json(body), has_time=within(SLICE))


def within(budget: timedelta) -> Callable[[], bool]:
    """Whether the budget, from now on, is not used up."""
    end_s = time.monotonic() + budget.total_seconds()
    return lambda: time.monotonic() < end_s


async def sync(context: Ingestion, message: SyncMessage, *, has_time: Callable[[], bool] = without_end) -> UUID | None:
    """Compare a knowledge base's source with its documents, and send what differs to be looked at.

    Args:
        context: what ingestion works with.
        message: asks for a sync, or for the next slice of one.
        has_time: asked after every page whether there is time for another; a page takes a second at most, and the
            store's answer. The first False ends the slice, and a message of the queue `sync` asks for the next.

    Returns:
        The sync's id; None when there is nothing to do: another worker is listing just now (it will list once more),
        this slice was worked off by somebody else, or there is no such base.

    Raises:
        Exception: of the database or the queue, or unforeseen: to be tried again, or left to the sweeper. A source
            that cannot be listed is no exception: the base shows it.
    """
    org_id = message.org_id
    try:
        base, ours = await _begin(context, message)
        if ours is None:
            return None
        try:
            async with kept(lambda: _renew(context.pool, org_id, ours), context.leases.renewal):
                is_listed = await _list(context, org_id, base, ours, has_time)
        except Unlistable as failure:
            await _fail(context, org_id, ours, failure.__cause__ or failure)
            return ours.id
    except (KnowledgeBaseNotFound, Overtaken):
        return None
    if is_listed:
        await progress.conclude(context.pool, org_id=org_id, knowledge_base_id=base.id)
    else:
        await _hand_over(context, org_id, ours)
    return ours.id


async def _begin(context: Ingestion, message: SyncMessage) -> tuple[KnowledgeBase, Listing | None]:
    sync_id, fence = message.slice or (None, 0)
    row = {
        "org_id": message.org_id,
        "knowledge_base_id": message.knowledge_base_id,
        "sync_id": sync_id,
        "fence": fence,
        "new_id": uuid4(),
        "trigger": message.trigger,
        "is_periodic": message.is_periodic,
        "retry_failed": message.retry_failed,
        "lease": LISTING_LEASE,
    }
    async with tenant(context.pool, message.org_id) as conn:
        base = await bases.lock(conn, org_id=message.org_id, knowledge_base_id=message.knowledge_base_id)
        if message.slice is not None:
            return base, await _take(conn, GO_ON, row)
        await conn.execute(FORGET, row | {"keep": KEEP, "count": KEEP_COUNT})
        ours = await _take(conn, BEGIN, row)
        if ours is None and not message.is_periodic:
            await conn.execute(JOIN, row)
        if ours is not None:
            await conn.execute(SHOW_LISTED, row)
            if base.status != "ready":
                await conn.execute(SHOW_SYNCING, row)
        return base, ours


async def _take(conn: Connection, statement: LiteralString, row: dict[str, Any]) -> Listing | None:
    async with conn.cursor(row_factory=class_row(Listing)) as cursor:
        await cursor.execute(statement, row)
        return await cursor.fetchone()


async def _renew(pool: Pool, org_id: UUID, ours: Listing) -> bool:
    async with tenant(pool, org_id) as conn:
        row = {"org_id": org_id, "sync_id": ours.id, "fence": ours.fence, "lease": LISTING_LEASE}
        return (await conn.execute(RENEW, row)).rowcount == 1


async def _list(
    context: Ingestion, org_id: UUID, base: KnowledgeBase, ours: Listing, has_time: Callable[[], bool]
) -> bool:
    """Work through the listing from its cursor on, for as long as there is time; whether it is through.

    Raises:
        Unlistable: the source does not let itself be listed.
        Overtaken: the listing is somebody else's now.
        KnowledgeBaseNotFound: the base was deleted.
    """
    try:
        store = await context.stores.store(org_id, base)
    except Exception as error:  # whatever it is, the base must not stay in `syncing`
        raise Unlistable from error
    async with aclosing(listing.pages(store, base.source_prefix, after=ours.cursor)) as pages:
        while True:
            try:
                page = await anext(pages)
            except Exception as error:
                raise Unlistable from error
            is_listed = await _work_off(context, org_id, ours, page)
            if is_listed or page.until is None or not has_time():
                return is_listed


async def _work_off(context: Ingestion, org_id: UUID, ours: Listing, page: Page) -> bool:
    """Compare a page, and send what it has to be looked at; whether the whole listing is done by that."""
    after = page.after
    while True:
        async with tenant(context.pool, org_id) as conn:
            step = await listing.compare(
                conn, org_id=org_id, listing=ours, page=page, after=after, waiting=context.leases.sync
            )
        if step is None:
            raise Overtaken
        await _send(context, org_id, ours.knowledge_base_id, step.paths)
        if step.is_whole:
            return step.is_listed
        after = step.reached


async def _send(context: Ingestion, org_id: UUID, knowledge_base_id: UUID, paths: Sequence[str]) -> None:
    if not paths:
        return
    row = {"org_id": org_id, "knowledge_base_id": knowledge_base_id, "paths": list(paths), "lease": PENDING_LEASE}
    async with tenant(context.pool, org_id) as conn:
        await conn.execute(SHOW_SYNCING, row)
    await send_all(context.queue, [IngestMessage(org_id, knowledge_base_id, path, is_bulk=True) for path in paths])
    async with tenant(context.pool, org_id) as conn:
        await conn.execute(SENT, row)


async def _hand_over(context: Ingestion, org_id: UUID, ours: Listing, *, delay: timedelta = timedelta()) -> None:
    """Leave the listing to its next slice."""
    row = {"org_id": org_id, "sync_id": ours.id, "fence": ours.fence, "lease": BETWEEN_SLICES + delay}
    async with tenant(context.pool, org_id) as conn:
        if (await conn.execute(RENEW, row)).rowcount == 0:
            return
    message = SyncMessage(org_id, ours.knowledge_base_id, slice=(ours.id, ours.fence))
    await context.queue.send(message.queue, message.to_json(), delay=delay)


async def _fail(context: Ingestion, org_id: UUID, ours: Listing, error: BaseException) -> None:
    """Have a listing that came so far tried again from there; end one that did not begin, or that was tried enough."""
    logger.warning(
        "A source cannot be listed: %s", type(error).__name__, exc_info=error if is_unforeseen(error) else None
    )
    row = {"org_id": org_id, "knowledge_base_id": ours.knowledge_base_id, "sync_id": ours.id, "fence": ours.fence}
    async with tenant(context.pool, org_id) as conn:
        counted = await (await conn.execute(COUNT_FAILURE, row)).fetchone()
    if counted is not None and counted[0] < ATTEMPTS and is_retryable(error):
        await _hand_over(context, org_id, ours, delay=retry_pause(error, attempts=counted[0], jitter=0.0))
        return
    message = claims.storable(f"The source could not be listed: {explain(error)}")
    async with tenant(context.pool, org_id) as conn:
        await bases.lock(conn, org_id=org_id, knowledge_base_id=ours.knowledge_base_id)
        if await (await conn.execute(END_FAILED, row | {"message": message})).fetchone() is not None:
            await conn.execute(SHOW_ERROR, row | {"message": message})
