"""Bases above the limit of exact search: HNSW and posting lists, with rows that are not served among them."""

from __future__ import annotations

import asyncio
import math
import random
import uuid
from collections.abc import Sequence

import psycopg
import pytest

from bonito.database.pool import Pool, tenant
from bonito.knowledge import indexes
from bonito.knowledge.search import Searcher, SearchOutcome, SearchRequest
from tests.integration.conftest import Database
from tests.integration.knowledge.shelves import Models, Shelf, TableEmbedding, create_shelf

DIMENSIONS = 16
WORDS = [f"word{number}" for number in range(60)]

pytestmark = pytest.mark.usefixtures("small_limit")


def direction(seed: int) -> list[float]:
    drawn = random.Random(seed)
    return [drawn.gauss(0, 1) for _ in range(DIMENSIONS)]


def near(vector: Sequence[float], seed: int, noise: float = 0.3) -> list[float]:
    drawn = random.Random(1_000_000 + seed)
    return [value + drawn.gauss(0, noise) for value in vector]


def sentence(seed: int) -> str:
    drawn = random.Random(seed)
    return " ".join(drawn.choices(WORDS, weights=[1 / (rank + 1) for rank in range(len(WORDS))], k=12))


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / math.sqrt(sum(a * a for a in one)) / math.sqrt(sum(b * b for b in other))


@pytest.fixture
def model() -> TableEmbedding:
    return TableEmbedding(
        dimensions=DIMENSIONS, vectors={f"question {number}": direction(number) for number in range(8)}
    )


@pytest.fixture
async def shelf(pool: Pool, org_id: uuid.UUID, model: TableEmbedding) -> Shelf:
    return await create_shelf(pool, org_id, "large", model=model, language="simple")


async def fill(shelf: Shelf, *, documents: int, chunks: int = 10, round_number: int = 0) -> None:
    """Documents of chunks around eight directions; another round is the same documents with other texts."""
    for document in range(documents):
        seeds = [100_000 * round_number + document * chunks + place for place in range(chunks)]
        await shelf.add(
            f"{document}.md",
            [sentence(seed) for seed in seeds],
            [near(direction(document % 8), seed) for seed in seeds],
            metadata={"half": document % 2, "one": document == 3, "round": round_number},
        )


async def ask(pool: Pool, shelf: Shelf, model: TableEmbedding, request: SearchRequest) -> SearchOutcome:
    searcher = Searcher(pool, Models(model))
    return await searcher.search(shelf.org_id, names=[shelf.name], readable=None, request=request)


async def stored_vectors(shelf: Shelf) -> dict[uuid.UUID, list[float]]:
    async with tenant(shelf.pool, shelf.org_id) as conn:
        rows = await conn.execute(
            "SELECT i.chunk_id, i.embedding FROM kb_index i JOIN kb_revisions r ON r.org_id = i.org_id "
            "AND r.id = i.revision_id WHERE i.org_id = %s AND i.generation_id = %s AND r.status = 'served'",
            [shelf.org_id, shelf.generation_id],
        )
        return {chunk_id: vector.to_list() for chunk_id, vector in await rows.fetchall()}


async def test_the_index_finds_what_comparing_everything_finds(
    pool: Pool, shelf: Shelf, model: TableEmbedding, database: Database
) -> None:
    await fill(shelf, documents=40)
    vectors = await stored_vectors(shelf)
    requests = [SearchRequest(question, top_k=10, mode="vector") for question in model.vectors]
    compared = [await ask(pool, shelf, model, request) for request in requests]
    done = await indexes.maintain(database.maintenance_url)
    assert done is not None
    assert done.built == [f"kb_hnsw_{shelf.generation_id.hex}_400"]
    indexed = [await ask(pool, shelf, model, request) for request in requests]

    for request, before, after in zip(requests, compared, indexed, strict=True):
        question = model.vectors[request.query]
        nearest = sorted(vectors, key=lambda chunk_id: -cosine(question, vectors[chunk_id]))[:10]
        assert [result.chunk_id for result in before.results] == nearest
        assert [result.chunk_id for result in after.results] == nearest


@pytest.mark.parametrize("has_index", [False, True], ids=["compared", "indexed"])
@pytest.mark.parametrize("mode", ["hybrid", "vector"])
async def test_rows_that_are_no_longer_served_push_nobody_out(
    pool: Pool, shelf: Shelf, model: TableEmbedding, database: Database, has_index: bool, mode: str
) -> None:
    """Three hundred rows of old contents and sixty of an unfinished one, each nearer than what is served."""
    question = model.vectors["question 0"]
    for round_number in range(5):
        nearest = [near(question, seed, noise=0.01) for seed in range(60)]
        await shelf.add("busy.md", [f"word0 old {round_number}"] * 60, nearest)
    await shelf.add("building.md", ["word0"] * 60, nearest, status="building")
    away = [near(direction(50), seed) for seed in range(45)]
    live = await shelf.add("busy.md", ["word1"] * 45, away)
    if has_index:
        await indexes.maintain(database.maintenance_url)

    for top_k in (1, 10, 45, 100):
        request = SearchRequest("question 0", top_k=top_k, mode=mode)  # type: ignore[arg-type]
        outcome = await ask(pool, shelf, model, request)
        assert len(outcome.results) == min(top_k, 45)
        assert {result.chunk_id for result in outcome.results} <= set(live)


