from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonito.knowledge.fusion import fuse

RANKINGS = st.lists(st.lists(st.integers(0, 20), unique=True, max_size=12), max_size=5)


def test_what_two_rankings_name_comes_before_what_one_names() -> None:
    assert [found for found, _ in fuse([["a", "b", "c"], ["d", "b"]])] == ["b", "a", "d", "c"]


def test_a_score_is_the_sum_of_reciprocal_ranks() -> None:
    assert dict(fuse([["a", "b"], ["b"]], k=1)) == {"b": pytest.approx(1 / 3 + 1 / 2), "a": pytest.approx(1 / 2)}


def test_ties_keep_the_order_of_first_appearance() -> None:
    assert [found for found, _ in fuse([["z"], ["a"], ["m"]])] == ["z", "a", "m"]


def test_nothing_ranked_is_nothing_fused() -> None:
    assert fuse([]) == []
    assert fuse([[], []]) == []


@pytest.mark.parametrize(("k", "limit"), [(0, 1), (60, 0), (-1, -1)])
def test_k_and_limit_below_one_are_refused(k: int, limit: int) -> None:
    with pytest.raises(ValueError, match="start at 1"):
        fuse([["a"]], k=k, limit=limit)


@given(rankings=RANKINGS, limit=st.integers(1, 30))
def test_fusion_invents_nothing_loses_nothing_and_descends(rankings: list[list[int]], limit: int) -> None:
    fused = fuse(rankings, limit=limit)
    named = {found for ranking in rankings for found in ranking}
    assert len(fused) == min(limit, len(named))
    assert {found for found, _ in fused} <= named
    assert len({found for found, _ in fused}) == len(fused)
    scores = [score for _, score in fused]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score <= len(rankings) / 61 + 1e-12 for score in scores)


@given(ranking=st.lists(st.integers(), unique=True, min_size=1, max_size=30))
def test_one_ranking_keeps_its_order(ranking: list[int]) -> None:
    assert [found for found, _ in fuse([ranking], limit=len(ranking))] == ranking
