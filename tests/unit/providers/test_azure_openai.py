"""Azure OpenAI against a server that answers as Microsoft documents: deployments, versions, keys and tokens."""

from __future__ import annotations

import base64
import datetime as dt
import json
import re
import struct
from array import array
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from bonito.clouds.access import BearerToken
from bonito.egress.client import EgressClient
from bonito.errors import BonitoError, InvalidRequest, ModelNotFound, ProviderFailed, RateLimited
from bonito.providers.azure_openai import API_VERSION, SCOPE, AzureOpenAIProvider
from bonito.providers.base import ProviderRequest

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]

SMALL, NAMED, CHAT = "text-embedding-3-small", "our-embeddings", "gpt-4o"
LOOPBACK = re.compile(r"127\.0\.0\.1")
KEY = "0123456789abcdef0123456789abcdef"


class Resource:
    """One Azure OpenAI resource with three deployments."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.bodies: list[dict[str, Any]] = []
        self.answer: Callable[[], web.Response] | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((request.method, request.raw_path, headers))
        if headers.get("api-key") != KEY and headers.get("authorization") != "Bearer entra-token":
            error = {"code": "401", "message": "Access denied due to invalid subscription key."}
            return web.json_response({"error": error}, status=401)
        if self.answer is not None:
            return self.answer()
        if request.path == "/openai/models":
            return web.json_response({"object": "list", "data": [{"id": "text-embedding-3-small-1", "status": "ok"}]})
        deployment = request.path.split("/")[3]
        if deployment not in (SMALL, NAMED):
            error = {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}
            return web.json_response({"error": error}, status=404)
        body = await request.json()
        self.bodies.append(body)
        entries = [
            {"object": "embedding", "index": index, "embedding": packed(text, 1536)}
            for index, text in enumerate(body["input"])
        ]
        usage = {"prompt_tokens": 3 * len(entries), "total_tokens": 3 * len(entries)}
        return web.json_response({"object": "list", "model": SMALL, "data": entries, "usage": usage})


class Entra:
    """TokenAccess of a test."""

    def __init__(self) -> None:
        self.scopes: list[str] = []

    async def token(self, scope: str) -> BearerToken:
        self.scopes.append(scope)
        return BearerToken("entra-token", dt.datetime(2036, 1, 1, tzinfo=dt.UTC))


def packed(text: str, dimensions: int) -> str:
    vector = [float(len(text))] + [0.5] * (dimensions - 1)
    return base64.b64encode(struct.pack(f"<{dimensions}f", *vector)).decode()


@pytest.fixture
def resource() -> Resource:
    return Resource()


async def opened(serve: Serve, client: EgressClient, resource: Resource, **given: Any) -> AzureOpenAIProvider:
    arguments: dict[str, Any] = {"name": "azure", "models": [SMALL, NAMED], "api_key": KEY} | given
    endpoint = await serve(resource.handle) + arguments.pop("path", "")
    return AzureOpenAIProvider(client, endpoint_url=endpoint, **arguments)


@pytest.mark.parametrize("path", ["", "/", "/openai", "/openai/v1", "/openai/v1/"])
async def test_a_deployment_embeds_with_the_resources_key(
    serve: Serve, client: EgressClient, resource: Resource, path: str
) -> None:
    provider = await opened(serve, client, resource, path=path)
    model = provider.embedding_model(SMALL)

    result = await model.embed(["a", "bb"], purpose="query")

    assert (model.name, model.dimensions, model.price_nano_usd) == (f"azure/{SMALL}", 1536, 22_000_000)
    assert [vector[0] for vector in result.vectors] == [1.0, 2.0]
    assert result.usage.input_tokens == 6
    method, sent_to, headers = resource.requests[0]
    assert (method, sent_to) == ("POST", f"/openai/deployments/{SMALL}/embeddings?api-version={API_VERSION}")
    assert headers["api-key"] == KEY
    assert "authorization" not in headers


async def test_a_token_of_entra_is_asked_for_and_sent_instead_of_a_key(
    serve: Serve, client: EgressClient, resource: Resource
) -> None:
    entra = Entra()
    provider = await opened(serve, client, resource, api_key=None, access=entra, token_hosts=LOOPBACK)

    await provider.embedding_model(SMALL).embed(["a"])

    assert entra.scopes == [SCOPE]
    _, _, headers = resource.requests[0]
    assert headers["authorization"] == "Bearer entra-token"
    assert "api-key" not in headers


async def test_a_version_may_be_chosen(serve: Serve, client: EgressClient, resource: Resource) -> None:
    provider = await opened(serve, client, resource, api_version="2025-04-01-preview")

    await provider.embedding_model(SMALL).embed(["a"])

    assert resource.requests[0][1].endswith("?api-version=2025-04-01-preview")


async def test_a_deployment_of_any_name_embeds_and_has_no_known_price(
    serve: Serve, client: EgressClient, resource: Resource
) -> None:
    model = (await opened(serve, client, resource)).embedding_model(NAMED)
    before = (model.dimensions, model.max_input_tokens, model.price_nano_usd)

    await model.embed(["a"])

    assert before == (None, 8191, None)
    assert model.dimensions == 1536


async def test_its_models_are_its_deployments_after_real_calls(
    serve: Serve, client: EgressClient, resource: Resource
) -> None:
    provider = await opened(serve, client, resource, models=[SMALL, CHAT])

    assert await provider.models() == [SMALL, CHAT]
    assert [path.partition("?")[0] for _, path, _ in resource.requests] == [
        "/openai/models",
        f"/openai/deployments/{SMALL}/embeddings",
    ]


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"api_key": "wrong"}, ProviderFailed, "refused the stored credential"),
        ({"models": ["embedding-of-nobody"]}, ModelNotFound, "does not exist"),
    ],
)
async def test_a_wrong_key_or_deployment_is_found_when_it_is_verified(
    serve: Serve,
    client: EgressClient,
    resource: Resource,
    given: dict[str, Any],
    error: type[BonitoError],
    said: str,
) -> None:
    provider = await opened(serve, client, resource, **given)

    with pytest.raises(error, match=said):
        await provider.models()


async def test_its_limit_says_when_to_come_back(serve: Serve, client: EgressClient, resource: Resource) -> None:
    message = "Requests to the Embeddings_Create Operation have exceeded the call rate limit of your pricing tier."
    resource.answer = lambda: web.json_response(
        {"error": {"code": "429", "message": message}}, status=429, headers={"retry-after": "7"}
    )

    with pytest.raises(RateLimited, match="call rate limit") as refused:
        await (await opened(serve, client, resource)).embedding_model(SMALL).embed(["a"])

    assert refused.value.retry_after_s == 7.0


@pytest.mark.parametrize(
    "vectors", [[], [packed("a", 8)], ["?"], [packed("a", 1536)] * 2], ids=["none", "length", "words", "count"]
)
async def test_an_answer_without_its_vectors_is_the_providers_failure(
    serve: Serve, client: EgressClient, resource: Resource, vectors: list[str]
) -> None:
    entries = [{"index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    resource.answer = lambda: web.json_response({"data": entries})

    with pytest.raises(ProviderFailed):
        await (await opened(serve, client, resource)).embedding_model(SMALL).embed(["a"])


async def test_openais_embeddings_are_relayed_and_chats_are_refused(
    serve: Serve, client: EgressClient, resource: Resource
) -> None:
    provider = await opened(serve, client, resource)
    body = json.dumps({"model": SMALL, "input": ["abc"], "encoding_format": "base64", "user": "u"}).encode()
    response = await provider.call(ProviderRequest("embeddings", body))
    answer = json.loads(b"".join([piece async for piece in response.chunks()]))

    vector = array("f")
    vector.frombytes(base64.b64decode(answer["data"][0]["embedding"]))
    assert vector[0] == 3.0
    assert resource.bodies[0]["user"] == "u", "what we do not know passes through"
    with pytest.raises(InvalidRequest, match="has no operation chat"):
        await provider.call(ProviderRequest("chat.completions", b"{}"))


async def test_a_deployments_name_cannot_leave_its_place_in_the_path(
    serve: Serve, client: EgressClient, resource: Resource
) -> None:
    provider = await opened(serve, client, resource)

    with pytest.raises(ModelNotFound):
        await provider.embedding_model("../../other?x=").embed(["a"])

    assert resource.requests[0][1].startswith("/openai/deployments/..%2F..%2Fother%3Fx%3D/embeddings?")


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"models": []}, "models"),
        ({"api_key": None}, "credential"),
        ({"access": Entra()}, "credential"),
        ({"api_version": "latest"}, "credential"),
        ({"api_key": "line\nbreak"}, "credential"),
        ({"api_key": None, "access": Entra(), "endpoint_url": "https://attacker.example"}, "base_url"),
        ({"api_key": None, "access": Entra(), "endpoint_url": "https://x.openai.azure.com.evil.example"}, "base_url"),
    ],
)
async def test_what_no_provider_can_be_made_of_is_refused(
    client: EgressClient, given: dict[str, Any], param: str
) -> None:
    ours = {"name": "azure", "models": [SMALL], "api_key": KEY, "endpoint_url": "https://ours.openai.azure.com"}

    with pytest.raises(InvalidRequest) as refused:
        AzureOpenAIProvider(client, **ours | given)

    assert refused.value.param == param
