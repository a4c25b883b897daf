"""/api/knowledge-bases/…/sync, …/sync-status and …/syncs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field, StrictBool

from bonito.console.fields import Body
from bonito.console.pagination import DEFAULT_LIMIT, Limit, Page, TimeCursor, cursor_of, page_of, place_of
from bonito.console.permissions import Call, requires
from bonito.console.routers.knowledge_bases import NameOrId
from bonito.console.routing import api_router
from bonito.knowledge import bases, sync_status
from bonito.knowledge.messages import Trigger
from bonito.knowledge.requested import request_sync
from bonito.tenancy.permissions import Permission

router = api_router("/knowledge-bases/{name_or_id}", "syncs")

State = Literal["pending", "syncing", "ready", "error"]
STATES: dict[sync_status.SyncState, State] = {
    "listing": "syncing",
    "processing": "syncing",
    "done": "ready",
    "failed": "error",
}


class SyncRequest(Body):
    """How to sync."""

    retry_failed: StrictBool = Field(default=False, description="Try documents again that ended with an error.")


class Progress(BaseModel):
    """How far a sync came."""

    status: State = Field(description="`pending` before the first; `error` where the source could not be listed.")
    error: str | None
    progress_percentage: float = Field(description="0 to 100; it may fall while the source is still being listed.")
    files_processed: int
    files_total: int
    files_failed: int = Field(description="Documents in an error, from this sync or from before.")
    started_at: datetime | None
    finished_at: datetime | None


class SyncStatus(Progress):
    """The last sync, running or ended."""

    current_file: str | None = Field(description="One that is being read.")


class Sync(Progress):
    """A sync of the history."""

    id: UUID
    trigger: Trigger = Field(description="What asked for it first.")
    files_added: int
    files_changed: int
    files_removed: int = Field(description="Documents whose object was gone.")


NEVER = SyncStatus(
    status="pending",
    error=None,
    progress_percentage=0.0,
    files_processed=0,
    files_total=0,
    files_failed=0,
    current_file=None,
    started_at=None,
    finished_at=None,
)


@router.post("/sync", status_code=202)
async def sync_knowledge_base(
    name_or_id: NameOrId,
    body: SyncRequest,
    call: Annotated[Call, requires(Permission.KNOWLEDGE_BASES_SYNC, audit="knowledge_base.sync")],
) -> SyncStatus:
    """Compare the source with its documents, now."""
    async with call.transaction() as conn:
        base = await bases.get(conn, org_id=call.org_id, name_or_id=name_or_id)
    begun = await request_sync(
        call.services.pool,
        call.services.queue,
        org_id=call.org_id,
        knowledge_base_id=base.id,
        retry_failed=body.retry_failed,
    )
    call.note(f"knowledge_base:{base.id}", retry_failed=body.retry_failed)
    return _status(begun, None)


@router.get("/sync-status")
async def get_sync_status(
    name_or_id: NameOrId, call: Annotated[Call, requires(Permission.KNOWLEDGE_BASES_READ)]
) -> SyncStatus:
    """How far the last sync came."""
    async with call.transaction() as conn:
        base = await bases.get(conn, org_id=call.org_id, name_or_id=name_or_id)
        last = await sync_status.last(conn, org_id=call.org_id, knowledge_base_id=base.id)
        current = None
        if last is not None and last.finished_at is None:
            current = await sync_status.current_file(conn, org_id=call.org_id, sync_id=last.id)
    return NEVER if last is None else _status(last, current)


@router.get("/syncs")
async def list_syncs(
    name_or_id: NameOrId,
    call: Annotated[Call, requires(Permission.KNOWLEDGE_BASES_READ)],
    limit: Limit = DEFAULT_LIMIT,
    cursor: TimeCursor = None,
) -> Page[Sync]:
    """The syncs of 90 days, 1,000 at most, the newest first; of those by the clock only what found something."""
    async with call.transaction() as conn:
        base = await bases.get(conn, org_id=call.org_id, name_or_id=name_or_id)
        rows = await sync_status.list_page(
            conn, org_id=call.org_id, knowledge_base_id=base.id, limit=limit + 1, before=place_of(cursor)
        )
    return page_of(rows, limit=limit, show=_sync, cursor=lambda row: cursor_of(row.started_at, row.id))


def _status(sync: sync_status.Sync, current_file: str | None) -> SyncStatus:
    return SyncStatus(**_progress(sync), current_file=current_file)


def _sync(sync: sync_status.Sync) -> Sync:
    return Sync(
        **_progress(sync),
        id=sync.id,
        trigger=sync.trigger,
        files_added=sync.files_added,
        files_changed=sync.files_changed,
        files_removed=sync.files_removed,
    )


def _progress(sync: sync_status.Sync) -> dict[str, Any]:
    return {
        "status": STATES[sync.status],
        "error": sync.error_message,
        "progress_percentage": sync.progress_percentage,
        "files_processed": sync.files_processed,
        "files_total": sync.files_total,
        "files_failed": sync.files_failed,
        "started_at": sync.started_at,
        "finished_at": sync.finished_at,
    }
