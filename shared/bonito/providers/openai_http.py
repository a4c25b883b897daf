"""Any endpoint that speaks OpenAI's dialect over HTTP: bytes in, bytes out, errors typed."""

from __future__ import annotations

import base64
import json
import re
import sys
from array import array
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from bonito.catalogue import embedding_models
from bonito.egress import client as egress
from bonito.errors import BonitoError, InvalidRequest, ProviderFailed, ProviderTimeout, WrongDimensions
from bonito.providers.base import EmbeddingResult, ProviderRequest, ProviderResponse, Purpose, Usage
from bonito.providers.refusals import refusal

if TYPE_CHECKING:
    from aiohttp import ClientResponse

PATHS = {"chat.completions": "/chat/completions", "completions": "/completions", "embeddings": "/embeddings"}
JSON, EVENT_STREAM = "application/json", "text/event-stream"
IDLE_TIMEOUT_S = 120.0  # between two pieces of a body; models that think send comments or nothing for tens of seconds
MAX_ANSWER_BYTES = 128 * 2**20
MAX_ERROR_BYTES = 256 * 1024
ERROR_TIMEOUT_S = 10.0
MODELS_TIMEOUT_S = 30.0
MAX_MODELS = 10_000
HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
HEADER_VALUE = re.compile(r"[\x20-\x7e\t]*")
# What belongs to a connection or is set here.
RESERVED_HEADERS = frozenset(
    {
        "host",
        "content-length",
        "content-type",
        "transfer-encoding",
        "connection",
        "accept",
        "accept-encoding",
        "upgrade",
        "te",
    }
)

# Of a caller's headers these never reach a provider: they are credentials for us.
PRIVATE_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "api-key", "x-api-key"})

UNKNOWN_MAX_INPUT_TOKENS = 512  # what BERT's descendants read
MAX_BATCH = 256
MAX_BATCH_TOKENS = 300_000  # OpenAI refuses more in one request ("Create embeddings" in its API reference)
MAX_EMBEDDINGS_BYTES = 64 * 2**20
EMBEDDINGS_TIMEOUT_S = 60.0


class OpenAIProvider:
    """Provider over one base URL with one credential."""

    def __init__(
        self,
        client: egress.EgressClient,
        *,
        name: str,
        base_url: str,
        api_key: str | None = None,
        organization: str | None = None,
        headers: Mapping[str, str] | None = None,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
    ) -> None:
        """Check what can be checked without a connection.

        Args:
            client: the guard that all requests go through.
            name: the provider's name in its organization.
            base_url: up to and with `/v1`; a query in it is kept.
            api_key: sent as a bearer token; None for endpoints without.
            organization: OpenAI's own header of that name.
            headers: sent with every request, besides; they may hold credentials too.
            idle_timeout_s: the longest silence inside a body.

        Raises:
            AddressNotAllowed: the base URL.
            InvalidRequest: a key or header that HTTP cannot carry.
        """
        self.name = name
        self._client, self._idle_timeout_s = client, idle_timeout_s
        self._base = client.policy.parse(base_url)
        self._headers = _credential_headers(api_key, organization, headers or {})
        self._secrets = tuple(value for value in (api_key, *(headers or {}).values()) if value)

    @property
    def base_url(self) -> str:
        """Where this provider is, in canonical form and without a query, which may hold a credential."""
        return str(self._base.url.with_query(None)).rstrip("/")

    async def call(self, request: ProviderRequest) -> RelayedResponse:
        """Send the body as it is and wait for the head; the errors are those of `Provider.call`."""
        path = PATHS.get(request.operation)
        if path is None:
            raise InvalidRequest(f"The provider {self.name} has no operation {request.operation}.")
        headers = {
            **_callers_headers(request.headers),
            **self._headers,
            "content-type": JSON,
            "accept": EVENT_STREAM if request.is_stream else JSON,
        }
        response = await self._send("POST", path, headers=headers, body=request.body, timeout_s=request.timeout_s)
        return RelayedResponse(response, content_type=self._content_type(response), idle_timeout_s=self._idle_timeout_s)

    async def models(self) -> list[str]:
        """The ids of `GET /models`, in the provider's order."""
        response = await self._send(
            "GET", "/models", headers={**self._headers, "accept": JSON}, body=None, timeout_s=MODELS_TIMEOUT_S
        )
        try:
            self._content_type(response)
            listed = json.loads(await egress.read(response, idle_timeout_s=MODELS_TIMEOUT_S))
            return [str(model["id"]) for model in listed["data"][:MAX_MODELS]]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ProviderFailed(f"The provider {self.name} answered with no list of models.") from error
        finally:
            response.close()

    async def _send(
        self, method: str, path: str, *, headers: Mapping[str, str], body: bytes | None, timeout_s: float
    ) -> ClientResponse:
        target = self._base.below(path)
        response = await self._client.send(method, target, headers=headers, body=body, timeout_s=timeout_s)
        if 200 <= response.status < 300:
            return response
        try:
            raise await self._refusal(response)
        finally:
            response.close()

    async def _refusal(self, response: ClientResponse) -> BonitoError:
        """The typed error of an answer; its body is read as far as it comes."""
        try:
            body = await egress.read(response, max_bytes=MAX_ERROR_BYTES, idle_timeout_s=ERROR_TIMEOUT_S)
        except (ProviderFailed, ProviderTimeout):
            body = b""
        return refusal(
            self.name,
            status=response.status,
            headers={name.lower(): value for name, value in response.headers.items()},
            body=body,
            now=datetime.now(UTC),
            secrets=self._secrets,
        )

    def _content_type(self, response: ClientResponse) -> str:
        """Which of the two kinds of answer this is; ProviderFailed for pages, compressed bodies and all else."""
        encoding = response.headers.get("content-encoding", "identity")
        kind = response.content_type.lower()
        if encoding.lower() not in ("identity", ""):
            problem = f"with a body in the encoding {encoding[:20]!r}, which was not asked for"
        elif "content-type" not in response.headers:
            problem = "without saying what kind of body it is"
        elif kind == EVENT_STREAM:
            return EVENT_STREAM
        elif kind == JSON or kind.endswith("+json"):
            return JSON
        else:
            problem = f"with {kind[:40]!r} where JSON or an event stream was expected; is the base URL right?"
        response.close()
        raise ProviderFailed(f"The provider {self.name} answered {problem}.")


