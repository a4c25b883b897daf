"""all-MiniLM-L6-v2 in numpy: token ids in, unit vectors out, equal to torch's to some 1e-7.

Sequences are packed end to end instead of padded: the dense layers see one matrix of all their tokens, attention takes
one sequence after the other, and no mask is needed. What is not a matrix product works in place, on pieces that fit
into a core's cache. One call runs on one thread; several threads may call at once.
"""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TypeAlias

    import numpy as np
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float32]

DIMENSIONS = 384
LAYERS = 6
HEADS = 12
HEAD_DIMENSIONS = DIMENSIONS // HEADS
INTERMEDIATE = 1536
MAX_TOKENS = 256  # of one sequence, [CLS] and [SEP] included: what the model was trained to read
MAX_PACKED_TOKENS = 512  # of one call: with more, nothing gets faster
LAYER_NORM_EPSILON = 1e-12
GELU_ROWS = 32  # x 1,536 x 4 bytes: the three pieces in work stay in a core's second-level cache

# GELU(x) = x/2 · (1 + tanh(g(x))), exact where g(x) = atanh(erf(x/√2)). These are the coefficients of x, x³ … x¹¹ of
# g, by least squares weighted with GELU's slope in g: wrong by at most 1.1e-6. Beyond the bound tanh is ±1.
GELU_COEFFICIENTS = (
    7.978729336e-01,
    3.636491140e-02,
    -5.735192356e-05,
    -4.739900966e-05,
    2.812570053e-06,
    -5.711215298e-08,
)
GELU_BOUND = 5.5

OPENBLAS_SETTERS = (
    "scipy_openblas_set_num_threads64_",
    "scipy_openblas_set_num_threads",
    "openblas_set_num_threads64_",
    "openblas_set_num_threads",
)


@dataclass(frozen=True)
class Dense:
    """x · weight + bias; weight is (inputs, outputs), contiguous: for short texts twice as fast as its transpose."""

    weight: Floats
    bias: Floats


@dataclass(frozen=True)
class Norm:
    """LayerNorm's scale and shift, each (DIMENSIONS,)."""

    scale: Floats
    shift: Floats


@dataclass(frozen=True)
class Layer:
    """One encoder layer; `queries_keys_values` are the three side by side, the queries already scaled by 1/√32."""

    queries_keys_values: Dense
    attention_output: Dense
    attention_norm: Norm
    intermediate: Dense
    output: Dense
    output_norm: Norm


class Scratch(threading.local):
    """The buffers of one thread, taken once: fresh ones of this size would cost a page fault for every 4 KiB."""

    def __init__(self) -> None:
        import numpy as np

        self.states = np.empty((MAX_PACKED_TOKENS, DIMENSIONS), np.float32)
        self.change = np.empty((MAX_PACKED_TOKENS, DIMENSIONS), np.float32)
        self.context = np.empty((MAX_PACKED_TOKENS, DIMENSIONS), np.float32)
        self.queries_keys_values = np.empty((MAX_PACKED_TOKENS, 3 * DIMENSIONS), np.float32)
        self.intermediate = np.empty((MAX_PACKED_TOKENS, INTERMEDIATE), np.float32)
        self.scores = np.empty(HEADS * MAX_TOKENS * MAX_TOKENS, np.float32)
        self.gelu = np.empty((3, GELU_ROWS, INTERMEDIATE), np.float32)


class MiniLM:
    """The encoder with mean pooling and normalization, as sentence-transformers runs it."""

    def __init__(self, weights: Mapping[str, Floats]) -> None:
        """Take the weights by their names in the published safetensors file; the word embeddings stay as they come."""
        import numpy as np

        use_one_blas_thread()
        self._words = weights["embeddings.word_embeddings.weight"]
        types = weights["embeddings.token_type_embeddings.weight"]
        self._positions = np.asarray(weights["embeddings.position_embeddings.weight"][:MAX_TOKENS] + types[0])
        self._norm = _norm(weights, "embeddings")
        self._layers = tuple(_layer(weights, f"encoder.layer.{number}") for number in range(LAYERS))
        self._scratch = Scratch()

    def encode(self, sequences: Sequence[Sequence[int]]) -> Floats:
        """Embed token ids.

        Args:
            sequences: one or more, each of 1 to MAX_TOKENS ids with the special ones, MAX_PACKED_TOKENS in all.

        Returns:
            One row per sequence, DIMENSIONS wide and of length 1.

        Raises:
            ValueError: a sequence is empty or too long, or they are too long together. A programming error.
        """
        import numpy as np

        lengths = [len(sequence) for sequence in sequences]
        total = sum(lengths)
        if not lengths or min(lengths) < 1 or max(lengths) > MAX_TOKENS or total > MAX_PACKED_TOKENS:
            raise ValueError(f"1 to {MAX_TOKENS} tokens each and {MAX_PACKED_TOKENS} together, got {lengths}")
        bounds = [0, *np.cumsum(lengths).tolist()]
        scratch = self._scratch
        states, change = scratch.states[:total], scratch.change[:total]
        states[...] = self._words[np.concatenate([np.asarray(ids) for ids in sequences])]
        for start, end in pairwise(bounds):
            states[start:end] += self._positions[: end - start]
        _normalize(states, self._norm, change)
        for layer in self._layers:
            _attend(layer, states, change, bounds, scratch)
            _transform(layer, states, change, scratch)
        means = np.add.reduceat(states, bounds[:-1], axis=0)  # the sum will do: the length is taken off anyway
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        return means