async def test_keyword_candidates_pass_over_rows_that_are_no_longer_served(
    pool: Pool, shelf: Shelf, model: TableEmbedding
) -> None:
    for _ in range(4):
        await shelf.add("busy.md", ["word0 word0 word0"] * 60)
    live = await shelf.add("busy.md", ["word0 and many a word more"] * 50)
    outcome = await ask(pool, shelf, model, SearchRequest("word0", top_k=50, mode="keyword"))
    assert {result.chunk_id for result in outcome.results} == set(live)


async def test_everything_is_compared_when_the_index_gives_too_little(
    pool: Pool, shelf: Shelf, model: TableEmbedding, database: Database
) -> None:
    """As after a scan that gave up: the index alone would end among rows that are not served."""
    question = model.vectors["question 0"]
    await shelf.add("busy.md", ["old"] * 300, [near(question, seed, noise=0.01) for seed in range(300)])
    live = await shelf.add("busy.md", ["new"] * 50, [near(direction(50), seed) for seed in range(50)])
    await indexes.maintain(database.maintenance_url)
    with psycopg.connect(database.superuser_url, autocommit=True) as connection:
        function = "vector_candidates(uuid, uuid, uuid, integer, vector, uuid[], integer, integer)"
        connection.execute(f"ALTER FUNCTION {function} SET hnsw.iterative_scan = off")
        outcome = await ask(pool, shelf, model, SearchRequest("question 0", top_k=20, mode="vector"))
        connection.execute(f"ALTER FUNCTION {function} SET hnsw.iterative_scan = relaxed_order")
    assert len(outcome.results) == 20
    assert {result.chunk_id for result in outcome.results} <= set(live)


@pytest.mark.parametrize("has_index", [False, True], ids=["compared", "indexed"])
async def test_a_filter_never_costs_results(
    pool: Pool, shelf: Shelf, model: TableEmbedding, database: Database, has_index: bool
) -> None:
    await fill(shelf, documents=40)
    await fill(shelf, documents=40, round_number=1)
    if has_index:
        await indexes.maintain(database.maintenance_url)
    for condition, size in (({"half": 1}, 200), ({"one": True}, 10), ({"round": 1}, 400), ({"round": 0}, 0)):
        for question in ("question 0", "question 3"):
            for mode in ("hybrid", "vector"):
                request = SearchRequest(question, top_k=100, filter=condition, mode=mode)  # type: ignore[arg-type]
                outcome = await ask(pool, shelf, model, request)
                assert len(outcome.results) == min(100, size)
                for result in outcome.results:
                    assert condition.items() <= result.metadata.items()


async def test_a_filter_and_the_index_find_the_nearest_that_match(
    pool: Pool, shelf: Shelf, model: TableEmbedding, database: Database
) -> None:
    await fill(shelf, documents=60)
    await indexes.maintain(database.maintenance_url)
    vectors = await stored_vectors(shelf)
    request = SearchRequest("question 2", top_k=10, mode="vector", filter={"half": 1})  # all of its own are in half 0
    outcome = await ask(pool, shelf, model, request)
    everything = await ask(pool, shelf, model, SearchRequest("question 2", top_k=100, mode="vector"))
    assert {result.metadata["half"] for result in everything.results[:20]} == {0}
    question = model.vectors["question 2"]
    scores = [result.score for result in outcome.results]
    assert len(scores) == 10
    assert scores == pytest.approx([max(0.0, cosine(question, vectors[found.chunk_id])) for found in outcome.results])


async def test_a_common_word_is_searched_further_when_its_strongest_places_are_too_few(
    pool: Pool, shelf: Shelf, model: TableEmbedding
) -> None:
    """One rare word is found three times; the other stands alike in more chunks than are weighed at first."""
    texts = ["rare common"] * 3 + ["common other"] * 8_200
    ids = await shelf.add("a.md", texts, [[1.0] * DIMENSIONS] * len(texts))
    outcome = await ask(pool, shelf, model, SearchRequest("rare common", top_k=50, mode="keyword"))
    assert len(outcome.results) == 50
    assert {result.chunk_id for result in outcome.results[:3]} == set(ids[:3])


async def test_a_search_sees_a_flip_whole_or_not_at_all(
    pool: Pool, shelf: Shelf, model: TableEmbedding, database: Database
) -> None:
    await fill(shelf, documents=10)
    await shelf.add("flipping.md", ["flipword 0"] * 3, [model.vectors["question 0"]] * 3)
    await indexes.maintain(database.maintenance_url)
    is_over = asyncio.Event()

    async def flip() -> None:
        for number in range(1, 12):
            await shelf.add("flipping.md", [f"flipword {number}"] * 3, [model.vectors["question 0"]] * 3)
        is_over.set()

    async def search() -> int:
        count = 0
        while not is_over.is_set():
            for mode in ("hybrid", "vector", "keyword"):
                request = SearchRequest("flipword" if mode == "keyword" else "question 0", top_k=3, mode=mode)  # type: ignore[arg-type]
                outcome = await ask(pool, shelf, model, request)
                assert len(outcome.results) == 3
                assert len({result.content for result in outcome.results}) == 1
                assert all(result.document_path == "flipping.md" for result in outcome.results)
                count += 1
        return count

    _, searched = await asyncio.gather(flip(), search())
    assert searched > 0
