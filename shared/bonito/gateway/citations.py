"""The `bonito` key of an answer: sources, what retrieval and inference cost, and which way the request took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from bonito.gateway.retrieval import Retrieval
    from bonito.knowledge.search import SearchResult

PREVIEW_CHARS = 150
NANO = 1_000_000_000


@dataclass(frozen=True)
class Attempt:
    """One call of a provider; `outcome` is `ok` or the code of the error that it ended with."""

    model: str
    outcome: str
    latency_ms: int


@dataclass(frozen=True)
class RouteTaken:
    """Which provider answers as which model, and what was tried."""

    provider: str
    model: str
    attempts: tuple[Attempt, ...]


def bonito_key(
    retrieval: Retrieval | None, route: RouteTaken, *, inference_cost_nano_usd: int | None, is_final: bool
) -> bytes:
    """The key's value as JSON.

    Args:
        retrieval: None where no knowledge base was asked for.
        route: the way it took.
        inference_cost_nano_usd: None where the price is unknown.
        is_final: False on the first chunk of a stream, when the inference has not been paid for yet: no cost is told.
    """
    key: dict[str, Any] = {} if retrieval is None else _retrieval_part(retrieval)
    if is_final:
        retrieval_cost = 0 if retrieval is None else retrieval.cost_nano_usd
        costs = (inference_cost_nano_usd, retrieval_cost)
        key["inference_cost"] = dollars(inference_cost_nano_usd)
        key["cost"] = dollars(None if None in costs else sum(cost or 0 for cost in costs))
    key["route"] = {
        "model": route.model,
        "provider": route.provider,
        "attempts": [vars(attempt) for attempt in route.attempts],
    }
    return orjson.dumps(key)


def dollars(nano_usd: int | None) -> float | None:
    """Nano-dollars as the number that answers show; None stays unknown."""
    return None if nano_usd is None else nano_usd / NANO


def _retrieval_part(retrieval: Retrieval) -> dict[str, Any]:
    return {
        "knowledge_base": retrieval.knowledge_base,
        "sources": sources(retrieval.results),
        "retrieval": {"status": retrieval.status},
        "retrieval_cost": dollars(retrieval.cost_nano_usd),
        "retrieval_latency_ms": retrieval.latency_ms,
    }


def sources(results: Sequence[SearchResult]) -> list[dict[str, Any]]:
    """The citations, in the order of the numbers that the prompt gives them."""
    return [
        {
            "document": result.document_path,
            "page": result.page,
            "section": result.section,
            "relevance_score": round(result.score, 4),
            "chunk_preview": _preview(result.content),
            "knowledge_base": result.knowledge_base_name,
            "document_id": str(result.document_id),
            "chunk_id": str(result.chunk_id),
        }
        for result in results
    ]


def _preview(content: str) -> str:
    """The first 150 characters, on one line; an ellipsis counts among them."""
    text = " ".join(content.split())
    return text if len(text) <= PREVIEW_CHARS else f"{text[: PREVIEW_CHARS - 1]}…"
