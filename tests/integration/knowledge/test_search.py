from __future__ import annotations

import uuid

import pytest

from bonito.database.pool import Pool, tenant
from bonito.errors import (
    InvalidRequest,
    KnowledgeBaseNotFound,
    KnowledgeBaseNotReady,
    KnowledgeBaseUnavailable,
)
from bonito.knowledge import bases
from bonito.knowledge.search import Searcher, SearchOutcome, SearchRequest
from tests.integration.knowledge.shelves import Models, Shelf, TableEmbedding, create_shelf, next_generation

NORTH, EAST, SOUTH, UP = [0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]
QUESTION = "How does leave accrue?"


@pytest.fixture
def model() -> TableEmbedding:
    return TableEmbedding(vectors={QUESTION: NORTH})


@pytest.fixture
def searcher(pool: Pool, model: TableEmbedding) -> Searcher:
    return Searcher(pool, Models(model))


@pytest.fixture
async def shelf(pool: Pool, org_id: uuid.UUID, model: TableEmbedding) -> Shelf:
    """Three documents: one by words and vector, one by words, one by vector."""
    shelf = await create_shelf(pool, org_id, "handbook", model=model)
    await shelf.add("leave/pto.md", ["Leave accrues monthly."], [NORTH], metadata={"category": "policy", "year": 2024})
    await shelf.add("words.md", ["Leave accrual of interest."], [SOUTH], metadata={"category": "finance"})
    await shelf.add("vector.md", ["Vacation days grow over time."], [[0.6, 0.8, 0.0, 0.0]], metadata={})
    return shelf


async def ask(
    searcher: Searcher, shelf: Shelf, request: SearchRequest, *, readable: frozenset[uuid.UUID] | None = None
) -> SearchOutcome:
    return await searcher.search(shelf.org_id, names=[shelf.name], readable=readable, request=request)


def paths(outcome: SearchOutcome) -> list[str]:
    return [result.document_path for result in outcome.results]


async def test_a_result_carries_all_that_a_citation_needs(searcher: Searcher, shelf: Shelf) -> None:
    outcome = await ask(searcher, shelf, SearchRequest(QUESTION, top_k=1))

    (result,) = outcome.results
    assert (result.document_name, result.document_path) == ("pto.md", "leave/pto.md")
    assert (result.content, result.page, result.section) == ("Leave accrues monthly.", 1, "A > B")
    assert result.metadata == {"category": "policy", "year": 2024}
    assert (result.knowledge_base_id, result.knowledge_base_name) == (shelf.base_id, "handbook")
    assert 0 < result.score <= 1
    assert [base.id for base in outcome.knowledge_bases] == [shelf.base_id]


async def test_vector_mode_scores_by_cosine_and_clamps_what_points_away(searcher: Searcher, shelf: Shelf) -> None:
    outcome = await ask(searcher, shelf, SearchRequest(QUESTION, mode="vector"))
    assert paths(outcome) == ["leave/pto.md", "vector.md", "words.md"]
    assert [result.score for result in outcome.results] == pytest.approx([1.0, 0.8, 0.0])


async def test_keyword_mode_finds_any_word_and_nothing_else(searcher: Searcher, shelf: Shelf) -> None:
    outcome = await ask(searcher, shelf, SearchRequest("leave of the monthly", mode="keyword"))
    assert paths(outcome) == ["leave/pto.md", "words.md"]
    assert outcome.results[0].score > outcome.results[1].score > 0


async def test_keyword_mode_pays_for_no_embedding(searcher: Searcher, shelf: Shelf, model: TableEmbedding) -> None:
    model.is_down = True
    outcome = await ask(searcher, shelf, SearchRequest(QUESTION, mode="keyword"))
    assert len(outcome.results) == 2
    assert outcome.usage == {}
    assert model.calls == []


