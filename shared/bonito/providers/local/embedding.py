"""`local/all-minilm-l6-v2`: embeddings on this machine's processor, without a key, a network or torch."""

from __future__ import annotations

import asyncio
import os
import threading
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from bonito.errors import InvalidRequest
from bonito.providers.base import EmbeddingResult, Purpose, Usage
from bonito.providers.local import model_files

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from bonito.providers.local.minilm import MiniLM

Result = TypeVar("Result")

NAME = "local/all-minilm-l6-v2"
DIMENSIONS = 384
MAX_INPUT_TOKENS = 256  # [CLS] and [SEP] included
MAX_BATCH = 64
# A call of fewer characters is a question: it is answered beside the batches, not after them.
QUESTION_CHARACTERS = 4_000
MAX_TEXT_CHARACTERS = 65_536


class LocalEmbeddingModel:
    """EmbeddingModel over all-MiniLM-L6-v2. Nothing is read before the first call or `load`.

    A text is read up to 256 tokens. Batches take turns on `threads` threads, in pieces of some 0.1 s; questions have a
    thread of their own, and the processor's scheduler divides. A call that is cancelled gives up its pieces that have
    not begun. Safe for one event loop; close it when done.
    """

    name = NAME
    max_input_tokens = MAX_INPUT_TOKENS
    max_batch = MAX_BATCH
    max_batch_tokens = MAX_BATCH * MAX_INPUT_TOKENS
    max_parallel = 1
    price_nano_usd: int | None = 0
    fingerprint = f"sha256:{model_files.WEIGHTS_SHA256}"

    def __init__(self, *, threads: int | None = None) -> None:
        """Prepare; `threads` for batches, >= 1; None leaves one core to everything else."""
        self.dimensions: int | None = DIMENSIONS
        count = max(1, _cores() - 1) if threads is None else threads
        self._batches = ThreadPoolExecutor(count, thread_name_prefix="embed-batch")
        self._questions = ThreadPoolExecutor(1, thread_name_prefix="embed-question")
        self._loading = threading.Lock()
        self._loaded: tuple[Tokenizer, MiniLM] | None = None

    async def load(self) -> None:
        """Read the model now, so that the first question need not wait; ModelNotFound when it is not there."""
        await asyncio.get_running_loop().run_in_executor(self._questions, self._load)

    async def embed(self, texts: Sequence[str], *, purpose: Purpose = "document") -> EmbeddingResult:
        """Embed up to `max_batch` texts; of each, the first 256 tokens count, and the model knows no purposes.

        Raises:
            InvalidRequest: more texts than that.
            ModelNotFound: the model's files are missing, or not the pinned ones.
        """
        if len(texts) > self.max_batch:
            raise InvalidRequest(f"{self.name} embeds at most {self.max_batch} texts at once, got {len(texts)}.")
        is_question = sum(map(len, texts)) < QUESTION_CHARACTERS
        threads = self._questions if is_question else self._batches
        loop = asyncio.get_running_loop()
        sequences = await loop.run_in_executor(threads, self._tokenize, texts)
        packs = _packs([len(sequence) for sequence in sequences])
        results = await _all([loop.run_in_executor(threads, self._encode, sequences[pack]) for pack in packs])
        vectors = tuple(vector for result in results for vector in result)
        return EmbeddingResult(vectors, Usage(input_tokens=sum(map(len, sequences))))

    def close(self) -> None:
        """End the threads after the pieces in work."""
        self._batches.shutdown(wait=False, cancel_futures=True)
        self._questions.shutdown(wait=False, cancel_futures=True)

    def _load(self) -> tuple[Tokenizer, MiniLM]:
        """The model, read by whoever comes first; a failure is tried again by the next."""
        with self._loading:
            if self._loaded is None:
                from tokenizers import Tokenizer

                from bonito.providers.local.minilm import MiniLM

                tokenizer = Tokenizer.from_str(model_files.read_tokenizer())
                tokenizer.no_padding()
                tokenizer.enable_truncation(MAX_INPUT_TOKENS)
                self._loaded = tokenizer, MiniLM(model_files.read_weights())
            return self._loaded

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        # Lone surrogates have no UTF-8. The bound keeps a text of megabytes from being read for its first 256 tokens.
        readable = [text[:MAX_TEXT_CHARACTERS].encode(errors="replace").decode() for text in texts]
        return [encoding.ids for encoding in self._load()[0].encode_batch_fast(readable)]

    def _encode(self, sequences: Sequence[Sequence[int]]) -> list[array[float]]:
        return [array("f", row.tobytes()) for row in self._load()[1].encode(sequences)]


def _cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _packs(lengths: Sequence[int]) -> Iterator[slice]:
    """Runs of neighbours, in order, that one call of the model takes."""
    from bonito.providers.local.minilm import MAX_PACKED_TOKENS

    start = size = 0
    for index, length in enumerate(lengths):
        if size + length > MAX_PACKED_TOKENS:
            yield slice(start, index)
            start, size = index, 0
        size += length
    if start < len(lengths):
        yield slice(start, len(lengths))


async def _all(pieces: Sequence[asyncio.Future[Result]]) -> list[Result]:
    """The results in order; when one fails or the caller is cancelled, pieces that have not begun never do."""
    try:
        return await asyncio.gather(*pieces)
    finally:
        for piece in pieces:
            piece.cancel()
