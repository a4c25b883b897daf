"""POST /api/knowledge-bases/…/search: what a question would find."""

from __future__ import annotations

import time
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints

from bonito.console.fields import Body, Number, Whole
from bonito.console.permissions import Call, requires
from bonito.console.problems import responses
from bonito.console.routers.knowledge_bases import NameOrId
from bonito.console.routing import api_router
from bonito.knowledge.search import MAX_TOP_K, SearchMode, SearchRequest, SearchResult
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
    """Search a knowledge base, as the gateway does for a question."""
    started = time.perf_counter()
    request = SearchRequest(
        query=body.query, top_k=body.top_k, min_score=body.min_score, filter=body.filter, mode=body.mode
    )
    outcome = await call.services.searcher.search(call.org_id, names=[name_or_id], readable=None, request=request)
    elapsed_ms = round(1000 * (time.perf_counter() - started), 3)
    return SearchAnswer(
        query=body.query, results=[_view(result) for result in outcome.results], search_time_ms=elapsed_ms
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
