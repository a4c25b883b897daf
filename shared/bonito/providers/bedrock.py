"""Amazon Bedrock over plain HTTPS: its text embedding models, Amazon's and Cohere's.

Requests and answers as in the Bedrock User Guide, "Amazon Titan Embeddings Text" and "Cohere Embed v3" and "v4".
"""

from __future__ import annotations

import asyncio
import json
import re
from array import array
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from bonito.catalogue import embedding_models
from bonito.clouds.access import AwsAccess, AwsCredentials
from bonito.egress.client import EgressClient
from bonito.errors import (
    AccessDenied,
    BonitoError,
    InvalidRequest,
    ModelNotFound,
    ProviderFailed,
    ProviderTimeout,
    RateLimited,
)
from bonito.providers import embedding_answers, sigv4
from bonito.providers.answers import GeneratedResponse
from bonito.providers.base import EmbeddingModel, EmbeddingResult, ProviderRequest, Purpose, Usage
from bonito.providers.exchanges import Answer, exchange, vector_of
from bonito.providers.refusals import refusal, retry_after_s

if TYPE_CHECKING:
    from bonito.egress.policy import Target

REGION = re.compile(r"[a-z]{2}(?:-[a-z]+){1,3}-\d{1,2}")
# Ids of models, of inference profiles, and the ARNs of either.
MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,2047}", re.ASCII)
SERVICE = "bedrock"
CALL_TIMEOUT_S = 60.0
LIST_TIMEOUT_S = 30.0
PROBE = "Bonito"
MAX_PROBES = 10
TITAN, COHERE_V3, COHERE_V4 = "amazon.titan-embed-text-v2", "cohere.embed-", "cohere.embed-v4"
INPUT_TOKENS = "x-amzn-bedrock-input-token-count"
INPUT_TYPES: Mapping[Purpose, str] = {"document": "search_document", "query": "search_query"}
TITAN_PARALLEL = 8  # it takes one text a call
TITAN_MAX_CHARACTERS = 50_000
COHERE_MAX_BATCH = 96
COHERE_V3_MAX_CHARACTERS = 2048  # of a text; it reads 512 tokens
# No number is documented for Cohere's calls; a request of the runtime is 25 MB at most.
COHERE_MAX_BATCH_TOKENS = 100_000
# Of v4's 128,000 tokens no chunk needs more than this.
MAX_INPUT_TOKENS = 8192
REFUSED_CREDENTIAL = frozenset(
    {
        "ExpiredTokenException",
        "IncompleteSignatureException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "UnrecognizedClientException",
    }
)
THROTTLED = frozenset({"ThrottlingException", "ServiceQuotaExceededException", "ModelNotReadyException"})


