"""Vertex AI over plain HTTPS: Google's text embedding models.

Requests, answers and limits as in "Text embeddings API" and "Get text embeddings" of its documentation.
"""

from __future__ import annotations

import asyncio
import json
import re
from array import array
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from bonito.catalogue import embedding_models
from bonito.clouds.access import TokenAccess
from bonito.egress.client import EgressClient
from bonito.errors import AccessDenied, BonitoError, InvalidRequest, ModelNotFound, ProviderFailed, RateLimited
from bonito.providers import embedding_answers
from bonito.providers.answers import GeneratedResponse
from bonito.providers.base import EmbeddingModel, EmbeddingResult, ProviderRequest, Purpose, Usage
from bonito.providers.exchanges import Answer, exchange, vector_of
from bonito.providers.refusals import refusal

REGION = re.compile(r"[a-z]+-[a-z]+\d{1,2}|global")
PROJECT = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]")
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
# The names of the API's models; each may have a version after @.
MODEL = re.compile(r"(?:gemini-embedding|text-embedding|text-multilingual-embedding)-[a-z0-9-]+(?:@[a-z0-9-]+)?")
OFFERED = ("text-embedding-005", "text-multilingual-embedding-002", "gemini-embedding-001")
ONE_A_CALL = "gemini-embedding"
TASK_TYPES: Mapping[Purpose, str] = {"document": "RETRIEVAL_DOCUMENT", "query": "RETRIEVAL_QUERY"}
MAX_BATCH, MAX_BATCH_TOKENS, MAX_INPUT_TOKENS = 250, 20_000, 2048
GEMINI_PARALLEL = 8
TIMEOUT_S = 60.0
PROBE = "Bonito"
MAX_PROBES = 10
RETRY_DELAY = re.compile(r"(\d{1,5}(?:\.\d{1,9})?)s")


class VertexProvider:
    """Provider over one location of a Google Cloud project. It embeds; it does not answer chats."""

    def __init__(
        self,
        client: EgressClient,
        *,
        name: str,
        project: str,
        region: str,
        access: TokenAccess,
        models: Sequence[str] = (),
        endpoint_url: str | None = None,
    ) -> None:
        """Check what can be checked without a connection.

        Args:
            client: the guard that all requests go through.
            name: the provider's name in its organization.
            project: the id of the project that pays.
            region: `europe-west4`, or `global`; becomes a part of the host's name.
            access: to the project.
            models: what may be called; empty is all that Google offers.
            endpoint_url: in place of Google's host.

        Raises:
            InvalidRequest: no name of a region, or no id of a project.
        """
        if not REGION.fullmatch(region):
            raise InvalidRequest(
                "region must be the name of a Google Cloud region, like europe-west4, or global.", param="region"
            )
        if not PROJECT.fullmatch(project):
            raise InvalidRequest("project must be the id of a Google Cloud project.", param="credential")
        host = "aiplatform.googleapis.com" if region == "global" else f"{region}-aiplatform.googleapis.com"
        self.name, self.project = name, project
        self._client, self._access, self._models = client, access, tuple(models)
        base = client.policy.parse(endpoint_url or f"https://{host}")
        self._publisher = base.below(f"/v1/projects/{project}/locations/{region}/publishers/google")

    async def call(self, request: ProviderRequest) -> GeneratedResponse:
        """Answer OpenAI's `/embeddings`; InvalidRequest for every other operation."""
        if request.operation != "embeddings":
            raise InvalidRequest(f"The provider {self.name} (vertex) embeds and has no operation {request.operation}.")
        asked: dict[str, Any] = json.loads(request.body)
        return await embedding_answers.answer(self.embedding_model(str(asked["model"])), asked)

    def embedding_model(self, model: str) -> EmbeddingModel:
        """The model of that name; ModelNotFound where it is none that this client can call."""
        if not MODEL.fullmatch(model):
            raise ModelNotFound(
                f"{self.name}/{model[:100]} is no embedding model of Vertex AI; those are {', '.join(OFFERED)}.",
                param="model",
            )
        return VertexEmbeddingModel(self, model)

    async def models(self) -> list[str]:
        """The embedding models; those that were configured, or else the first one, are called with a word."""
        embedding = [model for model in self._models if MODEL.fullmatch(model)][:MAX_PROBES] or OFFERED[:1]
        await asyncio.gather(*(self.embedding_model(model).embed([PROBE], purpose="query") for model in embedding))
        return list(self._models or OFFERED)

    async def predict(self, model: str, body: Mapping[str, object]) -> dict[str, Any]:
        """Call a model.

        Raises:
            RateLimited, InvalidRequest, ProviderFailed, ProviderTimeout: Google's errors, each as what it means.
            AccessDenied: the project does not let us call this model.
        """
        token = (await self._access.token(SCOPE)).token
        answer = await exchange(
            self._client,
            "POST",
            self._publisher.below(f"/models/{model}:predict"),
            headers={
                "authorization": f"Bearer {token}",
                "content-type": "application/json",
                "accept": "application/json",
            },
            body=json.dumps(body).encode(),
            timeout_s=TIMEOUT_S,
        )
        if not answer.is_success:
            raise self._refusal(answer, model, token)
        return answer.json(self.name)

    def _refusal(self, answer: Answer, model: str, token: str) -> BonitoError:
        error = refusal(
            self.name,
            status=answer.status,
            headers=answer.headers,
            body=answer.body,
            now=datetime.now(UTC),
            secrets=(token,),
        )
        if answer.status == 403:
            return AccessDenied(
                f"Google Cloud does not let the provider {self.name} call {model} in {self.project}: the right"
                " aiplatform.endpoints.predict (role Vertex AI User) is missing, or the Vertex AI API is off."
            )
        if isinstance(error, RateLimited) and error.retry_after_s is None:
            return RateLimited(error.message, retry_after_s=_retry_delay_s(answer.body))
        return error