async def test_hybrid_is_half_cosine_and_half_keywords(searcher: Searcher, shelf: Shelf) -> None:
    scores = {}
    for mode in ("hybrid", "vector", "keyword"):
        outcome = await ask(searcher, shelf, SearchRequest(QUESTION, mode=mode))  # type: ignore[arg-type]
        scores[mode] = {result.document_path: result.score for result in outcome.results}
    assert len(scores["hybrid"]) == 3
    for path, score in scores["hybrid"].items():
        assert score == pytest.approx(0.5 * scores["vector"][path] + 0.5 * scores["keyword"].get(path, 0.0))


async def test_results_below_min_score_are_left_out(searcher: Searcher, shelf: Shelf) -> None:
    assert paths(await ask(searcher, shelf, SearchRequest(QUESTION, mode="vector", min_score=0.8))) == [
        "leave/pto.md",
        "vector.md",
    ]
    assert paths(await ask(searcher, shelf, SearchRequest(QUESTION, mode="hybrid", min_score=1))) == []


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        pytest.param({"category": "policy"}, ["leave/pto.md"], id="one"),
        pytest.param({"category": "policy", "year": 2024}, ["leave/pto.md"], id="all-must-hold"),
        pytest.param({"category": "policy", "year": 2023}, [], id="none"),
        pytest.param({"year": "2024"}, [], id="a-string-is-no-number"),
        pytest.param({}, ["leave/pto.md", "vector.md", "words.md"], id="no-filter"),
    ],
)
@pytest.mark.parametrize("mode", ["vector", "hybrid"])
async def test_the_filter_is_what_a_documents_metadata_must_contain(
    searcher: Searcher, shelf: Shelf, condition: dict[str, object], expected: list[str], mode: str
) -> None:
    outcome = await ask(searcher, shelf, SearchRequest(QUESTION, filter=condition, mode=mode))  # type: ignore[arg-type]
    assert sorted(paths(outcome)) == expected


async def test_changed_metadata_filters_from_then_on(searcher: Searcher, shelf: Shelf) -> None:
    async with tenant(shelf.pool, shelf.org_id) as conn:
        await conn.execute(
            "UPDATE kb_documents SET metadata = '{\"category\": \"old\"}' WHERE org_id = %s AND file_path = 'words.md'",
            [shelf.org_id],
        )
    assert paths(await ask(searcher, shelf, SearchRequest(QUESTION, filter={"category": "old"}))) == ["words.md"]


async def test_a_query_of_stop_words_has_no_keyword_half(
    searcher: Searcher, shelf: Shelf, model: TableEmbedding
) -> None:
    model.vectors["who are you"] = NORTH
    hybrid = await ask(searcher, shelf, SearchRequest("who are you"))
    assert [result.score for result in hybrid.results] == pytest.approx([0.5, 0.4, 0.0])
    assert (await ask(searcher, shelf, SearchRequest("who are you", mode="keyword"))).results == ()


async def test_words_that_the_base_lacks_make_a_match_weaker(searcher: Searcher, shelf: Shelf) -> None:
    known = await ask(searcher, shelf, SearchRequest("monthly", mode="keyword"))
    with_unknown = await ask(searcher, shelf, SearchRequest("monthly teleportation", mode="keyword"))
    only_unknown = await ask(searcher, shelf, SearchRequest("teleportation", mode="keyword"))
    assert paths(known) == paths(with_unknown) == ["leave/pto.md"]
    assert 0 < with_unknown.results[0].score < known.results[0].score
    assert only_unknown.results == ()


async def test_a_repeated_word_counts_once(searcher: Searcher, shelf: Shelf) -> None:
    once = await ask(searcher, shelf, SearchRequest("leave monthly", mode="keyword"))
    often = await ask(searcher, shelf, SearchRequest("monthly leave leaves LEAVE monthly leave", mode="keyword"))
    assert [result.score for result in once.results] == [result.score for result in often.results]


@pytest.mark.parametrize(
    "query", ["'; DROP TABLE kb_chunks; --", "a & b | !c:*", "\\x00 \\'", "()<->", "50% <b>tag</b>"]
)
async def test_no_punctuation_breaks_the_query(searcher: Searcher, shelf: Shelf, query: str) -> None:
    assert len((await ask(searcher, shelf, SearchRequest(query))).results) == 3
    await ask(searcher, shelf, SearchRequest(query, mode="keyword"))


