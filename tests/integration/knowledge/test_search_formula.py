from __future__ import annotations

import math
import uuid
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bonito.database.pool import Pool
from bonito.knowledge.search import Searcher, SearchRequest
from tests.integration.knowledge.shelves import AVERAGE_LENGTH, Models, TableEmbedding, create_shelf

K1, B = 0.9, 0.4
WORDS = ["ant", "bee", "cow", "doe", "eel", "fox", "gnu", "hen"]

texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=60)
vectors = st.lists(st.floats(-1, 1, width=32).filter(lambda x: abs(x) > 1e-3), min_size=3, max_size=3)
chunks = st.lists(st.tuples(texts, vectors), min_size=1, max_size=12)
queries = st.lists(st.sampled_from([*WORDS, "yak", "zho"]), min_size=1, max_size=6)


def bm25_share(query: Sequence[str], text: Sequence[str], corpus: Sequence[Sequence[str]]) -> float:
    """BM25 over what it could be at most, from the textbook."""
    terms, length = Counter(text), len(text)
    score = bound = 0.0
    for word in set(query):
        holding = sum(word in other for other in corpus)
        idf = math.log(1 + (len(corpus) - holding + 0.5) / (holding + 0.5))
        bound += (K1 + 1) * idf
        if terms[word]:
            normal = K1 * (1 - B + B * length / AVERAGE_LENGTH)
            score += idf * terms[word] * (K1 + 1) / (terms[word] + normal)
    return score / bound


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / math.sqrt(sum(a * a for a in one)) / math.sqrt(sum(b * b for b in other))


def expected(
    mode: str, corpus: Sequence[tuple[list[str], list[float]]], query: Sequence[str], question: Sequence[float]
) -> list[float]:
    """Every chunk's score, in the order of the corpus."""
    words = [text for text, _ in corpus]
    keyword = [bm25_share(query, text, words) for text in words]
    vector = [min(1.0, max(0.0, cosine(question, vector))) for _, vector in corpus]
    if mode == "hybrid":
        return [0.5 * a + 0.5 * b for a, b in zip(vector, keyword, strict=True)]
    return vector if mode == "vector" else keyword


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(corpus=chunks, query=queries, question=vectors)
@pytest.mark.parametrize("is_large", [False, True], ids=["exact", "candidates"])
async def test_scores_are_those_of_the_formula(
    pool: Pool,
    org_id: uuid.UUID,
    small_limit: object,
    is_large: bool,
    corpus: list[tuple[list[str], list[float]]],
    query: list[str],
    question: list[float],
) -> None:
    model = TableEmbedding(dimensions=3, vectors={" ".join(query): question})
    shelf = await create_shelf(pool, org_id, f"b{uuid.uuid4().hex}", model=model, language="simple")
    filler = [(["owl"], [1.0, 1.0, 1.0])] * (45 if is_large else 0)
    corpus = [*corpus, *filler]
    ids = await shelf.add("a.md", [" ".join(text) for text, _ in corpus], [vector for _, vector in corpus])
    for mode in ("hybrid", "vector", "keyword"):
        request = SearchRequest(" ".join(query), mode=mode, top_k=100)  # type: ignore[arg-type]
        searcher = Searcher(pool, Models(model))
        outcome = await searcher.search(org_id, names=[shelf.name], readable=None, request=request)
        found = {result.chunk_id: result.score for result in outcome.results}
        wanted = dict(zip(ids, expected(mode, corpus, query, question), strict=True))
        if mode == "keyword":
            wanted = {chunk_id: score for chunk_id, score in wanted.items() if score > 0}
        assert found == pytest.approx(wanted, abs=1e-5)
        assert list(found.values()) == sorted(found.values(), reverse=True)