class RelayedResponse:
    """ProviderResponse whose bytes are passed on as they arrive."""

    def __init__(self, response: ClientResponse, *, content_type: str, idle_timeout_s: float) -> None:
        self.status = response.status
        self.content_type = content_type
        self._response, self._idle_timeout_s = response, idle_timeout_s

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes; ProviderFailed when it breaks or never ends, ProviderTimeout after a long silence."""
        size = 0
        async for piece in egress.chunks(self._response, idle_timeout_s=self._idle_timeout_s):
            size += len(piece)
            if size > MAX_ANSWER_BYTES:
                self._response.close()
                raise ProviderFailed(f"The provider's answer is above {MAX_ANSWER_BYTES} bytes.")
            yield piece

    async def aclose(self) -> None:
        """Keep the connection when the body was read to its end; otherwise close it, which cancels the call."""
        self._response.close()


class EmbeddingEndpoint(Protocol):
    """A provider that embeds, and where it is: a name alone does not tell which weights it serves."""

    name: str

    @property
    def base_url(self) -> str:
        """Its address, or what else tells it from others."""
        ...

    async def call(self, request: ProviderRequest) -> ProviderResponse:
        """As `Provider.call`."""
        ...


class OpenAIEmbeddingModel:
    """EmbeddingModel over an endpoint's `/embeddings`."""

    def __init__(
        self,
        provider: EmbeddingEndpoint,
        model: str,
        *,
        dimensions: int | None = None,
        max_input_tokens: int | None = None,
        max_batch: int = MAX_BATCH,
        price_nano_usd: int | None = None,
        timeout_s: float = EMBEDDINGS_TIMEOUT_S,
    ) -> None:
        """Bind a model to a provider; one of OpenAI's names is taken for OpenAI's model, wherever it is.

        Args:
            provider: whose credential pays.
            model: as the provider names it.
            dimensions: asked of the model, which must be able to shorten its vectors; None takes them as they are.
            max_input_tokens: None takes what is known of the model, or a size that every model reads.
            max_batch: most texts of one call.
            price_nano_usd: of a million tokens; None where it is unknown.
            timeout_s: until the head of each answer.
        """
        known = embedding_models.find("openai", model)
        self.name = f"{provider.name}/{model}"
        self.dimensions = dimensions or known.dimensions
        self.max_input_tokens = max_input_tokens or known.max_input_tokens or UNKNOWN_MAX_INPUT_TOKENS
        self.max_batch, self.max_batch_tokens, self.max_parallel = max_batch, MAX_BATCH_TOKENS, 1
        self.price_nano_usd = price_nano_usd
        # The address is part of it: a name alone does not tell which weights a server of one's own holds.
        self.fingerprint = f"{provider.base_url} {model}" + (f" {dimensions}" if dimensions else "")
        self._provider, self._model, self._timeout_s = provider, model, timeout_s
        self._asked_dimensions = dimensions
        self._is_base64: bool | None = None  # whether the server understands it; None before its first answer

    async def embed(self, texts: Sequence[str], *, purpose: Purpose = "document") -> EmbeddingResult:
        """Embed up to `max_batch` texts; the dialect has no purposes.

        Raises:
            InvalidRequest: the provider refused the texts or the model.
            RateLimited: its 429, with its Retry-After.
            WrongDimensions: a vector is of another length than was asked for, is known, or came before.
            ProviderFailed: any other refusal, or an answer without one vector for each text.
            ProviderTimeout: no answer in time.
        """
        if len(texts) > self.max_batch:
            raise ValueError(f"at most {self.max_batch} texts at once, got {len(texts)}")
        if not texts:
            return EmbeddingResult((), Usage(input_tokens=0))
        vectors, tokens = await self._embed(texts)
        return EmbeddingResult(tuple(vectors), Usage(input_tokens=tokens))

    async def _embed(self, texts: Sequence[str]) -> tuple[list[array[float]], int | None]:
        try:
            answer = await self._ask(texts, is_base64=self._is_base64 is not False)
        except InvalidRequest:
            if self._is_base64 is not None:
                raise
            # A server may refuse the format; when it refuses the plain request too, that is the error to show.
            answer = await self._ask(texts, is_base64=False)
            self._is_base64 = False
        vectors = _vectors(answer, count=len(texts), provider=self._provider.name)
        if self._is_base64 is None:
            self._is_base64 = True
        self._check_dimensions(vectors)
        usage = answer.get("usage")
        tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        return vectors, tokens if isinstance(tokens, int) else None

    async def _ask(self, texts: Sequence[str], *, is_base64: bool) -> dict[str, Any]:
        body: dict[str, object] = {"model": self._model, "input": list(texts)}
        if is_base64:
            body["encoding_format"] = "base64"
        if self._asked_dimensions:
            body["dimensions"] = self._asked_dimensions
        request = ProviderRequest("embeddings", json.dumps(body).encode(), timeout_s=self._timeout_s)
        response = await self._provider.call(request)
        answer = bytearray()
        try:
            async for piece in response.chunks():
                answer += piece
                if len(answer) > MAX_EMBEDDINGS_BYTES:
                    raise ProviderFailed(f"The provider {self._provider.name} answered with too many embeddings.")
            parsed = json.loads(answer)
        except (ValueError, RecursionError) as error:
            raise ProviderFailed(f"The provider {self._provider.name} answered with no JSON.") from error
        finally:
            await response.aclose()
        return parsed if isinstance(parsed, dict) else {}

    def _check_dimensions(self, vectors: Sequence[array[float]]) -> None:
        """Every vector is as long as all before; the first ones tell where nothing was known."""
        if self.dimensions is None and vectors:
            self.dimensions = len(vectors[0])
        wrong = next((len(vector) for vector in vectors if len(vector) != self.dimensions), None)
        if wrong is not None:
            raise WrongDimensions(f"{self.name} answered a vector of {wrong} dimensions instead of {self.dimensions}.")