async def test_text_without_spaces_is_found_by_its_runs(pool: Pool, org_id: uuid.UUID, model: TableEmbedding) -> None:
    shelf = await create_shelf(pool, org_id, "japanese", model=model, language="simple")
    await shelf.add("a.md", ["有給休暇 は 毎月 付与 されます"])
    await shelf.add("b.md", ["経費 精算 の 手続き"])
    outcome = await ask(Searcher(pool, Models(model)), shelf, SearchRequest("有給休暇", mode="keyword"))
    assert paths(outcome) == ["a.md"]


async def test_a_text_of_more_lexemes_than_a_sparse_vector_holds_is_searched(
    pool: Pool, org_id: uuid.UUID, model: TableEmbedding
) -> None:
    shelf = await create_shelf(pool, org_id, "long", model=model, language="simple")
    await shelf.add("long.md", [" ".join(f"word{number:05d}" for number in range(17_000)) + " needle"])
    searcher = Searcher(pool, Models(model))
    assert paths(await ask(searcher, shelf, SearchRequest("needle", mode="keyword"))) == ["long.md"]
    huge = " ".join(f"word{number:05d}" for number in range(16_990))
    assert len((await ask(searcher, shelf, SearchRequest(huge))).results) == 1


async def test_an_empty_base_that_is_ready_answers_nothing_and_pays_nothing(
    pool: Pool, org_id: uuid.UUID, model: TableEmbedding, searcher: Searcher
) -> None:
    shelf = await create_shelf(pool, org_id, "empty", model=model)
    async with tenant(pool, org_id) as conn:
        await conn.execute("UPDATE kb_generations SET dimensions = NULL WHERE org_id = %s", [org_id])
    outcome = await ask(searcher, shelf, SearchRequest(QUESTION))
    assert outcome.results == ()
    assert [base.name for base in outcome.knowledge_bases] == ["empty"]
    assert model.calls == []


async def test_an_equal_question_is_embedded_once_and_paid_once(
    searcher: Searcher, shelf: Shelf, model: TableEmbedding
) -> None:
    first = await ask(searcher, shelf, SearchRequest(QUESTION))
    second = await ask(searcher, shelf, SearchRequest(QUESTION))
    assert model.calls == [QUESTION]
    assert first.usage["test/table"].input_tokens == 3
    assert second.usage["test/table"].input_tokens == 0
    assert first.results == second.results


async def test_an_unknown_base_is_named(searcher: Searcher, shelf: Shelf) -> None:
    with pytest.raises(KnowledgeBaseNotFound, match="no-such"):
        await searcher.search(
            shelf.org_id, names=["handbook", "no-such"], readable=None, request=SearchRequest(QUESTION)
        )
    for name in ("Handbook!", "a\0b", "", "x" * 500, str(uuid.uuid4())):
        with pytest.raises(KnowledgeBaseNotFound):
            await searcher.search(shelf.org_id, names=[name], readable=None, request=SearchRequest(QUESTION))


async def test_no_name_at_all_is_a_wrong_request(searcher: Searcher, shelf: Shelf) -> None:
    with pytest.raises(InvalidRequest):
        await searcher.search(shelf.org_id, names=[], readable=None, request=SearchRequest(QUESTION))


async def test_a_base_is_found_by_its_id_and_counts_once(searcher: Searcher, shelf: Shelf) -> None:
    names = [str(shelf.base_id).upper(), "handbook", str(shelf.base_id)]
    outcome = await searcher.search(shelf.org_id, names=names, readable=None, request=SearchRequest(QUESTION))
    assert [base.name for base in outcome.knowledge_bases] == ["handbook"]
    assert len(outcome.results) == 3


async def test_a_base_that_may_not_be_read_is_not_there(searcher: Searcher, shelf: Shelf) -> None:
    with pytest.raises(KnowledgeBaseNotFound, match="handbook"):
        await ask(searcher, shelf, SearchRequest(QUESTION), readable=frozenset())
    with pytest.raises(KnowledgeBaseNotFound):
        await searcher.search(shelf.org_id, names="*", readable=frozenset(), request=SearchRequest(QUESTION))
    assert (await ask(searcher, shelf, SearchRequest(QUESTION), readable=frozenset({shelf.base_id}))).results


