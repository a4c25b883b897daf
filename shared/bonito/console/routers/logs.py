"""GET /api/gateway/logs: what went through the gateway and what was searched, never what was said."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, Field

from bonito.console.fields import Moment
from bonito.console.pagination import DEFAULT_LIMIT, Limit, Page, TimeCursor, cursor_of, page_of, place_of
from bonito.console.permissions import Call, requires
from bonito.console.routing import api_router
from bonito.metering import requests
from bonito.metering.requests import LoggedRequest, RequestFilter
from bonito.tenancy.permissions import Permission

router = api_router("/gateway/logs", "logs")

NANO = 1_000_000_000
PRINTABLE = r"^[^\x00-\x1f\x7f]+$"


class RequestLog(BaseModel):
    """One request; costs are in US dollars, and null where a price is unknown."""

    id: UUID
    created_at: datetime
    request_id: str
    key_id: UUID | None
    operation: str
    model_requested: str
    model_used: str | None
    provider: str | None
    is_stream: bool
    status: int = Field(description="The HTTP status that the caller saw; 499: he hung up.")
    error_code: str | None
    input_tokens: int | None
    output_tokens: int | None
    is_estimated: bool = Field(description="The provider reported no tokens; they are counted from the text.")
    inference_cost: float | None
    retrieval_cost: float | None
    cost: float | None
    latency_ms: int
    first_token_ms: int | None
    retrieval_latency_ms: int | None
    retrieval_status: Literal["ok", "empty", "failed"] | None
    knowledge_base_ids: list[UUID]


Text = Annotated[str | None, Query(min_length=1, max_length=256, pattern=PRINTABLE)]


@router.get("")
async def list_logs(
    call: Annotated[Call, requires(Permission.LOGS_READ)],
    limit: Limit = DEFAULT_LIMIT,
    cursor: TimeCursor = None,
    since: Annotated[Moment | None, Query(description="From this moment on.")] = None,
    until: Annotated[Moment | None, Query(description="Before this moment.")] = None,
    key_id: Annotated[UUID | None, Query(description="By this key.")] = None,
    knowledge_base_id: Annotated[UUID | None, Query(description="That searched this knowledge base.")] = None,
    operation: Annotated[Text, Query(description="Of this kind; what ingestion embeds is `embeddings.ingest`.")] = None,
    model: Annotated[Text, Query(description="That asked for this model, or used it.")] = None,
    status: Annotated[int | None, Query(ge=100, le=599, description="With this HTTP status.")] = None,
    outcome: Annotated[Literal["succeeded", "failed"] | None, Query(description="A failure is 400 or above.")] = None,
    request_id: Annotated[Text, Query(description="With this id.")] = None,
) -> Page[RequestLog]:
    """Requests through the gateway and searches through this API, the newest first."""
    wanted = RequestFilter(
        since=since,
        until=until,
        key_id=key_id,
        knowledge_base_id=knowledge_base_id,
        operation=operation,
        model=model,
        status=status,
        is_error=None if outcome is None else outcome == "failed",
        request_id=request_id,
    )
    async with call.transaction() as conn:
        rows = await requests.list_page(
            conn, org_id=call.org_id, wanted=wanted, before=place_of(cursor), limit=limit + 1
        )
    return page_of(rows, limit=limit, show=_shown, cursor=lambda row: cursor_of(row.created_at, row.id))


def _shown(row: LoggedRequest) -> RequestLog:
    inference, retrieval = row.inference_cost_nano_usd, row.retrieval_cost_nano_usd
    parts = (inference, retrieval if row.retrieval_status is not None else 0)
    return RequestLog(
        **vars(row),
        inference_cost=_dollars(inference),
        retrieval_cost=_dollars(retrieval),
        cost=None if None in parts else _dollars(sum(part or 0 for part in parts)),
    )


def _dollars(nano_usd: int | None) -> float | None:
    return None if nano_usd is None else nano_usd / NANO
