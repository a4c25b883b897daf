"""What the gateway and the knowledge layer ask of a provider; the values that pass between them."""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable
from uuid import UUID

# Some models embed a question otherwise than what answers it.
Purpose = Literal["document", "query"]


@dataclass(frozen=True)
class Usage:
    """Tokens as the provider reported them; None where it did not."""

    input_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(frozen=True)
class EmbeddingResult:
    """Vectors in the order of the texts, each `array('f')` of the model's dimensions, and what was read."""

    vectors: tuple[array[float], ...]
    usage: Usage = field(default_factory=Usage)


class EmbeddingModel(Protocol):
    """Turns texts into vectors; bound to one organization's provider and credential.

    Attributes:
        name: as a caller names it, `provider/model`.
        dimensions: length of every vector; None until the first answer tells.
        max_input_tokens: the model reads no more of a text than this.
        max_batch: most texts of one call.
        max_batch_tokens: most tokens of the texts of one call together; a text above it goes alone.
        max_parallel: calls at once that a caller with many texts should make; above 1 where a call takes few.
        price_nano_usd: of a million tokens; None where it is unknown, 0 for models of this process.
        fingerprint: changes whenever vectors of before and after could not be compared.
    """

    name: str
    dimensions: int | None
    max_input_tokens: int
    max_batch: int
    max_batch_tokens: int
    max_parallel: int
    price_nano_usd: int | None
    fingerprint: str

    async def embed(self, texts: Sequence[str], *, purpose: Purpose = "document") -> EmbeddingResult:
        """Embed up to `max_batch` texts, as what is searched or as what asks.

        Raises:
            InvalidRequest: the provider refused the texts or the model.
            RateLimited: its limit, with its Retry-After where it tells one.
            Overloaded: a limit that the organization set for the provider leaves no room before `retry_after_s`.
            ProviderFailed, ProviderTimeout: no usable answer.
        """
        ...


class EmbeddingModels(Protocol):
    """Finds an organization's embedding models by name; never a platform's own key (I17)."""

    async def embedding_model(self, org_id: UUID, name: str) -> EmbeddingModel:
        """The model of that name, or for `auto` the organization's choice; ModelNotFound says what to configure."""
        ...


@dataclass(frozen=True)
class ProviderRequest:
    """One call: the caller's JSON with the private field gone and `model` as the provider names it."""

    operation: str  # chat.completions, embeddings
    body: bytes
    is_stream: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 600.0


class ProviderResponse(Protocol):
    """An answer whose head has arrived. Closing it early cancels the call at the provider.

    Attributes:
        status: 200 <= status < 300; every other status is raised as a typed error by `call`.
        content_type: `application/json` or `text/event-stream`.
    """

    status: int
    content_type: str

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, in whatever pieces; ProviderFailed when the stream breaks."""
        ...

    async def aclose(self) -> None:
        """Release the connection; before the end of the body, cancel the call."""
        ...


class Provider(Protocol):
    """One vendor API under one organization's credential, speaking OpenAI's dialect towards us."""

    name: str

    async def call(self, request: ProviderRequest) -> ProviderResponse:
        """Send and wait for the head.

        Raises:
            InvalidRequest: the provider refused the request itself (its 400, 404, 413 or 422).
            ModelNotFound: it has no such model.
            RateLimited: its 429, with its Retry-After.
            ProviderFailed: any other refusal, a broken connection, or no answer in its dialect.
            ProviderTimeout: no head within `timeout_s`.
        """
        ...

    async def models(self) -> list[str]:
        """The models that this credential may call, as the provider names them."""
        ...


@runtime_checkable
class Embedder(Protocol):
    """A provider whose embedding models have a client of their own, beside OpenAI's dialect."""

    def embedding_model(self, model: str) -> EmbeddingModel:
        """The model that the provider knows by that name; ModelNotFound where it cannot embed."""
        ...