class BedrockProvider:
    """Provider over one region of an AWS account. It embeds; it does not answer chats."""

    def __init__(
        self,
        client: EgressClient,
        *,
        name: str,
        region: str,
        access: AwsAccess,
        models: Sequence[str] = (),
        endpoint_url: str | None = None,
    ) -> None:
        """Check what can be checked without a connection.

        Args:
            client: the guard that all requests go through.
            name: the provider's name in its organization.
            region: `eu-central-1`; becomes a part of the hosts' names.
            access: to the account that pays.
            models: what may be called; empty is whatever the region lists.
            endpoint_url: in place of AWS's hosts, for both of them.

        Raises:
            InvalidRequest: no name of a region.
        """
        if not REGION.fullmatch(region):
            raise InvalidRequest("region must be the name of an AWS region, like eu-central-1.", param="region")
        domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        self.name, self.region = name, region
        self._client, self._access, self._models = client, access, tuple(models)
        self._runtime = client.policy.parse(endpoint_url or f"https://bedrock-runtime.{region}.{domain}")
        control = endpoint_url or f"https://bedrock.{region}.{domain}"
        self._control = client.policy.parse(f"{control}/?byOutputModality=EMBEDDING")

    async def call(self, request: ProviderRequest) -> GeneratedResponse:
        """Answer OpenAI's `/embeddings`; InvalidRequest for every other operation."""
        if request.operation != "embeddings":
            raise InvalidRequest(f"The provider {self.name} (bedrock) embeds and has no operation {request.operation}.")
        asked: dict[str, Any] = json.loads(request.body)
        return await embedding_answers.answer(self.embedding_model(str(asked["model"])), asked)

    def embedding_model(self, model: str) -> EmbeddingModel:
        """The model of that id; ModelNotFound where it is none that this client can call."""
        base = base_model(model)
        if MODEL_ID.fullmatch(model):
            if base.startswith(TITAN):
                return TitanEmbeddingModel(self, model)
            if base.startswith(COHERE_V3):
                return CohereEmbeddingModel(self, model)
        raise ModelNotFound(
            f"{self.name}/{model[:100]} is no embedding model of Bedrock that Bonito can call; those are"
            " amazon.titan-embed-text-v2:0 and Cohere's Embed v3 and v4.",
            param="model",
        )

    async def models(self) -> list[str]:
        """The embedding models that the account may call.

        Those that were configured are each called with a word, since a listing does not tell who may call what;
        without any the region is asked for its list.
        """
        embedding = [model for model in self._models if _is_spoken(model)][:MAX_PROBES]
        if not embedding:
            return await self._listed()
        await asyncio.gather(*(self.embedding_model(model).embed([PROBE], purpose="query") for model in embedding))
        return list(self._models)

    async def invoke(self, model: str, body: Mapping[str, object]) -> tuple[dict[str, Any], Answer]:
        """Call a model; its answer, read and raw.

        Raises:
            RateLimited, InvalidRequest, ProviderFailed, ProviderTimeout: AWS's errors, each as what it means.
            AccessDenied: the account does not let us call this model.
        """
        # The id is one segment of the path, and an ARN has slashes.
        target = self._runtime.below(f"/model/{quote(model, safe='')}/invoke")
        answer = await self._send("POST", target, json.dumps(body).encode(), what=model, timeout_s=CALL_TIMEOUT_S)
        return answer.json(self.name), answer

    async def _listed(self) -> list[str]:
        target = self._control.below("/foundation-models")
        answer = await self._send("GET", target, b"", what="foundation-models", timeout_s=LIST_TIMEOUT_S)
        try:
            summaries = answer.json(self.name)["modelSummaries"]
            offered = [str(found["modelId"]) for found in summaries if "ON_DEMAND" in found["inferenceTypesSupported"]]
        except (KeyError, TypeError) as error:
            raise ProviderFailed(f"The provider {self.name} answered with no list of models.") from error
        return [model for model in dict.fromkeys(offered) if _is_spoken(model)]

    async def _send(self, method: str, target: Target, body: bytes, *, what: str, timeout_s: float) -> Answer:
        credentials = await self._access.credentials()
        headers = sigv4.signed_headers(
            method,
            target.url,
            headers={"accept": "application/json", "content-type": "application/json"},
            body=body,
            credentials=credentials,
            region=self.region,
            service=SERVICE,
            now=datetime.now(UTC),
        )
        answer = await exchange(self._client, method, target, headers=headers, body=body or None, timeout_s=timeout_s)
        if not answer.is_success:
            raise self._refusal(answer, what, credentials)
        return answer

    def _refusal(self, answer: Answer, what: str, credentials: AwsCredentials) -> BonitoError:
        """The typed error that AWS's exception stands for; its name is in a header, `Name:url`, or in the body."""
        kind = answer.headers.get("x-amzn-errortype", "").partition(":")[0] or _kind_in(answer.body)
        if kind in THROTTLED or answer.status == 429:
            wait_s = retry_after_s(answer.headers, now=datetime.now(UTC))
            return RateLimited(f"AWS limits the rate of requests of the provider {self.name}.", retry_after_s=wait_s)
        if kind in REFUSED_CREDENTIAL:
            return ProviderFailed(f"AWS refused the credential of the provider {self.name} ({kind}).")
        if answer.status == 403:
            right = "bedrock:ListFoundationModels" if what == "foundation-models" else "bedrock:InvokeModel"
            return AccessDenied(
                f"AWS does not let the provider {self.name} call {what}: the right {right} is missing, or the account"
                " has no access to that model."
            )
        if kind == "ModelTimeoutException" or answer.status == 408:
            return ProviderTimeout(f"{what} did not answer in time.")
        if kind == "ModelErrorException" or answer.status == 424:
            return ProviderFailed(f"{what} failed at AWS.")
        return refusal(
            self.name,
            status=answer.status,
            headers=answer.headers,
            body=answer.body,
            now=datetime.now(UTC),
            secrets=(credentials.secret_access_key, credentials.session_token or "", credentials.access_key_id),
        )


