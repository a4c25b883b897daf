"""Bedrock's embedding models against a server that checks each signature as AWS does, and answers as documented."""

from __future__ import annotations

import datetime as dt
import json
import re
from array import array
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import pytest
from aiohttp import web

from bonito.clouds.access import AwsCredentials
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
from bonito.providers import sigv4
from bonito.providers.base import EmbeddingModel, ProviderRequest, Purpose
from bonito.providers.bedrock import BedrockProvider
from bonito.providers.static_keys import StaticAwsKeys

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]

TITAN, ENGLISH = "amazon.titan-embed-text-v2:0", "cohere.embed-english-v3"
MULTILINGUAL, V4 = "cohere.embed-multilingual-v3", "eu.cohere.embed-v4:0"
KEYS = AwsCredentials("ASIAEXAMPLEKEY", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "IQoJb3JpZ2luX2VjE==")
LISTED = {
    "modelSummaries": [
        {"modelId": TITAN, "inferenceTypesSupported": ["ON_DEMAND"]},
        {"modelId": f"{TITAN}:8k", "inferenceTypesSupported": []},
        {"modelId": "amazon.titan-embed-image-v1", "inferenceTypesSupported": ["ON_DEMAND", "PROVISIONED"]},
        {"modelId": ENGLISH, "inferenceTypesSupported": ["ON_DEMAND"]},
        {"modelId": "cohere.embed-v4:0", "inferenceTypesSupported": ["INFERENCE_PROFILE"]},
    ]
}


class Bedrock:
    """AWS's two endpoints of a region, in the shapes of the User Guide and the API Reference."""

    def __init__(self) -> None:
        self.keys = KEYS
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.answer: Callable[[], web.Response] | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if not self.is_signed(request, body):
            return exception(403, "InvalidSignatureException", "The request signature we calculated does not match.")
        self.paths.append(request.raw_path)
        if body:
            self.bodies.append(json.loads(body))
        if self.answer is not None:
            return self.answer()
        if request.method == "GET":
            return web.json_response(LISTED)
        return self.embedded(unquote(request.raw_path.split("/")[2]), self.bodies[-1])

    def is_signed(self, request: web.Request, body: bytes) -> bool:
        """Recompute the signature from what arrived, with the secret that goes with the key's id."""
        found = re.fullmatch(
            r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/bedrock/aws4_request, SignedHeaders=([^,]+),"
            r" Signature=[0-9a-f]{64}",
            request.headers["authorization"],
        )
        assert found is not None
        names = found[4].split(";")
        assert {"host", "x-amz-date", "content-type"} <= set(names)
        signed_at = dt.datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
        assert signed_at.strftime("%Y%m%d") == found[2]
        set_by_signer = ("host", "x-amz-date", "x-amz-security-token")
        expected = sigv4.signed_headers(
            request.method,
            request.url.with_host("127.0.0.1"),
            headers={name: request.headers[name] for name in names if name not in set_by_signer},
            body=body,
            credentials=self.keys,
            region=found[3],
            service="bedrock",
            now=signed_at,
        )
        return expected["authorization"] == request.headers["authorization"] and found[1] == self.keys.access_key_id

    @staticmethod
    def embedded(model: str, body: dict[str, Any]) -> web.Response:
        if model == TITAN:
            assert set(body) == {"inputText", "dimensions", "normalize"}
            vector = vector_of(body["inputText"], body["dimensions"])
            return web.json_response(
                {"embedding": vector, "embeddingsByType": {"float": vector}, "inputTextTokenCount": 5}
            )
        assert body["embedding_types"] == ["float"]
        is_v4 = model.endswith("embed-v4:0")
        assert len(body["texts"]) <= 96
        assert is_v4 or all(len(text) <= 2048 for text in body["texts"])
        vectors = [vector_of(text, body.get("output_dimension", 1024)) for text in body["texts"]]
        answer = {"id": "x", "response_type": "embeddings_by_type", "embeddings": {"float": vectors}, "texts": []}
        headers = {"x-amzn-bedrock-input-token-count": str(7 * len(vectors))}
        return web.json_response(answer, headers=headers)


