from __future__ import annotations

from typing import Any

import pytest

from bonito.errors import InvalidRequest
from bonito.knowledge.search import MAX_QUERY_CHARACTERS, SearchRequest


@pytest.mark.parametrize(
    ("values", "param"),
    [
        pytest.param({"query": ""}, "query", id="empty"),
        pytest.param({"query": " \n\t"}, "query", id="blank"),
        pytest.param({"query": "a\0b"}, "query", id="nul"),
        pytest.param({"query": "a\ud800b"}, "query", id="half-of-a-surrogate-pair"),
        pytest.param({"query": "a", "top_k": 0}, "top_k", id="no-results-wanted"),
        pytest.param({"query": "a", "top_k": 101}, "top_k", id="too-many-results"),
        pytest.param({"query": "a", "min_score": -0.1}, "min_score", id="negative-score"),
        pytest.param({"query": "a", "min_score": 1.01}, "min_score", id="score-above-one"),
        pytest.param({"query": "a", "min_score": float("nan")}, "min_score", id="score-is-no-number"),
        pytest.param({"query": "a", "mode": "semantic"}, "mode", id="unknown-mode"),
        pytest.param({"query": "a", "filter": {"tag": "\0"}}, "filter", id="nul-in-filter"),
        pytest.param({"query": "a", "filter": {"size": float("inf")}}, "filter", id="infinite-filter"),
        pytest.param({"query": "a", "filter": {"tag": "x" * 20_000}}, "filter", id="huge-filter"),
    ],
)
def test_a_value_out_of_its_range_is_refused_by_name(values: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        SearchRequest(**values)
    assert refused.value.param == param


def test_bounds_themselves_are_allowed() -> None:
    SearchRequest("a", top_k=1, min_score=0)
    SearchRequest("🦈", top_k=100, min_score=1, mode="keyword", filter={"tags": ["a", {"b": None}]})


def test_a_long_query_is_searched_by_its_beginning_and_its_end() -> None:
    excerpt = SearchRequest("first " + "x" * 100_000 + " last?").excerpt()
    assert len(excerpt) <= MAX_QUERY_CHARACTERS + 1
    assert excerpt.startswith("first x")
    assert excerpt.endswith("x last?")


def test_a_query_that_fits_is_searched_as_it_is() -> None:
    assert SearchRequest("  how many days?\n").excerpt() == "how many days?"
