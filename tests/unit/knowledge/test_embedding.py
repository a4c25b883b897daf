"""Vectors are checked before anything is stored; questions are remembered per organization and model."""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest

from bonito.errors import BonitoError, ProviderFailed, RateLimited
from bonito.knowledge.embedding import EmbeddedTexts, QueryEmbeddings, check_vectors, embed_batches
from bonito.providers.base import EmbeddingResult, Purpose, Usage

ORG, OTHER_ORG = UUID(int=1), UUID(int=2)


def plain_vector(text: str) -> array[float]:
    return array("f", [1, len(text), sum(map(ord, text)) % 97])


class Embedder:
    """An embedding model that notes its calls; `before` runs in each of them."""

    def __init__(
        self,
        *,
        name: str = "test/model",
        fingerprint: str = "1",
        vector: Callable[[str], array[float]] = plain_vector,
        before: Callable[[], Awaitable[None]] | None = None,
        tokens: int | None = 7,
        price_nano_usd: int | None = None,
        max_parallel: int = 1,
    ) -> None:
        self.name, self.fingerprint = name, fingerprint
        self.dimensions: int | None = None
        self.max_input_tokens, self.max_batch, self.max_batch_tokens = 512, 3, 1000
        self.max_parallel, self.price_nano_usd = max_parallel, price_nano_usd
        self.calls: list[list[str]] = []
        self.purposes: set[Purpose] = set()
        self._vector, self._before, self._tokens = vector, before, tokens

    async def embed(self, texts: Sequence[str], *, purpose: Purpose = "document") -> EmbeddingResult:
        self.calls.append(list(texts))
        self.purposes.add(purpose)
        if self._before:
            await self._before()
        return EmbeddingResult(tuple(map(self._vector, texts)), Usage(input_tokens=self._tokens))


async def embedded(model: Embedder, texts: Sequence[str], **given: Any) -> list[EmbeddedTexts]:
    return [done async for done in embed_batches(model, texts, **given)]


async def test_texts_are_sent_in_batches_that_the_model_takes_and_come_back_in_order() -> None:
    model = Embedder()
    texts = [f"text {number}" * number for number in range(8)]

    found = await embedded(model, texts)

    assert model.calls == [texts[:3], texts[3:6], texts[6:]]
    assert [vector for done in found for vector in done.result.vectors] == [plain_vector(text) for text in texts]
    assert [texts[done.place] for done in found] == model.calls
    assert model.purposes == {"document"}


async def test_no_text_makes_no_call() -> None:
    model = Embedder()

    assert await embedded(model, []) == []
    assert model.calls == []


@pytest.mark.parametrize(
    ("tokens", "calls"),
    [
        pytest.param([400, 400, 400, 1], ["ab", "cd"], id="together they are too many"),
        pytest.param([1000, 1, 999, 2], ["a", "bc", "d"], id="the bound itself is fine"),
        pytest.param([5000, 1, 5000, 5000], ["a", "b", "c", "d"], id="one above it goes alone"),
        pytest.param([1, 1, 1, 1], ["abc", "d"], id="the number of texts counts too"),
    ],
)
async def test_a_call_holds_no_more_tokens_than_the_model_takes(tokens: list[int], calls: list[str]) -> None:
    model = Embedder()

    await embedded(model, list("abcd"), tokens=tokens)

    assert ["".join(call) for call in model.calls] == calls


async def test_without_counts_a_token_is_at_least_a_byte() -> None:
    model = Embedder()

    await embedded(model, ["é" * 250, "e" * 500, "e"])

    assert [len(call) for call in model.calls] == [2, 1]


async def test_of_calls_at_once_those_that_succeed_are_handed_out_before_the_failure_is_raised() -> None:
    async def fail_once() -> None:
        if len(model.calls) == 2:
            raise RateLimited("Come back later.", retry_after_s=3)

    model = Embedder(before=fail_once, max_parallel=4)
    stored: list[slice] = []
    with pytest.raises(RateLimited):
        async for done in embed_batches(model, ["text"] * 15):
            stored.append(done.place)

    assert stored == [slice(0, 3), slice(6, 9), slice(9, 12)]
    assert len(model.calls) == 4, "nothing is begun after a failure"


async def test_calls_at_once_must_agree_on_the_dimensions() -> None:
    model = Embedder(vector=lambda text: array("f", [1.0] * len(text)), max_parallel=2)

    with pytest.raises(ProviderFailed, match="2 dimensions where 3 are expected"):
        await embedded(model, ["abc"] * 3 + ["ab"])


