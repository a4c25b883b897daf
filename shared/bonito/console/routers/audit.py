"""/api/audit-log: who did what, and whether the log is as it was written."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, Field

from bonito.console.pagination import DEFAULT_LIMIT, Limit, NumberCursor, Page, page_of
from bonito.console.permissions import Call, requires
from bonito.console.routing import api_router
from bonito.tenancy import audit
from bonito.tenancy.permissions import Permission

router = api_router("/audit-log", "audit log")


class AuditEntry(BaseModel):
    """One thing that somebody did or was refused."""

    sequence: int
    at: datetime
    actor: str = Field(examples=["user:1b4e28ba-2fa1-41d2-883f-0016d3cca427"])
    action: str = Field(examples=["key.create"])
    target: str = Field(examples=["key:6ba7b810-9dad-41d1-80b4-00c04fd430c8"])
    details: dict[str, Any] = Field(description="`outcome` is succeeded, refused or failed; the rest depends.")
    request_id: str
    hash: str = Field(description="SHA-256 over this entry and the hash before it, in hex.")


class AuditVerification(BaseModel):
    """What a recomputation of the whole chain found."""

    is_intact: bool
    entries: int
    head: str = Field(description="The end of the chain; noted elsewhere, it proves everything up to it (`noted`).")
    fault_sequence: int | None = Field(description="The first entry at fault.")
    fault: str | None = Field(description="What is wrong with it.")


@router.get("")
async def list_audit_log(
    call: Annotated[Call, requires(Permission.AUDIT_READ)], limit: Limit = DEFAULT_LIMIT, cursor: NumberCursor = None
) -> Page[AuditEntry]:
    """What was done and refused, the newest first."""
    before = None if cursor is None else int(cursor)
    async with call.transaction() as conn:
        rows = await audit.list_page(conn, org_id=call.org_id, limit=limit + 1, before=before)
    return page_of(rows, limit=limit, show=_shown, cursor=lambda row: str(row.sequence))


@router.get("/verify")
async def verify_audit_log(
    call: Annotated[Call, requires(Permission.AUDIT_READ)],
    noted: Annotated[
        str | None, Query(pattern="^[1-9][0-9]{0,17}:[0-9a-f]{64}$", description="A `head` that was answered earlier.")
    ] = None,
) -> AuditVerification:
    """Recompute the hash chain; with a head that was noted earlier, prove that it still holds it."""
    async with call.transaction() as conn:
        found = await audit.verify(conn, org_id=call.org_id, noted=None if noted is None else _head(noted))
    return AuditVerification(
        is_intact=found.is_intact,
        entries=found.head.sequence,
        head=f"{found.head.sequence}:{found.head.hash.hex()}",
        fault_sequence=found.fault_sequence,
        fault=found.fault,
    )


def _head(noted: str) -> audit.Head:
    sequence, _, row_hash = noted.partition(":")
    return audit.Head(int(sequence), bytes.fromhex(row_hash))


def _shown(row: audit.Row) -> AuditEntry:
    return AuditEntry(**vars(row) | {"hash": row.hash.hex()})
