"""/api/knowledge-bases/…/sync and …/sync-status."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field, StrictBool

from bonito.console.fields import Body
from bonito.console.permissions import Call, requires
from bonito.console.routers.knowledge_bases import NameOrId
from bonito.console.routing import api_router
from bonito.knowledge import bases, sync
from bonito.knowledge.requested import request_sync
from bonito.tenancy.permissions import Permission

router = api_router("/knowledge-bases/{name_or_id}", "syncs")

State = Literal["pending", "syncing", "ready", "error"]
STATES: dict[sync.SyncState, State] = {
    "never": "pending",
    "listing": "syncing",
    "processing": "syncing",
    "done": "ready",
    "failed": "error",
}


class SyncRequest(Body):
    """How to sync."""

    retry_failed: StrictBool = Field(default=False, description="Try documents again that ended with an error.")


class SyncStatus(BaseModel):
    """The last sync, running or ended."""

    status: State = Field(description="`pending` before the first; `error` where the source could not be listed.")
    error: str | None
    progress_percentage: float = Field(description="0 to 100; it may fall while the source is still being listed.")
    files_processed: int
    files_total: int
    files_failed: int
    current_file: str | None = Field(description="One that is being read.")
    started_at: datetime | None
    finished_at: datetime | None


@router.post("/sync", status_code=202)
async def sync_knowledge_base(
    name_or_id: NameOrId,
    body: SyncRequest,
    call: Annotated[Call, requires(Permission.KNOWLEDGE_BASES_SYNC, audit="knowledge_base.sync")],
) -> SyncStatus:
    """Compare the source with its documents, now."""
    async with call.transaction() as conn:
        base = await bases.get(conn, org_id=call.org_id, name_or_id=name_or_id)
    status = await request_sync(
        call.services.pool,
        call.services.queue,
        org_id=call.org_id,
        knowledge_base_id=base.id,
        retry_failed=body.retry_failed,
    )
    call.note(f"knowledge_base:{base.id}", retry_failed=body.retry_failed)
    return _view(status)


@router.get("/sync-status")
async def get_sync_status(
    name_or_id: NameOrId, call: Annotated[Call, requires(Permission.KNOWLEDGE_BASES_READ)]
) -> SyncStatus:
    """How far the last sync came."""
    async with call.transaction() as conn:
        base = await bases.get(conn, org_id=call.org_id, name_or_id=name_or_id)
        status = await sync.sync_status(conn, org_id=call.org_id, knowledge_base_id=base.id)
    return _view(status)


def _view(status: sync.SyncStatus) -> SyncStatus:
    return SyncStatus(
        status=STATES[status.status],
        error=status.error_message,
        progress_percentage=status.progress_percentage,
        files_processed=status.files_processed,
        files_total=status.files_total,
        files_failed=status.files_failed,
        current_file=status.current_file,
        started_at=status.started_at,
        finished_at=status.finished_at,
    )
