"""POST /api/knowledge-bases/…/search: what a question would find."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID, uuid4

from pydantic import BaseModel, Field, StringConstraints

from bonito.console.fields import Body, Number, Whole
from bonito.console.permissions import Call, requires
from bonito.console.problems import responses
from bonito.console.routers.knowledge_bases import NameOrId
from bonito.console.routing import api_router
from bonito.errors import BonitoError
from bonito.knowledge.search import MAX_TOP_K, SearchMode, SearchOutcome, SearchRequest, SearchResult, SearchTrace
from bonito.metering.usage import UsageRecord
from bonito.tenancy.permissions import Permission

router = api_router("/knowledge-bases/{name_or_id}", "search")

MAX_QUERY_CHARACTERS = 32_000


class Search(Body):
    """What to look for."""

    query: Annotated[str, StringConstraints(min_length=1, max_length=MAX_QUERY_CHARACTERS, pattern=r"^[^\x00]*$")] = (
        Field(description="A question, or words.")
    )
    top_k: Whole = Field(default=5, ge=1, le=MAX_TOP_K, description="Results at most.")
    min_score: Number = Field(default=0.0, ge=0, le=1, description="Least score; it means the same for every query.")
    filter: dict[str, Any] = Field(default_factory=dict, description="What a document's metadata must contain.")
    mode: SearchMode = Field(default="hybrid", description="Half cosine and half keywords, or one of them.")


class Found(BaseModel):
    """A chunk that was found, and where it comes from."""

    chunk_id: UUID
    content: str
    score: float = Field(description="Absolute, 0 to 1, in the mode that was asked for.")
    document_id: UUID
    document_name: str = Field(description="The document's name: its path below the source's prefix.")
    page: int | None
    section: str | None
    metadata: dict[str, Any]


class SearchAnswer(BaseModel):
    """The best chunks, best first."""

    query: str
    results: list[Found]
    search_time_ms: float


@router.post("/search", responses=responses(409))
async def search_knowledge_base(
    name_or_id: NameOrId, body: Search, call: Annotated[Call, requires(Permission.KNOWLEDGE_BASES_SEARCH)]
) -> SearchAnswer:
    """Search a knowledge base, as the gateway does for a question; it leaves a row among the gateway's logs."""
    arrived_at, started = datetime.now(UTC), time.perf_counter()
    request = SearchRequest(
        query=body.query, top_k=body.top_k, min_score=body.min_score, filter=body.filter, mode=body.mode
    )
    trace = SearchTrace()
    ended: SearchOutcome | BonitoError = BonitoError("Something unforeseen.")  # unless it is replaced below
    try:
        ended = outcome = await call.services.searcher.search(
            call.org_id, names=[name_or_id], readable=None, request=request, trace=trace
        )
    except BonitoError as error:
        ended = error
        raise
    finally:
        elapsed_s = time.perf_counter() - started
        usage = _usage_of(call, trace, ended, arrived_at=arrived_at, latency_ms=round(1000 * elapsed_s))
        await call.services.usage.record(usage)
    return SearchAnswer(
        query=body.query,
        results=[_view(result) for result in outcome.results],
        search_time_ms=round(1000 * elapsed_s, 3),
    )


def _usage_of(
    call: Call, trace: SearchTrace, ended: SearchOutcome | BonitoError, *, arrived_at: datetime, latency_ms: int
) -> UsageRecord:
    """The search's row: its model is the one that embedded the question, and there is no answer to pay for."""
    failure = ended if isinstance(ended, BonitoError) else None
    model = next(iter(trace.usage), None)  # one base has one
    return UsageRecord(
        org_id=call.org_id,
        id=uuid4(),
        created_at=arrived_at,
        request_id=call.request_id,
        key_id=None,
        operation="search",
        model_requested="",
        model_used=model,
        provider=model.split("/")[0] if model else None,
        is_stream=False,
        status=failure.status if failure else 200,
        error_code=failure.code if failure else None,
        input_tokens=trace.usage[model].input_tokens if model else None,
        inference_cost_nano_usd=0,
        retrieval_cost_nano_usd=trace.cost_nano_usd,
        latency_ms=latency_ms,
        retrieval_latency_ms=latency_ms,
        retrieval_status="failed" if isinstance(ended, BonitoError) else "ok" if ended.results else "empty",
        knowledge_base_ids=trace.knowledge_base_ids,
    )


def _view(result: SearchResult) -> Found:
    return Found(
        chunk_id=result.chunk_id,
        content=result.content,
        score=result.score,
        document_id=result.document_id,
        document_name=result.document_path,
        page=result.page,
        section=result.section,
        metadata=dict(result.metadata),
    )