def gelu(values: Floats, bias: Floats, pieces: Floats) -> None:
    """Do values ← GELU(values + bias) in place; wrong by at most 2e-6.

    Args:
        values: (rows, INTERMEDIATE).
        bias: (INTERMEDIATE,).
        pieces: room to work in, (3, GELU_ROWS, INTERMEDIATE).
    """
    import numpy as np

    highest, *lower = reversed(GELU_COEFFICIENTS)
    for start in range(0, len(values), GELU_ROWS):
        x = values[start : start + GELU_ROWS]
        bounded, square, result = pieces[:, : len(x)]
        x += bias
        np.clip(x, -GELU_BOUND, GELU_BOUND, out=bounded)
        np.multiply(bounded, bounded, out=square)
        np.multiply(square, highest, out=result)
        for coefficient in lower[:-1]:
            result += coefficient
            result *= square
        result += lower[-1]
        result *= bounded
        np.tanh(result, out=result)
        result += 1
        result *= 0.5
        x *= result


def use_one_blas_thread() -> None:
    """Let every matrix product run on the thread that asks for it.

    OpenBLAS would start a thread per core for each product and wait for the slowest in a busy loop: beside other work
    on two cores that made 5 chunks a second where one thread made 12. Whole calls run side by side instead. A numpy
    without OpenBLAS (macOS's Accelerate, MKL) is left as it is.
    """
    import numpy as np

    folder = Path(np.__file__).parent
    for library in (*folder.parent.glob("numpy.libs/*openblas*"), *folder.glob(".dylibs/*openblas*")):
        loaded = ctypes.CDLL(str(library))
        for name in OPENBLAS_SETTERS:
            if hasattr(loaded, name):
                getattr(loaded, name)(1)


def _attend(layer: Layer, states: Floats, change: Floats, bounds: Sequence[int], scratch: Scratch) -> None:
    """Do states ← LayerNorm(states + attention(states)), each sequence between two bounds for itself."""
    import numpy as np

    projected, context = scratch.queries_keys_values[: len(states)], scratch.context[: len(states)]
    np.matmul(states, layer.queries_keys_values.weight, out=projected)
    projected += layer.queries_keys_values.bias
    for start, end in pairwise(bounds):
        length = end - start
        heads = projected[start:end].reshape(length, 3, HEADS, HEAD_DIMENSIONS)
        scores = scratch.scores[: HEADS * length * length].reshape(HEADS, length, length)
        np.matmul(heads[:, 0].transpose(1, 0, 2), heads[:, 1].transpose(1, 2, 0), out=scores)
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        mixed = np.matmul(scores, heads[:, 2].transpose(1, 0, 2))
        mixed /= scores.sum(axis=-1, keepdims=True)
        context[start:end].reshape(length, HEADS, HEAD_DIMENSIONS)[...] = mixed.transpose(1, 0, 2)
    np.matmul(context, layer.attention_output.weight, out=change)
    states += change
    states += layer.attention_output.bias
    _normalize(states, layer.attention_norm, change)


def _transform(layer: Layer, states: Floats, change: Floats, scratch: Scratch) -> None:
    """Do states ← LayerNorm(states + dense(GELU(dense(states))))."""
    import numpy as np

    hidden = scratch.intermediate[: len(states)]
    np.matmul(states, layer.intermediate.weight, out=hidden)
    gelu(hidden, layer.intermediate.bias, scratch.gelu)
    np.matmul(hidden, layer.output.weight, out=change)
    states += change
    states += layer.output.bias
    _normalize(states, layer.output_norm, change)


def _normalize(states: Floats, norm: Norm, room: Floats) -> None:
    """Do states ← LayerNorm(states) in place; `room` is overwritten."""
    import numpy as np

    states -= states.mean(axis=-1, keepdims=True)
    np.multiply(states, states, out=room)
    deviation = room.mean(axis=-1, keepdims=True)
    deviation += LAYER_NORM_EPSILON
    states /= np.sqrt(deviation, out=deviation)
    states *= norm.scale
    states += norm.shift


def _layer(weights: Mapping[str, Floats], name: str) -> Layer:
    import numpy as np

    queries, keys, values = (_dense(weights, f"{name}.attention.self.{part}") for part in ("query", "key", "value"))
    scale = np.float32(1 / math.sqrt(HEAD_DIMENSIONS))
    return Layer(
        queries_keys_values=Dense(
            np.concatenate([queries.weight * scale, keys.weight, values.weight], axis=1),
            np.concatenate([queries.bias * scale, keys.bias, values.bias]),
        ),
        attention_output=_dense(weights, f"{name}.attention.output.dense"),
        attention_norm=_norm(weights, f"{name}.attention.output"),
        intermediate=_dense(weights, f"{name}.intermediate.dense"),
        output=_dense(weights, f"{name}.output.dense"),
        output_norm=_norm(weights, f"{name}.output"),
    )


def _dense(weights: Mapping[str, Floats], name: str) -> Dense:
    import numpy as np

    return Dense(np.ascontiguousarray(weights[f"{name}.weight"].T), np.array(weights[f"{name}.bias"]))


def _norm(weights: Mapping[str, Floats], name: str) -> Norm:
    import numpy as np

    return Norm(np.array(weights[f"{name}.LayerNorm.weight"]), np.array(weights[f"{name}.LayerNorm.bias"]))