async def test_batches_before_a_failure_are_handed_out() -> None:
    async def fail_at_the_third() -> None:
        if len(model.calls) == 3:
            raise RateLimited("Come back later.", retry_after_s=3)

    model = Embedder(before=fail_at_the_third)
    stored = 0
    with pytest.raises(RateLimited):
        async for done in embed_batches(model, ["text"] * 9):
            stored += len(done.result.vectors)

    assert stored == 6


@pytest.mark.parametrize(
    ("vectors", "count", "dimensions", "message"),
    [
        pytest.param([[1, 2]], 2, None, "1 vectors for 2 texts", id="one is missing"),
        pytest.param([[1, 2]] * 3, 2, None, "3 vectors for 2 texts", id="one too many"),
        pytest.param([[1, 2], [1, 2, 3]], 2, None, "3 dimensions where 2 are expected", id="two lengths"),
        pytest.param([[1, 2]], 1, 3, "2 dimensions where 3 are expected", id="not as pinned"),
        pytest.param([[]], 1, None, "0 dimensions", id="empty"),
        pytest.param([[0.5] * 4_001], 1, None, "4001 dimensions; 1 to 4000", id="too long for an index"),
        pytest.param([[1, math.nan]], 1, 2, "not finite", id="not a number"),
        pytest.param([[math.inf, -math.inf]], 1, 2, "not finite", id="infinities that cancel out"),
        pytest.param([[1, 1], [0, -0.0]], 2, 2, "zeros", id="no direction"),
    ],
)
def test_an_unusable_vector_is_the_providers_failure(
    vectors: list[list[float]], count: int, dimensions: int | None, message: str
) -> None:
    with pytest.raises(ProviderFailed, match=message) as raised:
        check_vectors([array("f", vector) for vector in vectors], model="p/m", count=count, dimensions=dimensions)

    assert "p/m" in raised.value.message


def test_large_small_and_negative_numbers_are_fine() -> None:
    largest = array("f", [3.4e38, -3.4e38, 1e-45])

    check_vectors([largest], model="p/m", count=1, dimensions=3)


async def test_a_model_that_changes_its_dimensions_between_calls_is_noticed() -> None:
    model = Embedder(vector=lambda text: array("f", [1.0] * (2 if text == "other" else 3)))

    with pytest.raises(ProviderFailed, match="2 dimensions where 3 are expected"):
        await embedded(model, ["text"] * 3 + ["other"])


@pytest.mark.parametrize(
    ("price", "tokens", "cost"),
    [(20_000_000, 7, 140), (22_000_000, 1, 22), (4_000, 7, 1), (None, 7, None), (20_000_000, None, None), (0, None, 0)],
)
async def test_a_question_costs_its_tokens_by_the_models_price_and_nothing_when_remembered(
    price: int | None, tokens: int | None, cost: int | None
) -> None:
    model, cache = Embedder(price_nano_usd=price, tokens=tokens), QueryEmbeddings()

    asked = [await cache.embed(model, "How many days?", org_id=ORG) for _ in range(2)]

    assert [one.cost_nano_usd for one in asked] == [cost, 0]
    assert model.purposes == {"query"}


async def test_a_question_is_embedded_once() -> None:
    model, cache = Embedder(), QueryEmbeddings()

    first = await cache.embed(model, "How many days?", org_id=ORG)
    second = await cache.embed(model, "How many days?", org_id=ORG)

    assert model.calls == [["How many days?"]]
    assert first.vector == second.vector == plain_vector("How many days?")
    assert (first.is_cached, first.usage.input_tokens) == (False, 7)
    assert (second.is_cached, second.usage.input_tokens) == (True, 0)


async def test_another_organization_model_fingerprint_or_text_is_another_question() -> None:
    cache = QueryEmbeddings()
    model, renamed, changed = Embedder(), Embedder(name="test/other"), Embedder(fingerprint="2")
    for _ in range(2):
        await cache.embed(model, "text", org_id=ORG)
        await cache.embed(model, "text", org_id=OTHER_ORG)
        await cache.embed(model, "Text", org_id=ORG)
        await cache.embed(renamed, "text", org_id=ORG)
        await cache.embed(changed, "text", org_id=ORG)

    assert [len(each.calls) for each in (model, renamed, changed)] == [3, 1, 1]


