"""The encoder against vectors that torch made, and its activation against the exact one."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from bonito.providers.local import minilm, model_files
from bonito.providers.local.minilm import MiniLM

REFERENCE = json.loads(Path(__file__).with_name("minilm_vectors.json").read_text())["texts"]


@pytest.fixture(scope="module")
def model() -> MiniLM:
    return MiniLM(model_files.read_weights())


@pytest.fixture(scope="module")
def sequences() -> list[list[int]]:
    tokenizer = Tokenizer.from_str(model_files.read_tokenizer())
    tokenizer.no_padding()
    tokenizer.enable_truncation(minilm.MAX_TOKENS)
    return [tokenizer.encode(entry["text"]).ids for entry in REFERENCE]


def test_every_vector_equals_the_one_that_torch_makes(model: MiniLM, sequences: list[list[int]]) -> None:
    vectors = np.concatenate([model.encode([sequence]) for sequence in sequences])

    np.testing.assert_allclose(vectors, [entry["vector"] for entry in REFERENCE], atol=2e-6, rtol=0)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_a_text_has_one_vector_whatever_it_is_packed_with(model: MiniLM, sequences: list[list[int]]) -> None:
    alone = np.concatenate([model.encode([sequence]) for sequence in sequences])

    together = model.encode(sequences)

    np.testing.assert_allclose(together, alone, atol=1e-6, rtol=0)


def test_threads_do_not_disturb_each_other(model: MiniLM, sequences: list[list[int]]) -> None:
    alone = [model.encode([sequence]) for sequence in sequences]
    wrong: list[int] = []

    def encode_all(first: int) -> None:
        for step in range(3 * len(sequences)):
            index = (first + step) % len(sequences)
            if not np.allclose(model.encode([sequences[index]]), alone[index], atol=1e-6):
                wrong.append(index)

    threads = [threading.Thread(target=encode_all, args=(first,)) for first in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


@pytest.mark.parametrize(
    "lengths",
    [
        pytest.param([], id="nothing"),
        pytest.param([3, 0], id="an empty sequence"),
        pytest.param([257], id="a sequence beyond the model"),
        pytest.param([256, 256, 1], id="more than one call takes"),
    ],
)
def test_what_does_not_fit_is_refused(model: MiniLM, lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="tokens each"):
        model.encode([[101] * length for length in lengths])


def test_gelu_is_exact_to_two_millionths() -> None:
    values = np.linspace(-12, 12, 40 * minilm.INTERMEDIATE, dtype=np.float32).reshape(40, -1)
    bias = np.full(minilm.INTERMEDIATE, 0.25, np.float32)
    exact = [x / 2 * (1 + math.erf(x / math.sqrt(2))) for x in (values + bias).ravel().tolist()]

    minilm.gelu(values, bias, np.empty((3, minilm.GELU_ROWS, minilm.INTERMEDIATE), np.float32))

    np.testing.assert_allclose(values.ravel(), exact, atol=2e-6, rtol=2e-6)


def test_attention_survives_scores_that_would_overflow(model: MiniLM, sequences: list[list[int]]) -> None:
    weights = dict(model_files.read_weights())
    for part in ("query", "key"):
        name = f"encoder.layer.0.attention.self.{part}.weight"
        weights[name] = weights[name] * np.float32(100)

    assert np.isfinite(MiniLM(weights).encode(sequences)).all()
