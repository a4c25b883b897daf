"""Listings: a source's objects in pages, and each page compared with the documents of its stretch of the order.

Nothing is kept from page to page but the place that was reached, so memory does not grow with the source, and whoever
takes the listing up goes on from that place.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, LiteralString
from uuid import UUID, uuid4

from bonito.clouds.base import ObjectInfo, ObjectStore
from bonito.database.pool import Connection
from bonito.errors import UpstreamError
from bonito.knowledge import claims, generations

# Objects of a listing that are compared at once, and documents that are missing from it.
PAGE = 500
LISTING_LEASE = timedelta(minutes=1)
# How long a found document may wait for its message to be sent before the sweeper sends another.
SENDING_LEASE = timedelta(minutes=2)

# Whoever holds the row compares; who finds another fence was overtaken.
HOLD: LiteralString = """
    SELECT retry_failed FROM kb_syncs
     WHERE org_id = %(org_id)s AND id = %(sync_id)s AND fence = %(fence)s AND status = 'listing' FOR UPDATE
"""

# A page of the listing reaches from behind `after` to its own last place; documents in between that it does not name
# are missing from the source, as far as the listing can tell.
MISSING: LiteralString = """
    SELECT d.file_path FROM kb_documents d
     WHERE d.org_id = %(org_id)s AND d.knowledge_base_id = %(knowledge_base_id)s AND d.deleted_at IS NULL
       AND d.file_path > %(after)s AND (%(until)s::text IS NULL OR d.file_path <= %(until)s)
       AND NOT d.file_path = ANY(%(paths)s::text[])
     ORDER BY d.file_path LIMIT %(limit)s
"""

# What has to be looked at: new or changed paths; failed ones, where that is asked for; and those that a generation
# which is being built lacks. What waits or is in a worker's hands with this version is left to it.
COMPARE: LiteralString = """
    SELECT o.path, o.version, d.id IS NULL OR d.deleted_at IS NOT NULL,
           d.source_version IS DISTINCT FROM o.version, d.sync_id IS DISTINCT FROM %(sync_id)s
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
    UPDATE kb_documents d
       SET sync_id = %(sync_id)s, updated_at = now(),
           status = CASE WHEN d.status = 'processing' THEN d.status ELSE 'pending' END,
           lease_until = CASE WHEN d.status = 'processing' THEN d.lease_until ELSE now() + %(lease)s END
      FROM (SELECT id, sync_id FROM kb_documents
             WHERE org_id = %(org_id)s AND knowledge_base_id = %(knowledge_base_id)s AND deleted_at IS NULL
               AND file_path = ANY(%(missing)s::text[])
             ORDER BY file_path FOR UPDATE) before
     WHERE d.org_id = %(org_id)s AND d.id = before.id
    RETURNING d.file_path, before.sync_id IS DISTINCT FROM %(sync_id)s
"""

# The place moves with what was found up to it. What an earlier pass of this sync sent is counted by its rows. At the
# end of the listing its documents' work is all that is left, unless somebody asked for the listing to be repeated.
ADVANCE: LiteralString = """
    UPDATE kb_syncs s
       SET status = CASE WHEN %(is_end)s AND NOT s.is_wanted_again THEN 'processing' ELSE 'listing' END,
           cursor = CASE WHEN %(is_end)s THEN '' ELSE %(reached)s END,
           is_wanted_again = s.is_wanted_again AND NOT %(is_end)s, attempts = 0,
           lease_until = now() + CASE WHEN %(is_end)s AND NOT s.is_wanted_again THEN %(waiting)s ELSE %(lease)s END,
           sent_count = s.sent_count + %(sent)s, added_count = s.added_count + %(added)s,
           changed_count = s.changed_count + %(changed)s,
           unchanged_count = CASE WHEN %(is_end)s AND s.is_wanted_again THEN 0 ELSE s.unchanged_count + (
               SELECT count(*) FROM kb_documents d
                WHERE d.org_id = s.org_id AND d.knowledge_base_id = s.knowledge_base_id
                  AND d.file_path = ANY(%(paths)s::text[]) AND d.sync_id IS DISTINCT FROM s.id) END
     WHERE s.org_id = %(org_id)s AND s.id = %(sync_id)s
    RETURNING s.status