class TitanEmbeddingModel:
    """EmbeddingModel over Titan Text Embeddings V2, which takes one text a call and tells no purposes apart."""

    max_batch = 1
    max_batch_tokens = MAX_INPUT_TOKENS
    max_parallel = TITAN_PARALLEL
    max_input_tokens = MAX_INPUT_TOKENS

    def __init__(self, provider: BedrockProvider, model: str) -> None:
        """Bind the model to an account."""
        facts = embedding_models.find("bedrock", model, region=provider.region)
        self.name = f"{provider.name}/{model}"
        self.dimensions: int | None = 1024
        self.price_nano_usd = facts.price_nano_usd
        self.fingerprint = f"bedrock {base_model(model)} {self.dimensions}"
        self._provider, self._model = provider, model

    async def embed(self, texts: Sequence[str], *, purpose: Purpose = "document") -> EmbeddingResult:
        """Embed one text; of a longer one the first 50,000 characters are sent."""
        if len(texts) > self.max_batch:
            raise ValueError(f"at most {self.max_batch} text at once, got {len(texts)}")
        if not texts:
            return EmbeddingResult((), Usage(input_tokens=0))
        text = texts[0][:TITAN_MAX_CHARACTERS]
        body = {"inputText": text, "dimensions": self.dimensions, "normalize": True}
        answered, _ = await self._provider.invoke(self._model, body)
        vector, tokens = vector_of(answered.get("embedding"), self._provider.name), answered.get("inputTextTokenCount")
        return EmbeddingResult((vector,), Usage(input_tokens=tokens if isinstance(tokens, int) else None))


class CohereEmbeddingModel:
    """EmbeddingModel over Cohere Embed v3 and v4, which tell questions from what answers them."""

    max_batch = COHERE_MAX_BATCH
    max_batch_tokens = COHERE_MAX_BATCH_TOKENS
    max_parallel = 1

    def __init__(self, provider: BedrockProvider, model: str) -> None:
        """Bind the model to an account."""
        facts = embedding_models.find("bedrock", model, region=provider.region)
        self._is_v4 = base_model(model).startswith(COHERE_V4)
        self.name = f"{provider.name}/{model}"
        self.dimensions: int | None = 1536 if self._is_v4 else 1024
        self.max_input_tokens = MAX_INPUT_TOKENS if self._is_v4 else 512
        self.price_nano_usd = facts.price_nano_usd
        self.fingerprint = f"bedrock {base_model(model)} {self.dimensions}"
        self._provider, self._model = provider, model

    async def embed(self, texts: Sequence[str], *, purpose: Purpose = "document") -> EmbeddingResult:
        """Embed up to 96 texts; v3 reads the first 2,048 characters of each."""
        if len(texts) > self.max_batch:
            raise ValueError(f"at most {self.max_batch} texts at once, got {len(texts)}")
        if not texts:
            return EmbeddingResult((), Usage(input_tokens=0))
        answered, answer = await self._provider.invoke(self._model, self._body(texts, purpose))
        tokens = answer.headers.get(INPUT_TOKENS, "")
        vectors = self._vectors(answered, count=len(texts))
        return EmbeddingResult(
            vectors, Usage(input_tokens=int(tokens) if tokens.isascii() and tokens.isdigit() else None)
        )

    def _body(self, texts: Sequence[str], purpose: Purpose) -> dict[str, object]:
        body: dict[str, object] = {"input_type": INPUT_TYPES[purpose], "embedding_types": ["float"]}
        if self._is_v4:
            return body | {"texts": list(texts), "output_dimension": self.dimensions}
        return body | {"texts": [text[:COHERE_V3_MAX_CHARACTERS] for text in texts], "truncate": "END"}

    def _vectors(self, answered: Mapping[str, Any], *, count: int) -> tuple[array[float], ...]:
        """`embeddings` is a list, or an object by type where types were asked for."""
        found = answered.get("embeddings")
        found = found.get("float") if isinstance(found, dict) else found
        if not isinstance(found, list) or len(found) != count:
            raise ProviderFailed(f"The provider {self._provider.name} did not answer one vector for each text.")
        return tuple(vector_of(numbers, self._provider.name) for numbers in found)


def base_model(model: str) -> str:
    """The model behind an id: without the ARN around it, and without the part of the world of an inference profile."""
    name = model.rpartition("/")[2]
    profile = next((prefix for prefix in embedding_models.PROFILES if name.startswith(prefix)), "")
    return name.removeprefix(profile)


def _is_spoken(model: str) -> bool:
    return base_model(model).startswith((TITAN, COHERE_V3))


def _kind_in(body: bytes) -> str:
    """The exception's name in a body of AWS's JSON protocol: `com.amazon…#ThrottlingException`."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    return str(found.get("__type", "")).rpartition("#")[2] if isinstance(found, dict) else ""