def vector_of(text: str, dimensions: int) -> list[float]:
    return [float(len(text))] + [0.5] * (dimensions - 1)


def exception(status: int, kind: str, message: str, **headers: str) -> web.Response:
    named = {"x-amzn-errortype": f"{kind}:http://internal.amazon.com/coral/com.amazon.bedrock/"}
    return web.json_response({"message": message}, status=status, headers=named | headers)


@pytest.fixture
def bedrock() -> Bedrock:
    return Bedrock()


@pytest.fixture
async def provider(serve: Serve, client: EgressClient, bedrock: Bedrock) -> BedrockProvider:
    return await opened(serve, client, bedrock)


async def opened(serve: Serve, client: EgressClient, bedrock: Bedrock, **given: Any) -> BedrockProvider:
    arguments: dict[str, Any] = {"name": "aws", "region": "eu-central-1", "access": StaticAwsKeys(KEYS)}
    return BedrockProvider(client, endpoint_url=await serve(bedrock.handle), **arguments | given)


async def test_titan_embeds_one_text_a_call(provider: BedrockProvider, bedrock: Bedrock) -> None:
    model = provider.embedding_model(TITAN)

    result = await model.embed(["How many days?"])

    assert (model.name, model.dimensions, model.max_batch) == (f"aws/{TITAN}", 1024, 1)
    assert model.max_parallel > 1
    assert result.vectors == (array("f", vector_of("How many days?", 1024)),)
    assert result.usage.input_tokens == 5
    assert bedrock.bodies == [{"inputText": "How many days?", "dimensions": 1024, "normalize": True}]
    assert bedrock.paths == ["/model/amazon.titan-embed-text-v2%3A0/invoke"]


async def test_a_text_above_titans_bound_is_sent_up_to_it(provider: BedrockProvider, bedrock: Bedrock) -> None:
    await provider.embedding_model(TITAN).embed(["x" * 60_000])

    assert len(bedrock.bodies[0]["inputText"]) == 50_000


@pytest.mark.parametrize("model", [ENGLISH, MULTILINGUAL, V4])
@pytest.mark.parametrize(("purpose", "kind"), [("document", "search_document"), ("query", "search_query")])
async def test_cohere_tells_questions_from_documents(
    provider: BedrockProvider, bedrock: Bedrock, model: str, purpose: Purpose, kind: str
) -> None:
    result = await provider.embedding_model(model).embed(["a", "bb"], purpose=purpose)

    assert [vector[0] for vector in result.vectors] == [1.0, 2.0]
    assert result.usage.input_tokens == 14
    assert bedrock.bodies[0]["input_type"] == kind


async def test_cohere_v3_reads_the_beginning_and_v4_all_of_a_text(provider: BedrockProvider, bedrock: Bedrock) -> None:
    english, v4 = provider.embedding_model(ENGLISH), provider.embedding_model(V4)
    await english.embed(["x" * 3000])
    await v4.embed(["x" * 3000])

    assert [len(body["texts"][0]) for body in bedrock.bodies] == [2048, 3000]
    assert [body.get("truncate") for body in bedrock.bodies] == ["END", None]
    assert [(one.dimensions, one.max_input_tokens) for one in (english, v4)] == [(1024, 512), (1536, 8192)]


async def test_v3s_plain_list_is_read_too(provider: BedrockProvider, bedrock: Bedrock) -> None:
    bedrock.answer = lambda: web.json_response({"embeddings": [[0.5, 1.0]], "response_type": "embeddings_floats"})

    result = await provider.embedding_model(ENGLISH).embed(["a"])

    assert result.vectors == (array("f", [0.5, 1.0]),)
    assert result.usage.input_tokens is None, "without the header nothing is known"


@pytest.mark.parametrize("model", [TITAN, ENGLISH])
async def test_more_texts_than_a_call_takes_are_a_mistake_and_none_is_no_call(
    provider: BedrockProvider, bedrock: Bedrock, model: str
) -> None:
    embedding = provider.embedding_model(model)
    with pytest.raises(ValueError, match="at most"):
        await embedding.embed(["a"] * (embedding.max_batch + 1))

    assert (await embedding.embed([])).vectors == ()
    assert bedrock.bodies == []