"""


@dataclass(frozen=True)
class Listing:
    """A sync whose listing is in our hands, from behind the place `cursor` on."""

    id: UUID
    knowledge_base_id: UUID
    fence: int
    cursor: str


@dataclass(frozen=True)
class Page:
    """A stretch of the listing.

    Attributes:
        after: the place behind which it begins; '' at the beginning.
        until: the last place in it; None where nothing follows.
        versions: of its objects, by path.
    """

    after: str
    until: str | None
    versions: dict[str, str] = field(repr=False)


@dataclass(frozen=True)
class Step:
    """What one comparison came to.

    Attributes:
        paths: of documents to be looked at; marked, and yet to be sent.
        reached: the place up to which all is compared.
        is_whole: the page is worked off.
        is_listed: the listing is, and need not be repeated.
    """

    paths: tuple[str, ...]
    reached: str
    is_whole: bool
    is_listed: bool


async def pages(store: ObjectStore, prefix: str, *, after: str) -> AsyncGenerator[Page, None]:
    """The listing from behind a place on, in pages; folders' placeholders and the prefix itself are no documents.

    Raises:
        UpstreamError: the store does not answer, or lists out of order, which would hide objects from us.
    """
    begin, last, seen, versions = after, after, 0, dict[str, str]()
    listed = store.list(prefix, after=prefix + after if after else "")
    try:
        async for info in listed:
            place = _place(info, prefix)
            if place is None or place == last:
                continue
            if place.encode() < last.encode():
                raise UpstreamError("The store does not list its objects in the order of their keys.")
            last, seen = place, seen + 1
            if not place.endswith("/"):
                versions[place] = info.version
            if seen == PAGE:
                yield Page(begin, last, versions)
                begin, seen, versions = last, 0, {}
        yield Page(begin, None, versions)
    finally:
        await _close(listed)


async def compare(
    conn: Connection, *, org_id: UUID, listing: Listing, page: Page, after: str, waiting: timedelta
) -> Step | None:
    """Mark what is new, changed or missing in a page behind the place `after`; the cursor moves in this transaction.

    Of what is missing no more than a page is marked at once. Nothing is removed by this: the store's own answer for
    the path decides.

    Args:
        conn: a transaction of the organization.
        org_id: the organization.
        listing: ours as long as its fence is the last.
        page: of the listing.
        after: the page's beginning, or what an earlier step of it reached.
        waiting: how long the sync may then wait for its documents before it is looked at.

    Returns:
        What to send; None when somebody else took the listing over.

    Raises:
        KnowledgeBaseNotFound: the base was deleted.
    """
    row: dict[str, Any] = {
        "org_id": org_id,
        "knowledge_base_id": listing.knowledge_base_id,
        "sync_id": listing.id,
        "fence": listing.fence,
    }
    await claims.lock_base(conn, org_id=org_id, knowledge_base_id=listing.knowledge_base_id)
    held = await (await conn.execute(HOLD, row)).fetchone()
    if held is None:
        return None
    missing, until, is_whole = await _missing(conn, row, page, after)
    some = _between(page, after, until)
    changed = await _compare(conn, org_id, listing, row | some | {"retry_failed": held[0]})
    sent = [(path, is_first) for path, _, _, _, is_first in changed]
    sent += await _announce_missing(conn, row, missing)
    is_end = is_whole and page.until is None
    counts = {
        "sent": sum(is_first for _, is_first in sent),
        "added": sum(is_new and is_first for _, _, is_new, _, is_first in changed),
        "changed": sum(is_other and is_first and not is_new for _, _, is_new, is_other, is_first in changed),
    }
    ended = {"is_end": is_end, "reached": until or "", "waiting": waiting, "lease": LISTING_LEASE}
    advanced = await (await conn.execute(ADVANCE, row | some | counts | ended)).fetchone()
    assert advanced is not None  # noqa: S101 - the row is held
    return Step(tuple(path for path, _ in sent), until or "", is_whole, is_listed=advanced[0] == "processing")


def _place(info: ObjectInfo, prefix: str) -> str | None:
    """Where an object stands below the prefix; None for what is no object of this source or cannot be a path."""
    place = info.key.removeprefix(prefix)
    if not place or not info.key.startswith(prefix) or claims.NOT_STORABLE.search(place):
        return None
    return place


async def _close(listed: AsyncIterator[ObjectInfo]) -> None:
    """End a listing that is left half-way, with its connection."""
    if isinstance(listed, AsyncGenerator):
        await listed.aclose()


async def _missing(conn: Connection, row: dict[str, Any], page: Page, after: str) -> tuple[list[str], str | None, bool]:
    """Documents that the page does not name, the place up to which these are all, and whether that is its end."""
    asked = {"after": after, "until": page.until, "paths": list(page.versions), "limit": PAGE}
    found = [path for (path,) in await (await conn.execute(MISSING, row | asked)).fetchall()]
    is_whole = len(found) < PAGE
    return found, page.until if is_whole else found[-1], is_whole


def _between(page: Page, after: str, until: str | None) -> dict[str, list[str]]:
    """The page's objects from behind one place up to another."""
    first, last = after.encode(), None if until is None else until.encode()
    paths = [path for path in page.versions if first < path.encode() and (last is None or path.encode() <= last)]
    return {"paths": paths, "versions": [page.versions[path] for path in paths]}


async def _compare(
    conn: Connection, org_id: UUID, listing: Listing, row: dict[str, Any]
) -> list[tuple[str, str, bool, bool, bool]]:
    """Mark what is new or changed: path, version, whether it is new, of another version, sent for the first time."""
    opened = await generations.building_or_served(conn, org_id=org_id, knowledge_base_id=listing.knowledge_base_id)
    building = next((generation.id for generation in opened if generation.status == "building"), None)
    changed = await (await conn.execute(COMPARE, row | {"building": building})).fetchall()
    announced = {
        "ids": [uuid4() for _ in changed],
        "paths": [found[0] for found in changed],
        "versions": [found[1] for found in changed],
        "lease": SENDING_LEASE,
    }
    if changed:
        await conn.execute(ANNOUNCE, row | announced)
    return changed


async def _announce_missing(conn: Connection, row: dict[str, Any], missing: list[str]) -> list[tuple[str, bool]]:
    """Mark what is missing: path, and whether this sync sends it for the first time."""
    if not missing:
        return []
    asked = row | {"missing": missing, "lease": SENDING_LEASE}
    return await (await conn.execute(ANNOUNCE_MISSING, asked)).fetchall()