def _vectors(answer: Mapping[str, Any], *, count: int, provider: str) -> list[array[float]]:
    """The vectors by `index`; where no entry has one, in the order of the answer."""
    try:
        entries = answer["data"]
        by_index = {int(entry.get("index", place)): entry["embedding"] for place, entry in enumerate(entries)}
        if len(entries) != count or sorted(by_index) != list(range(count)):
            raise ProviderFailed(f"The provider {provider} answered {len(entries)} vectors for {count} texts.")
        return [_vector(by_index[index]) for index in range(count)]
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ProviderFailed(f"The provider {provider} answered with no embeddings.") from error


def _vector(embedding: object) -> array[float]:
    """From base64 of little-endian 32-bit floats, or from a list of numbers; ValueError, TypeError."""
    vector = array("f")
    if isinstance(embedding, str):
        vector.frombytes(base64.b64decode(embedding, validate=True))
        if sys.byteorder == "big":
            vector.byteswap()
    elif isinstance(embedding, list):
        vector.extend(embedding)
    if not vector:
        raise ValueError("an embedding without numbers")
    return vector


def _callers_headers(headers: Mapping[str, str]) -> dict[str, str]:
    lowered = {name.lower(): value for name, value in headers.items()}
    return {name: value for name, value in lowered.items() if name not in RESERVED_HEADERS | PRIVATE_HEADERS}


def _credential_headers(api_key: str | None, organization: str | None, headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of every request; an error names the header and never its value."""
    sent = {name.lower(): value for name, value in headers.items()}
    if api_key and api_key.strip():
        sent["authorization"] = f"Bearer {api_key.strip()}"
    if organization:
        sent["openai-organization"] = organization
    for name, value in sent.items():
        if not HEADER_NAME.fullmatch(name) or name in RESERVED_HEADERS:
            raise InvalidRequest(f"A provider cannot be called with the header {name[:60]!r}.", param="headers")
        if not HEADER_VALUE.fullmatch(value):
            what = "The key" if name == "authorization" else f"The header {name}"
            raise InvalidRequest(f"{what} holds characters that HTTP cannot carry.", param="credential")
    return sent