@pytest.mark.parametrize(
    ("status", "kind", "error", "said"),
    [
        (429, "ThrottlingException", RateLimited, "limits the rate"),
        (429, "ModelNotReadyException", RateLimited, "limits the rate"),
        (400, "ServiceQuotaExceededException", RateLimited, "limits the rate"),
        (400, "ThrottlingException", RateLimited, "limits the rate"),
        (400, "ValidationException", InvalidRequest, "Malformed input request"),
        (404, "ResourceNotFoundException", InvalidRequest, "Malformed input request"),
        (403, "AccessDeniedException", AccessDenied, "bedrock:InvokeModel"),
        (403, "ExpiredTokenException", ProviderFailed, "refused the credential"),
        (403, "UnrecognizedClientException", ProviderFailed, "refused the credential"),
        (408, "ModelTimeoutException", ProviderTimeout, "did not answer"),
        (424, "ModelErrorException", ProviderFailed, "failed"),
        (500, "InternalServerException", ProviderFailed, "500"),
        (503, "ServiceUnavailableException", ProviderFailed, "503"),
    ],
)
async def test_each_of_awss_exceptions_is_one_typed_error(
    provider: BedrockProvider, bedrock: Bedrock, status: int, kind: str, error: type[BonitoError], said: str
) -> None:
    bedrock.answer = lambda: exception(
        status, kind, "Malformed input request; User: arn:aws:sts::1:role/x ASIAEXAMPLEKEY"
    )

    with pytest.raises(error, match=said) as refused:
        await provider.embedding_model(TITAN).embed(["a"])

    assert type(refused.value) is error
    assert "ASIAEXAMPLEKEY" not in refused.value.message


async def test_the_exceptions_name_may_stand_in_the_body(provider: BedrockProvider, bedrock: Bedrock) -> None:
    bedrock.answer = lambda: web.json_response(
        {"__type": "com.amazon.coral.availability#ThrottlingException", "Message": "Rate exceeded"}, status=400
    )

    with pytest.raises(RateLimited):
        await provider.embedding_model(TITAN).embed(["a"])


async def test_a_pause_that_aws_asks_for_is_passed_on(provider: BedrockProvider, bedrock: Bedrock) -> None:
    bedrock.answer = lambda: exception(429, "ThrottlingException", "Rate exceeded", **{"retry-after": "9"})

    with pytest.raises(RateLimited) as refused:
        await provider.embedding_model(TITAN).embed(["a"])

    assert refused.value.retry_after_s == 9.0


async def test_a_wrong_secret_is_noticed_by_the_server(provider: BedrockProvider, bedrock: Bedrock) -> None:
    bedrock.keys = AwsCredentials(KEYS.access_key_id, "another secret", KEYS.session_token)

    with pytest.raises(ProviderFailed, match="InvalidSignatureException"):
        await provider.embedding_model(TITAN).embed(["a"])


@pytest.mark.parametrize("model", [TITAN, ENGLISH])
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"{}", id="empty"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"not json", id="words"),
        pytest.param(b'{"embedding": [], "embeddings": {"float": [[]]}}', id="no-numbers"),
        pytest.param(b'{"embedding": ["a"], "embeddings": {"float": [["a"]]}}', id="words-for-numbers"),
        pytest.param(b'{"embedding": "x", "embeddings": {"int8": [[1]]}}', id="other-type"),
        pytest.param(b'{"embedding": null, "embeddings": {"float": [[1.0], [1.0]]}}', id="count"),
        pytest.param(b'{"embedding": [1e999e], "embeddings"', id="cut"),
    ],
)
async def test_an_answer_without_vectors_is_the_providers_failure(
    provider: BedrockProvider, bedrock: Bedrock, model: str, answer: bytes
) -> None:
    bedrock.answer = lambda: web.Response(body=answer, content_type="application/json")

    with pytest.raises(ProviderFailed):
        await provider.embedding_model(model).embed(["a"])


