"""Syncs as people see them: how far the last one came, and the history of those before."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, LiteralString
from uuid import UUID

from psycopg.rows import class_row

from bonito.database.pool import Connection
from bonito.knowledge.messages import Trigger

SyncState = Literal["listing", "processing", "done", "failed"]

# What ended is counted when it ends: its documents belong to later syncs since.
COLUMNS: LiteralString = """
    s.id, s.trigger, s.status, s.error_message, s.started_at, s.finished_at,
    s.unchanged_count + s.sent_count AS files_total,
    s.unchanged_count + s.sent_count - CASE WHEN s.status <> 'done' THEN (
        SELECT count(*) FROM kb_documents d
         WHERE d.org_id = s.org_id AND d.sync_id = s.id AND d.status IN ('pending', 'processing')) ELSE 0 END
        AS files_processed,
    CASE WHEN s.finished_at IS NOT NULL THEN s.failed_count ELSE (
        SELECT count(*) FROM kb_documents d
         WHERE d.org_id = s.org_id AND d.knowledge_base_id = s.knowledge_base_id AND d.deleted_at IS NULL
           AND d.status = 'error') END AS files_failed,
    s.added_count AS files_added, s.changed_count AS files_changed,
    CASE WHEN s.finished_at IS NOT NULL THEN s.removed_count ELSE (
        SELECT count(*) FROM kb_documents d
         WHERE d.org_id = s.org_id AND d.sync_id = s.id AND d.deleted_at IS NOT NULL) END AS files_removed
"""

PAGE: LiteralString = f"""
    SELECT {COLUMNS} FROM kb_syncs s
     WHERE s.org_id = %(org_id)s AND s.knowledge_base_id = %(knowledge_base_id)s
       AND (%(before_at)s::timestamptz IS NULL OR (s.started_at, s.id) < (%(before_at)s, %(before_id)s::uuid))
     ORDER BY s.started_at DESC, s.id DESC LIMIT %(limit)s
"""  # noqa: S608

CURRENT_FILE: LiteralString = """
    SELECT file_path FROM kb_documents
     WHERE org_id = %(org_id)s AND sync_id = %(sync_id)s AND status = 'processing'
     ORDER BY updated_at DESC LIMIT 1
"""


@dataclass(frozen=True)
class Sync:
    """A sync of a knowledge base, running or ended.

    Attributes:
        id: of the sync.
        trigger: what asked for it first.
        status: `listing`, then `processing`, then `done` or `failed`.
        error_message: why the listing failed.
        started_at: when it was asked for, or begun by the clock.
        finished_at: when nothing of it was left in work.
        files_total: objects that were listed so far, and documents that vanished.
        files_processed: those of them that are done: unchanged, ready, or ended with an error.
        files_failed: documents of the base in an error: from this sync, or from before and not changed since.
        files_added: objects that were not known before.
        files_changed: objects that had another version.
        files_removed: documents that the sync had looked at and that the store no longer had.
    """

    id: UUID
    trigger: Trigger
    status: SyncState
    error_message: str | None
    started_at: datetime
    finished_at: datetime | None
    files_total: int
    files_processed: int
    files_failed: int
    files_added: int
    files_changed: int
    files_removed: int

    @property
    def progress_percentage(self) -> float:
        """0 to 100; while the source is still being listed it may fall."""
        if self.status == "done":
            return 100.0
        return round(100 * self.files_processed / self.files_total, 1) if self.files_total else 0.0


async def list_page(
    conn: Connection,
    *,
    org_id: UUID,
    knowledge_base_id: UUID,
    limit: int,
    before: tuple[datetime, UUID] | None = None,
) -> list[Sync]:
    """Up to `limit` syncs of a base, the newest first, those begun before the place of another one."""
    before_at, before_id = before or (None, None)
    row = {
        "org_id": org_id,
        "knowledge_base_id": knowledge_base_id,
        "limit": limit,
        "before_at": before_at,
        "before_id": before_id,
    }
    async with conn.cursor(row_factory=class_row(Sync)) as cursor:
        await cursor.execute(PAGE, row)
        return await cursor.fetchall()


async def last(conn: Connection, *, org_id: UUID, knowledge_base_id: UUID) -> Sync | None:
    """The last sync of a base; None before the first."""
    found = await list_page(conn, org_id=org_id, knowledge_base_id=knowledge_base_id, limit=1)
    return found[0] if found else None


async def current_file(conn: Connection, *, org_id: UUID, sync_id: UUID) -> str | None:
    """The path of a document of this sync that is in work."""
    found = await (await conn.execute(CURRENT_FILE, {"org_id": org_id, "sync_id": sync_id})).fetchone()
    return None if found is None else str(found[0])
