"""Checks the vectors that an embedding model answers, and remembers those of recent questions."""

from __future__ import annotations

import asyncio
import math
from array import array
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from uuid import UUID

from bonito.catalogue.embedding_models import cost_nano_usd
from bonito.errors import BonitoError, ProviderFailed, WrongDimensions
from bonito.providers import batching
from bonito.providers.base import EmbeddingModel, EmbeddingResult, Purpose, Usage

MAX_DIMENSIONS = 4_000  # of pgvector's indexed types: halfvec has an HNSW index up to this
# What Python keeps for an entry beside its vector: key, array, result, places in the order.
ENTRY_BYTES = 600


@dataclass(frozen=True)
class EmbeddedTexts:
    """What one call answered, checked.

    Attributes:
        place: which of the texts these are.
    """

    place: slice
    result: EmbeddingResult


async def embed_batches(
    model: EmbeddingModel,
    texts: Sequence[str],
    *,
    tokens: Sequence[int] | None = None,
    dimensions: int | None = None,
    purpose: Purpose = "document",
) -> AsyncIterator[EmbeddedTexts]:
    """Embed any number of texts, call by call: what was paid for can be stored before others fail (I15).

    Of calls that run at once those that succeed are answered first, then the first failure is raised.

    Args:
        model: whose bounds divide the texts into calls.
        texts: none is no call.
        tokens: of each text, rather too many than too few; None estimates them.
        dimensions: what every vector must have, as a generation has pinned it; None takes what the model says.
        purpose: whether the texts are searched, or ask.

    Raises:
        WrongDimensions: a vector is of another length.
        ProviderFailed: a vector is missing or unusable, or the provider failed.
        InvalidRequest, RateLimited, Overloaded, ProviderTimeout: as the model's `embed`.
    """
    calls = list(batching.calls(model, texts, tokens))
    for begin in range(0, len(calls), model.max_parallel):
        places = calls[begin : begin + model.max_parallel]
        outcomes = await asyncio.gather(
            *(model.embed(texts[place], purpose=purpose) for place in places), return_exceptions=True
        )
        failures: list[BaseException] = []
        for place, outcome in zip(places, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                failures.append(outcome)
                continue
            expected, count = dimensions or model.dimensions, place.stop - place.start
            try:
                check_vectors(outcome.vectors, model=model.name, count=count, dimensions=expected)
            except BonitoError as error:
                failures.append(error)
                continue
            dimensions = dimensions or len(outcome.vectors[0])
            yield EmbeddedTexts(place, outcome)
        if failures:
            raise failures[0]


def check_vectors(vectors: Sequence[array[float]], *, model: str, count: int, dimensions: int | None) -> None:
    """Refuse what could not be compared or would break an index.

    Raises:
        WrongDimensions: a vector has other dimensions than expected or than the others, or more than can be indexed.
        ProviderFailed: there is not one vector for each text; a number is not finite; or all of one are zero, which has
            no direction.
    """
    if len(vectors) != count:
        raise ProviderFailed(f"The embedding model {model} answered {len(vectors)} vectors for {count} texts.")
    for vector in vectors:
        dimensions = len(vector) if dimensions is None else dimensions
        if len(vector) != dimensions:
            raise WrongDimensions(
                f"The embedding model {model} answered a vector of {len(vector)} dimensions where {dimensions} are "
                "expected. A model that has changed needs a new generation of the knowledge base."
            )
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise WrongDimensions(
                f"The embedding model {model} makes vectors of {dimensions} dimensions; "
                f"1 to {MAX_DIMENSIONS} can be searched."
            )
        if not math.isfinite(sum(map(abs, vector))):
            raise ProviderFailed(f"The embedding model {model} answered a vector with numbers that are not finite.")
        if not any(vector):
            raise ProviderFailed(f"The embedding model {model} answered a vector of zeros.")


@dataclass(frozen=True)
class QueryEmbedding:
    """A question's vector, shared with other callers: not to be changed.

    Attributes:
        vector: of the model's dimensions.
        usage: of the call that was made for this caller; no tokens where none was.
        is_cached: no call was made for this caller: the vector was there, or somebody else was already asking.
        cost_nano_usd: of that call; None where the price is unknown.
    """

    vector: array[float]
    usage: Usage
    is_cached: bool
    cost_nano_usd: int | None


@dataclass
class Flight:
    """A call in progress and how many wait for it."""

    task: asyncio.Task[EmbeddingResult]
    waiting: int = 0


@dataclass(frozen=True)
class Key:
    """Whose question to which model; the text itself is not kept."""

    org_id: UUID
    model: str
    fingerprint: str
    dimensions: int | None
    text_hash: bytes


class QueryEmbeddings:
    """The vectors of recent questions, the least recently used ones forgotten first.

    Nothing is shared between organizations or models. Equal questions at the same time cause one call. A failure is
    told to all who wait for it and forgotten. For one event loop.
    """

    def __init__(self, *, max_entries: int = 10_000, max_bytes: int = 32 * 2**20) -> None:
        """Bound the memory; a bound of 0 remembers nothing."""
        self._max_entries, self._max_bytes = max_entries, max_bytes
        self._vectors: OrderedDict[Key, array[float]] = OrderedDict()
        self._bytes = 0
        self._flights: dict[Key, Flight] = {}

    async def embed(
        self, model: EmbeddingModel, text: str, *, org_id: UUID, dimensions: int | None = None
    ) -> QueryEmbedding:
        """The vector of a question; `dimensions` as in embed_batches.

        A caller that is cancelled leaves the call to the others who wait for it; the last one cancels it.

        Raises:
            InvalidRequest, ProviderFailed, RateLimited, ProviderTimeout: as embed_batches.
        """
        digest = sha256(text.encode(errors="surrogatepass")).digest()
        key = Key(org_id, model.name, model.fingerprint, dimensions or model.dimensions, digest)
        vector = self._vectors.get(key)
        if vector is not None:
            self._vectors.move_to_end(key)
            return QueryEmbedding(vector, Usage(input_tokens=0), is_cached=True, cost_nano_usd=0)
        is_first = key not in self._flights
        if is_first:
            self._depart(key, model, text, dimensions)
        result = await self._join(key)
        usage = result.usage if is_first else Usage(input_tokens=0)
        cost = cost_nano_usd(model.price_nano_usd, usage.input_tokens)
        return QueryEmbedding(result.vectors[0], usage, is_cached=not is_first, cost_nano_usd=cost)

    def _depart(self, key: Key, model: EmbeddingModel, text: str, dimensions: int | None) -> None:
        task = asyncio.create_task(_asked(model, text, dimensions))
        self._flights[key] = Flight(task)
        task.add_done_callback(lambda done: self._arrive(key, done))

    def _arrive(self, key: Key, task: asyncio.Task[EmbeddingResult]) -> None:
        """Remember what came; runs before those who wait for it."""
        if key in self._flights and self._flights[key].task is task:
            del self._flights[key]
        if not task.cancelled() and task.exception() is None:
            self._remember(key, task.result().vectors[0])

    async def _join(self, key: Key) -> EmbeddingResult:
        flight = self._flights[key]
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                flight.task.cancel()
                self._flights.pop(key, None)  # whoever comes now asks anew

    def _remember(self, key: Key, vector: array[float]) -> None:
        if key not in self._vectors:
            self._vectors[key] = vector
            self._bytes += _size(vector)
        while self._vectors and (len(self._vectors) > self._max_entries or self._bytes > self._max_bytes):
            _, forgotten = self._vectors.popitem(last=False)
            self._bytes -= _size(forgotten)


def _size(vector: array[float]) -> int:
    return vector.itemsize * len(vector) + ENTRY_BYTES


async def _asked(model: EmbeddingModel, question: str, dimensions: int | None) -> EmbeddingResult:
    result = await model.embed([question], purpose="query")
    check_vectors(result.vectors, model=model.name, count=1, dimensions=dimensions or model.dimensions)
    return result