async def test_a_connection_cut_in_the_middle_is_the_providers_failure(
    serve: Serve, client: EgressClient, bedrock: Bedrock
) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-length": "1000"})
        await response.prepare(request)
        await response.write(b'{"embedding": [0.1')
        assert request.transport is not None
        request.transport.close()
        return response

    provider = BedrockProvider(
        client, name="aws", region="eu-central-1", access=StaticAwsKeys(KEYS), endpoint_url=await serve(cut)
    )
    with pytest.raises(ProviderFailed, match="broke"):
        await provider.embedding_model(TITAN).embed(["a"])


async def test_the_list_holds_what_can_be_called_on_demand_and_is_spoken_here(
    provider: BedrockProvider, bedrock: Bedrock
) -> None:
    assert await provider.models() == [TITAN, ENGLISH]
    assert bedrock.paths == ["/foundation-models?byOutputModality=EMBEDDING"]


async def test_models_that_were_named_are_each_called(serve: Serve, client: EgressClient, bedrock: Bedrock) -> None:
    provider = await opened(serve, client, bedrock, models=[TITAN, "anthropic.claude-3-haiku", V4])

    assert await provider.models() == [TITAN, "anthropic.claude-3-haiku", V4]
    assert sorted(bedrock.paths) == [
        "/model/amazon.titan-embed-text-v2%3A0/invoke",
        "/model/eu.cohere.embed-v4%3A0/invoke",
    ]
    bedrock.answer = lambda: exception(403, "AccessDeniedException", "You don't have access to the model.")
    with pytest.raises(AccessDenied):
        await provider.models()


async def test_a_profiles_arn_is_one_segment_of_the_path(provider: BedrockProvider, bedrock: Bedrock) -> None:
    arn = "arn:aws:bedrock:eu-central-1:123456789012:inference-profile/eu.cohere.embed-v4:0"
    model = provider.embedding_model(arn)

    assert len((await model.embed(["a"])).vectors[0]) == 1536
    assert bedrock.paths[0].count("/") == 3
    assert model.fingerprint == provider.embedding_model(V4).fingerprint


@pytest.mark.parametrize("model", ["anthropic.claude-3-haiku", "amazon.titan-embed-image-v1", "cohere.embed x", ""])
def test_models_of_another_kind_are_not_found(model: str, client: EgressClient) -> None:
    provider = BedrockProvider(client, name="aws", region="eu-central-1", access=StaticAwsKeys(KEYS))

    with pytest.raises(ModelNotFound):
        provider.embedding_model(model)


@pytest.mark.parametrize(
    "region", ["eu-central-1.evil.example", "eu central 1", "EU-CENTRAL-1", "eu-central-1/", "x", ""]
)
def test_a_region_that_is_none_never_becomes_a_host(region: str, client: EgressClient) -> None:
    with pytest.raises(InvalidRequest) as refused:
        BedrockProvider(client, name="aws", region=region, access=StaticAwsKeys(KEYS))

    assert refused.value.param == "region"


def test_prices_are_those_of_the_model_and_its_region(client: EgressClient) -> None:
    def model(region: str, name: str) -> EmbeddingModel:
        provider = BedrockProvider(client, name="aws", region=region, access=StaticAwsKeys(KEYS))
        return provider.embedding_model(name)

    assert model("eu-central-1", TITAN).price_nano_usd == 20_000_000
    assert model("us-gov-west-1", TITAN).price_nano_usd == 110_000_000
    assert model("eu-central-1", V4).price_nano_usd == 120_000_000
    assert model("us-gov-west-1", ENGLISH).price_nano_usd is None


async def test_openais_embeddings_are_answered_and_chats_are_refused(
    provider: BedrockProvider, bedrock: Bedrock
) -> None:
    asked = {"model": ENGLISH, "input": ["a", "bb"]}
    response = await provider.call(ProviderRequest("embeddings", json.dumps(asked).encode()))
    answer = json.loads(b"".join([piece async for piece in response.chunks()]))

    assert [entry["embedding"][0] for entry in answer["data"]] == [1.0, 2.0]
    assert (answer["model"], answer["usage"]["prompt_tokens"]) == (ENGLISH, 14)
    with pytest.raises(InvalidRequest, match="has no operation chat"):
        await provider.call(ProviderRequest("chat.completions", b"{}"))
