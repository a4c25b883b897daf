"""Finds what a request's knowledge bases hold about its question."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol
from uuid import UUID

import psycopg

from bonito.errors import (
    BonitoError,
    InvalidRequest,
    KnowledgeBaseNotFound,
    KnowledgeBaseNotReady,
    KnowledgeBaseUnavailable,
)
from bonito.gateway.requests import ALL, RetrievalOptions
from bonito.metering.usage import RetrievalStatus
from bonito.tenancy.keys import Principal

if TYPE_CHECKING:
    from bonito.knowledge.search import SearchOutcome, SearchRequest, SearchResult, SearchTrace

logger = logging.getLogger(__name__)


class Searcher(Protocol):
    """Searches an organization's knowledge bases."""

    async def search(
        self,
        org_id: UUID,
        *,
        names: list[str] | Literal["*"],
        readable: frozenset[UUID] | None,
        request: SearchRequest,
        trace: SearchTrace | None = None,
    ) -> SearchOutcome:
        """The best chunks; KnowledgeBaseNotFound, KnowledgeBaseNotReady, KnowledgeBaseUnavailable, InvalidRequest."""
        ...


@dataclass(frozen=True)
class Retrieval:
    """What was found, and what finding it took.

    Attributes:
        knowledge_base: as it is shown in the answer: one name, several, or `*`.
        knowledge_base_ids: as far as they were found.
        status: `failed` only where the caller asked to go on without.
        cost_nano_usd: of embedding the query; None where the price is unknown.
    """

    knowledge_base: str | list[str]
    status: RetrievalStatus
    results: tuple[SearchResult, ...]
    knowledge_base_ids: tuple[UUID, ...]
    latency_ms: int
    cost_nano_usd: int | None


async def retrieve(searcher: Searcher, principal: Principal, asked: RetrievalOptions) -> Retrieval:
    """Search the knowledge bases that the key may read.

    Raises:
        KnowledgeBaseNotFound, KnowledgeBaseNotReady, KnowledgeBaseUnavailable: unless the caller said `continue`.
        InvalidRequest: the filter, whatever the caller said.
    """
    from bonito.knowledge.search import SearchRequest, SearchTrace  # with the first retrieval, not with the process

    options, started = asked.options, time.perf_counter()
    try:
        request = SearchRequest(
            query=asked.query,
            top_k=options.top_k,
            min_score=options.min_score,
            filter=options.filter,
            mode=options.mode,
        )
    except InvalidRequest as error:  # its fields are members of ours
        raise InvalidRequest(error.message, param=f"bonito.{error.param}") from error
    trace = SearchTrace()
    names = ALL if asked.knowledge_bases == ALL else list(asked.knowledge_bases)
    try:
        outcome = await _search(searcher, principal, names, request, trace)
    except (KnowledgeBaseNotFound, KnowledgeBaseNotReady, KnowledgeBaseUnavailable) as error:
        if options.on_error == "fail":
            raise
        logger.info("Retrieval failed and the caller goes on without it: %s", error.code)
        return Retrieval(_shown(names), "failed", (), trace.knowledge_base_ids, _ms_since(started), trace.cost_nano_usd)
    return Retrieval(
        knowledge_base=_shown(names if names == ALL else [base.name for base in outcome.knowledge_bases]),
        status="ok" if outcome.results else "empty",
        results=tuple(outcome.results),
        knowledge_base_ids=tuple(base.id for base in outcome.knowledge_bases),
        latency_ms=_ms_since(started),
        cost_nano_usd=trace.cost_nano_usd,
    )


async def _search(
    searcher: Searcher,
    principal: Principal,
    names: list[str] | Literal["*"],
    request: SearchRequest,
    trace: SearchTrace,
) -> SearchOutcome:
    """Whatever stops the search but the request itself is one error for the caller."""
    try:
        return await searcher.search(
            principal.org_id, names=names, readable=principal.knowledge_base_ids, request=request, trace=trace
        )
    except (InvalidRequest, KnowledgeBaseNotFound, KnowledgeBaseNotReady, KnowledgeBaseUnavailable):
        raise
    except (BonitoError, psycopg.Error) as error:
        wait_s = error.retry_after_s if isinstance(error, BonitoError) else None
        raise KnowledgeBaseUnavailable(
            "The knowledge base cannot be searched right now.", retry_after_s=wait_s
        ) from error


def _shown(names: list[str] | Literal["*"]) -> str | list[str]:
    return names[0] if isinstance(names, list) and len(names) == 1 else names


def _ms_since(started: float) -> int:
    return round((time.perf_counter() - started) * 1000)