class VertexEmbeddingModel:
    """EmbeddingModel over `:predict`, which tells questions from what answers them."""

    max_input_tokens = MAX_INPUT_TOKENS
    max_batch_tokens = MAX_BATCH_TOKENS

    def __init__(self, provider: VertexProvider, model: str) -> None:
        """Bind the model to a project."""
        is_gemini = model.startswith(ONE_A_CALL)
        facts = embedding_models.find("vertex", model)
        self.name = f"{provider.name}/{model}"
        self.dimensions = facts.dimensions
        self.max_batch, self.max_parallel = (1, GEMINI_PARALLEL) if is_gemini else (MAX_BATCH, 1)
        self.price_nano_usd = facts.price_nano_usd
        self.fingerprint = f"vertex {model}"
        self._provider, self._model = provider, model

    async def embed(self, texts: Sequence[str], *, purpose: Purpose = "document") -> EmbeddingResult:
        """Embed up to `max_batch` texts; of each, the first 2,048 tokens count."""
        if len(texts) > self.max_batch:
            raise ValueError(f"at most {self.max_batch} texts at once, got {len(texts)}")
        if not texts:
            return EmbeddingResult((), Usage(input_tokens=0))
        instances = [{"content": text, "task_type": TASK_TYPES[purpose]} for text in texts]
        answered = await self._provider.predict(
            self._model, {"instances": instances, "parameters": {"autoTruncate": True}}
        )
        return self._result(answered, count=len(texts))

    def _result(self, answered: Mapping[str, Any], *, count: int) -> EmbeddingResult:
        try:
            found = [prediction["embeddings"] for prediction in answered["predictions"]]
            vectors: list[array[float]] = [vector_of(one["values"], self._provider.name) for one in found]
            counts = [one.get("statistics", {}).get("token_count") for one in found]
        except (KeyError, TypeError, AttributeError) as error:
            raise ProviderFailed(f"The provider {self._provider.name} answered with no embeddings.") from error
        if len(vectors) != count:
            raise ProviderFailed(f"The provider {self._provider.name} did not answer one vector for each text.")
        # Numbers without a fraction, which come as 5 or as 5.0.
        known = [int(tokens) for tokens in counts if isinstance(tokens, int | float)]
        return EmbeddingResult(tuple(vectors), Usage(input_tokens=sum(known) if len(known) == count else None))


def _retry_delay_s(body: bytes) -> float | None:
    """The pause that a google.rpc.RetryInfo asks for, as `"retryDelay": "34s"`."""
    try:
        details = json.loads(body)["error"]["details"]
        delays = [RETRY_DELAY.fullmatch(str(detail.get("retryDelay", ""))) for detail in details]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return max((float(delay[1]) for delay in delays if delay), default=None)