async def test_equal_questions_at_once_make_one_call_which_one_of_them_pays() -> None:
    release = asyncio.Event()

    async def wait() -> None:
        await release.wait()

    model, cache = Embedder(before=wait), QueryEmbeddings()
    asked = [asyncio.create_task(cache.embed(model, "text", org_id=ORG)) for _ in range(5)]
    other = asyncio.create_task(cache.embed(model, "text", org_id=OTHER_ORG))
    await asyncio.sleep(0)
    release.set()
    answers = await asyncio.gather(*asked)
    await other

    assert len(model.calls) == 2
    assert [answer.usage.input_tokens for answer in answers] == [7, 0, 0, 0, 0]
    assert [answer.is_cached for answer in answers] == [False, True, True, True, True]


async def test_a_failure_is_told_to_all_who_wait_and_not_remembered() -> None:
    async def fail_first() -> None:
        await asyncio.sleep(0)
        if len(model.calls) == 1:
            raise RateLimited("Come back later.", retry_after_s=1)

    model, cache = Embedder(before=fail_first), QueryEmbeddings()
    answers = await asyncio.gather(*(cache.embed(model, "text", org_id=ORG) for _ in range(3)), return_exceptions=True)
    again = await cache.embed(model, "text", org_id=ORG)

    assert all(isinstance(answer, RateLimited) for answer in answers)
    assert not again.is_cached
    assert len(model.calls) == 2


async def test_an_unusable_vector_is_not_remembered() -> None:
    model, cache = Embedder(vector=lambda text: array("f", [0.0, 0.0])), QueryEmbeddings()

    for _ in range(2):
        with pytest.raises(BonitoError, match="zeros"):
            await cache.embed(model, "text", org_id=ORG)

    assert len(model.calls) == 2


async def test_a_vector_of_other_dimensions_than_pinned_is_refused() -> None:
    model, cache = Embedder(), QueryEmbeddings()
    await cache.embed(model, "text", org_id=ORG, dimensions=3)

    with pytest.raises(ProviderFailed, match="where 4 are expected"):
        await cache.embed(model, "text", org_id=ORG, dimensions=4)


async def test_one_who_leaves_takes_the_answer_from_nobody() -> None:
    release = asyncio.Event()

    async def wait() -> None:
        await release.wait()

    model, cache = Embedder(before=wait), QueryEmbeddings()
    first, second = (asyncio.create_task(cache.embed(model, "text", org_id=ORG)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    release.set()

    assert (await second).vector == plain_vector("text")
    assert len(model.calls) == 1


async def test_the_last_one_who_leaves_cancels_the_call_and_the_next_asks_anew() -> None:
    cancelled = 0

    async def wait_first() -> None:
        nonlocal cancelled
        if len(model.calls) == 1:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled += 1
                raise

    model, cache = Embedder(before=wait_first), QueryEmbeddings()
    asked = [asyncio.create_task(cache.embed(model, "text", org_id=ORG)) for _ in range(2)]
    await asyncio.sleep(0.01)
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    again = await cache.embed(model, "text", org_id=ORG)

    assert (cancelled, len(model.calls), again.is_cached) == (1, 2, False)


async def test_the_least_recently_used_question_is_forgotten_first() -> None:
    model, cache = Embedder(), QueryEmbeddings(max_entries=2)
    for text in ("a", "b", "a", "c"):
        await cache.embed(model, text, org_id=ORG)

    assert (await cache.embed(model, "a", org_id=ORG)).is_cached
    assert not (await cache.embed(model, "b", org_id=ORG)).is_cached


async def test_memory_is_bounded_by_bytes_whoever_asks() -> None:
    model = Embedder(vector=lambda text: array("f", [1.0] * 1_536))
    cache = QueryEmbeddings(max_bytes=100_000)
    organizations = [uuid4() for _ in range(50)]
    for org_id in organizations:
        await cache.embed(model, "text", org_id=org_id)

    remembered = [(await cache.embed(model, "text", org_id=org_id)).is_cached for org_id in reversed(organizations)]

    assert remembered == [True] * 14 + [False] * 36  # 6,144 bytes each, and what Python needs


async def test_a_bound_of_nothing_remembers_nothing() -> None:
    model, cache = Embedder(), QueryEmbeddings(max_entries=0)
    for _ in range(2):
        assert not (await cache.embed(model, "text", org_id=ORG)).is_cached


async def test_a_question_that_is_no_unicode_can_be_asked() -> None:
    answer = await QueryEmbeddings().embed(Embedder(vector=lambda text: array("f", [1.0])), "\ud800", org_id=ORG)

    assert answer.vector == array("f", [1.0])