async def test_another_organizations_base_is_not_there(
    searcher: Searcher, shelf: Shelf, other_org_id: uuid.UUID
) -> None:
    for name in ("handbook", str(shelf.base_id), "*"):
        with pytest.raises(KnowledgeBaseNotFound):
            await searcher.search(
                other_org_id,
                names="*" if name == "*" else [name],
                readable=frozenset({shelf.base_id}),
                request=SearchRequest(QUESTION),
            )


async def test_a_deleted_base_is_not_there(searcher: Searcher, shelf: Shelf) -> None:
    async with tenant(shelf.pool, shelf.org_id) as conn:
        await bases.delete(conn, org_id=shelf.org_id, knowledge_base_id=shelf.base_id)
    with pytest.raises(KnowledgeBaseNotFound):
        await ask(searcher, shelf, SearchRequest(QUESTION))


async def test_a_base_that_serves_nothing_yet_is_not_ready(
    pool: Pool, searcher: Searcher, shelf: Shelf, model: TableEmbedding
) -> None:
    await create_shelf(pool, shelf.org_id, "new", model=model, serving=False)
    with pytest.raises(KnowledgeBaseNotReady, match="new"):
        await searcher.search(shelf.org_id, names=["handbook", "new"], readable=None, request=SearchRequest(QUESTION))
    outcome = await searcher.search(shelf.org_id, names="*", readable=None, request=SearchRequest(QUESTION))
    assert [base.name for base in outcome.knowledge_bases] == ["handbook"]


async def test_all_bases_are_not_ready_when_none_is(
    pool: Pool, searcher: Searcher, org_id: uuid.UUID, model: TableEmbedding
) -> None:
    await create_shelf(pool, org_id, "new", model=model, serving=False)
    with pytest.raises(KnowledgeBaseNotReady):
        await searcher.search(org_id, names="*", readable=None, request=SearchRequest(QUESTION))


async def test_bases_of_one_model_share_an_embedding_and_merge_by_score(
    pool: Pool, searcher: Searcher, shelf: Shelf, model: TableEmbedding
) -> None:
    second = await create_shelf(pool, shelf.org_id, "other", model=model)
    await second.add("close.md", ["Something."], [[0.1, 0.9, 0.0, 0.0]])
    request = SearchRequest(QUESTION, mode="vector", top_k=2)
    outcome = await searcher.search(shelf.org_id, names=["handbook", "other"], readable=None, request=request)
    assert paths(outcome) == ["leave/pto.md", "close.md"]
    assert [result.knowledge_base_name for result in outcome.results] == ["handbook", "other"]
    assert model.calls == [QUESTION]


async def test_bases_of_different_models_are_merged_by_rank_and_keep_their_scores(
    pool: Pool, shelf: Shelf, model: TableEmbedding
) -> None:
    other_model = TableEmbedding(name="test/other", fingerprint="other:1", dimensions=2, vectors={QUESTION: [1, 0]})
    second = await create_shelf(pool, shelf.org_id, "other", model=other_model)
    await second.add("best.md", ["First."], [[0.3, 0.9]])
    await second.add("next.md", ["Second."], [[0.1, 0.9]])
    searcher = Searcher(pool, Models(model, other_model))
    request = SearchRequest(QUESTION, mode="vector", top_k=4)
    outcome = await searcher.search(shelf.org_id, names="*", readable=None, request=request)
    assert set(paths(outcome)[:2]) == {"leave/pto.md", "best.md"}
    assert set(paths(outcome)[2:]) == {"vector.md", "next.md"}
    scores = {result.document_path: result.score for result in outcome.results}
    assert scores["best.md"] == pytest.approx(0.3 / (0.3**2 + 0.9**2) ** 0.5)
    assert scores["vector.md"] == pytest.approx(0.8)
    assert set(outcome.usage) == {"test/table", "test/other"}


