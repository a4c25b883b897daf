"""The local embedding model as its callers see it: vectors in order, a free event loop, clean cancellation."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from array import array
from pathlib import Path

import pytest

from bonito.errors import InvalidRequest, ModelNotFound
from bonito.providers.base import EmbeddingModel
from bonito.providers.local.embedding import LocalEmbeddingModel

REFERENCE = json.loads(Path(__file__).with_name("minilm_vectors.json").read_text())["texts"]
TEXTS = [entry["text"] for entry in REFERENCE]
LONG = "The notice period in the first year of employment is one month to the end of a calendar month. " * 12


@pytest.fixture(scope="module")
def shared() -> LocalEmbeddingModel:
    return LocalEmbeddingModel(threads=1)


@pytest.fixture
async def model(shared: LocalEmbeddingModel) -> LocalEmbeddingModel:
    await shared.load()
    return shared


async def test_vectors_come_in_the_order_of_the_texts_and_equal_torchs(model: EmbeddingModel) -> None:
    result = await model.embed(TEXTS)

    assert [vector.typecode for vector in result.vectors] == ["f"] * len(TEXTS)
    for vector, entry in zip(result.vectors, REFERENCE, strict=True):
        assert vector.tolist() == pytest.approx(entry["vector"], abs=2e-6)
    assert result.usage.input_tokens == sum(entry["tokens"] for entry in REFERENCE)


async def test_more_text_than_one_call_packs_comes_back_whole_and_in_order(model: EmbeddingModel) -> None:
    texts = [f"{index}. {LONG}" for index in range(7)]
    texts[3] = "short"

    result = await model.embed(texts)

    alone = [(await model.embed([text])).vectors[0] for text in texts]
    for vector, expected in zip(result.vectors, alone, strict=True):
        assert vector.tolist() == pytest.approx(expected.tolist(), abs=1e-6)


async def test_no_text_has_no_vector(model: EmbeddingModel) -> None:
    result = await model.embed([])

    assert result.vectors == ()
    assert result.usage.input_tokens == 0


async def test_the_first_256_tokens_count(model: EmbeddingModel) -> None:
    result = await model.embed([LONG * 10, LONG * 10 + "and something else", "x " * 100_000])

    assert result.vectors[0] == result.vectors[1]
    assert result.usage.input_tokens == 3 * 256


@pytest.mark.parametrize(
    "text", ["\ud800 lone surrogate", "\x00\x01", "\u202e\u200b", "é" * 500, "漢" * 300, "a" * 10_000]
)
async def test_any_text_has_a_vector_of_length_one(model: EmbeddingModel, text: str) -> None:
    vector = (await model.embed([text])).vectors[0]

    assert sum(number * number for number in vector) == pytest.approx(1, abs=1e-5)


async def test_too_many_texts_are_refused_before_any_work() -> None:
    model = LocalEmbeddingModel(threads=1)

    with pytest.raises(InvalidRequest, match="at most 64 texts"):
        await model.embed(["text"] * 65)
    model.close()


async def test_the_event_loop_runs_on_while_a_batch_is_embedded(model: EmbeddingModel) -> None:
    batch = asyncio.create_task(model.embed([LONG] * 4))
    turns = 0
    while not batch.done():
        await asyncio.sleep(0.001)
        turns += 1

    assert turns > 20


async def test_a_question_is_answered_before_the_batches_that_came_first(model: EmbeddingModel) -> None:
    batches = [asyncio.create_task(model.embed([LONG] * 8)) for _ in range(2)]
    await asyncio.sleep(0)

    await model.embed(["How many days of leave?"])

    assert not any(batch.done() for batch in batches)
    for batch in batches:
        batch.cancel()
    await asyncio.gather(*batches, return_exceptions=True)


async def test_a_cancelled_batch_does_not_go_on_in_the_background(model: EmbeddingModel) -> None:
    async def cpu_of(texts: list[str]) -> float:
        start = time.process_time()
        await model.embed(texts)
        return time.process_time() - start

    usual = await cpu_of([LONG] * 6)
    batch = asyncio.create_task(model.embed([LONG] * 60))
    await asyncio.sleep(0.05)
    batch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await batch

    # The next one would queue behind ten times its own work.
    assert await cpu_of([LONG] * 6) < 5 * usual


async def test_several_first_calls_at_once_load_the_model_once() -> None:
    model = LocalEmbeddingModel(threads=2)

    first, second = await asyncio.gather(model.embed(["one"]), model.embed([LONG] * 5))

    assert (len(first.vectors), len(second.vectors)) == (1, 5)
    model.close()


async def test_a_failed_load_is_told_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = LocalEmbeddingModel(threads=1)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "path", [])
        with pytest.raises(ModelNotFound):
            await model.embed(["text"])

    assert isinstance((await model.embed(["text"])).vectors[0], array)
    model.close()


def test_making_a_model_reads_nothing() -> None:
    program = (
        "import sys; from bonito.providers.local.embedding import LocalEmbeddingModel; "
        "model = LocalEmbeddingModel(); print(model.name, model.dimensions, model.max_input_tokens, "
        "model.fingerprint[:10], sorted({'numpy', 'tokenizers'} & set(sys.modules)))"
    )

    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert printed.strip() == "local/all-minilm-l6-v2 384 256 sha256:53a []"
