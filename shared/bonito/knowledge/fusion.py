"""Merges rankings that have no scale in common: results of knowledge bases with different embedding models."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

Id = TypeVar("Id", bound=Hashable)


def fuse(rankings: Sequence[Sequence[Id]], *, k: int = 60, limit: int = 10) -> list[tuple[Id, float]]:
    """Merge ranked lists into one by reciprocal rank fusion.

    An id scores the sum over the lists of 1 / (k + rank), the best rank being 1, so that rankings of different models
    mix without tuning (Cormack, Clarke, Büttcher, SIGIR 2009).

    Args:
        rankings: R lists of ids, best first, no id twice in one list; lengths may differ and may be 0.
        k: damping, dimensionless, >= 1; 60 as in the paper.
        limit: most ids to return, >= 1.

    Returns:
        Up to `limit` pairs (id, score), score descending in (0, R / (k + 1)]; of equal scores, the id that comes first
        in the earliest list, so the same input gives the same output.

    Raises:
        ValueError: k or limit below 1. A programming error; requests are checked at the edge.
    """
    if k < 1 or limit < 1:
        raise ValueError(f"k and limit start at 1, got k={k}, limit={limit}")
    scores: dict[Id, float] = {}
    for ranking in rankings:
        for rank, found in enumerate(ranking, start=1):
            scores[found] = scores.get(found, 0.0) + 1 / (k + rank)
    return sorted(scores.items(), key=lambda pair: -pair[1])[:limit]