async def test_keywords_of_different_models_bases_merge_by_score(
    pool: Pool, shelf: Shelf, model: TableEmbedding
) -> None:
    other_model = TableEmbedding(name="test/other", fingerprint="other:1", dimensions=2)
    second = await create_shelf(pool, shelf.org_id, "other", model=other_model)
    await second.add("best.md", ["Leave accrues."])
    searcher = Searcher(pool, Models())
    request = SearchRequest(QUESTION, mode="keyword")
    outcome = await searcher.search(shelf.org_id, names="*", readable=None, request=request)
    scores = [result.score for result in outcome.results]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 3


async def test_an_embedding_model_that_fails_makes_the_base_unavailable(
    searcher: Searcher, shelf: Shelf, model: TableEmbedding
) -> None:
    model.is_down = True
    with pytest.raises(KnowledgeBaseUnavailable, match="test/table"):
        await ask(searcher, shelf, SearchRequest(QUESTION))


async def test_an_embedding_model_that_is_gone_makes_the_base_unavailable(pool: Pool, shelf: Shelf) -> None:
    with pytest.raises(KnowledgeBaseUnavailable, match="no embedding model"):
        await ask(Searcher(pool, Models()), shelf, SearchRequest(QUESTION))


async def test_vectors_of_a_model_that_has_changed_are_not_compared(
    searcher: Searcher, shelf: Shelf, model: TableEmbedding
) -> None:
    model.fingerprint = "test/table:2"
    with pytest.raises(KnowledgeBaseUnavailable, match="build it anew"):
        await ask(searcher, shelf, SearchRequest(QUESTION))
    assert model.calls == []


async def test_a_vector_of_another_length_is_not_compared(
    searcher: Searcher, shelf: Shelf, model: TableEmbedding
) -> None:
    model.vectors[QUESTION] = [1.0, 2.0]
    with pytest.raises(KnowledgeBaseUnavailable, match="dimensions"):
        await ask(searcher, shelf, SearchRequest(QUESTION))


async def test_a_switch_between_the_embedding_and_the_search_is_followed(
    pool: Pool, shelf: Shelf, model: TableEmbedding
) -> None:
    wider = TableEmbedding(name="test/wider", fingerprint="wider:1", dimensions=3)
    built = await next_generation(shelf, model=wider)
    await built.add("new.md", ["Of the new build."])

    class Switching(Models):
        """The first question takes so long that the base is switched meanwhile."""

        async def embedding_model(self, org_id: uuid.UUID, name: str) -> TableEmbedding:  # type: ignore[override]
            if name == "test/table":
                await built.serve()
            return self.by_name[name]

    outcome = await ask(Searcher(pool, Switching(model, wider)), shelf, SearchRequest(QUESTION))
    assert paths(outcome) == ["new.md"]


async def test_only_the_served_generation_answers(searcher: Searcher, shelf: Shelf, model: TableEmbedding) -> None:
    built = await next_generation(shelf, model=model)
    await built.add("new.md", ["Leave accrues anew."], [NORTH])
    assert "new.md" not in paths(await ask(searcher, shelf, SearchRequest(QUESTION)))
    await built.serve()
    assert paths(await ask(searcher, shelf, SearchRequest(QUESTION))) == ["new.md"]


async def test_only_served_revisions_answer(searcher: Searcher, shelf: Shelf) -> None:
    await shelf.add("leave/pto.md", ["Leave accrues weekly."], [NORTH])
    await shelf.add("building.md", ["Leave accrues hourly."], [NORTH], status="building")
    for mode in ("hybrid", "vector", "keyword"):
        outcome = await ask(searcher, shelf, SearchRequest(QUESTION, mode=mode))  # type: ignore[arg-type]
        contents = {result.content for result in outcome.results}
        assert "Leave accrues weekly." in contents
        assert not contents & {"Leave accrues monthly.", "Leave accrues hourly."}


async def test_a_very_long_question_is_searched(searcher: Searcher, shelf: Shelf, model: TableEmbedding) -> None:
    outcome = await ask(searcher, shelf, SearchRequest("leave " * 50_000))
    assert len(outcome.results) == 3
    assert all(len(text) <= 3 * model.max_input_tokens + 1 for text in model.calls)
