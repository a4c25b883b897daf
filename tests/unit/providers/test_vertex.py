"""Vertex AI's embedding models against a server that answers as Google documents, and Google's token endpoint."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import json
from array import array
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from bonito.clouds.access import BearerToken
from bonito.egress.client import EgressClient
from bonito.errors import AccessDenied, BonitoError, InvalidRequest, ModelNotFound, ProviderFailed, RateLimited
from bonito.providers.base import ProviderRequest, Purpose
from bonito.providers.service_account import ServiceAccountAccess, ServiceAccountKey
from bonito.providers.vertex import SCOPE, VertexProvider

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]

ENGLISH, GEMINI = "text-embedding-005", "gemini-embedding-001"
DIMENSIONS = {ENGLISH: 768, GEMINI: 3072, "text-multilingual-embedding-002": 768}
PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
EMAIL = "reader@our-project.iam.gserviceaccount.com"


def key_file(**fields: Any) -> str:
    """As the console downloads it."""
    pem = PRIVATE.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    found = {
        "type": "service_account",
        "project_id": "our-project",
        "private_key_id": "0123abcd",
        "private_key": pem.decode(),
        "client_email": EMAIL,
        "token_uri": "https://attacker.example/token",
    }
    return json.dumps(found | fields)


class Google:
    """The token endpoint and Vertex AI on one host."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.bodies: list[dict[str, Any]] = []
        self.claims: list[dict[str, Any]] = []
        self.answer: Callable[[], web.Response] | None = None
        self.token_answer: Callable[[], web.Response] | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            return self.token(parse_qs((await request.read()).decode(), strict_parsing=True))
        self.requests.append((request.raw_path, dict(request.headers)))
        if request.headers.get("authorization") not in ("Bearer ya29.1", "Bearer ya29.fixed"):
            return error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        if self.answer is not None:
            return self.answer()
        body = await request.json()
        self.bodies.append(body)
        model = request.path.rpartition("/")[2].removesuffix(":predict")
        if model == GEMINI and len(body["instances"]) > 1:
            return error(400, "INVALID_ARGUMENT", "gemini-embedding-001 supports one instance per request.")
        predictions = [
            {
                "embeddings": {
                    "values": [float(len(instance["content"]))] + [0.5] * (DIMENSIONS[model] - 1),
                    "statistics": {"truncated": False, "token_count": 4.0},
                }
            }
            for instance in body["instances"]
        ]
        return web.json_response({"predictions": predictions, "metadata": {"billableCharacterCount": 11}})

    def token(self, form: dict[str, list[str]]) -> web.Response:
        """Checks the assertion as Google does."""
        if self.token_answer is not None:
            return self.token_answer()
        assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
        signed, _, signature = form["assertion"][0].rpartition(".")
        try:
            PRIVATE.public_key().verify(decoded(signature), signed.encode(), PKCS1v15(), SHA256())
        except InvalidSignature:
            return web.json_response({"error": "invalid_grant"}, status=400)
        header, claims = (json.loads(decoded(part)) for part in signed.split("."))
        assert header == {"alg": "RS256", "typ": "JWT", "kid": "0123abcd"}
        self.claims.append(claims)
        return web.json_response(
            {"access_token": f"ya29.{len(self.claims)}", "expires_in": 3599, "token_type": "Bearer"}
        )


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def error(status: int, kind: str, message: str, **fields: Any) -> web.Response:
    return web.json_response({"error": {"code": status, "message": message, "status": kind} | fields}, status=status)


class Fixed:
    """TokenAccess of a test."""

    async def token(self, scope: str) -> BearerToken:
        assert scope == SCOPE
        return BearerToken("ya29.fixed", NOW)


@pytest.fixture
def google() -> Google:
    return Google()


@pytest.fixture
async def provider(serve: Serve, client: EgressClient, google: Google) -> VertexProvider:
    return await opened(serve, client, google)


async def opened(serve: Serve, client: EgressClient, google: Google, **given: Any) -> VertexProvider:
    arguments: dict[str, Any] = {"name": "gcp", "project": "our-project", "region": "europe-west4", "access": Fixed()}
    return VertexProvider(client, endpoint_url=await serve(google.handle), **arguments | given)


@pytest.mark.parametrize(("purpose", "task"), [("document", "RETRIEVAL_DOCUMENT"), ("query", "RETRIEVAL_QUERY")])
async def test_texts_are_embedded_for_their_purpose(
    provider: VertexProvider, google: Google, purpose: Purpose, task: str
) -> None:
    model = provider.embedding_model(ENGLISH)

    result = await model.embed(["a", "bb"], purpose=purpose)

    assert (model.name, model.dimensions, model.max_batch) == (f"gcp/{ENGLISH}", 768, 250)
    assert (model.max_batch_tokens, model.max_input_tokens, model.price_nano_usd) == (20_000, 2048, 100_000_000)
    assert [vector[0] for vector in result.vectors] == [1.0, 2.0]
    assert result.usage.input_tokens == 8
    assert google.bodies == [
        {
            "instances": [{"content": "a", "task_type": task}, {"content": "bb", "task_type": task}],
            "parameters": {"autoTruncate": True},
        }
    ]
    assert google.requests[0][0] == (
        f"/v1/projects/our-project/locations/europe-west4/publishers/google/models/{ENGLISH}:predict"
    )


async def test_gemini_takes_one_text_a_call_and_several_calls_at_once(provider: VertexProvider) -> None:
    model = provider.embedding_model(GEMINI)

    result = await model.embed(["abc"])

    assert (model.max_batch, model.dimensions) == (1, 3072)
    assert model.max_parallel > 1
    assert result.vectors[0][0] == 3.0
    with pytest.raises(ValueError, match="at most 1"):
        await model.embed(["a", "b"])


@pytest.mark.parametrize(
    ("region", "host"),
    [("europe-west4", "europe-west4-aiplatform.googleapis.com"), ("global", "aiplatform.googleapis.com")],
)
def test_the_host_is_made_of_the_region(client: EgressClient, region: str, host: str) -> None:
    provider = VertexProvider(client, name="gcp", project="our-project", region=region, access=Fixed())

    assert provider._publisher.host == host


@pytest.mark.parametrize(
    ("status", "kind", "expected", "said"),
    [
        (429, "RESOURCE_EXHAUSTED", RateLimited, "Quota exceeded"),
        (400, "INVALID_ARGUMENT", InvalidRequest, "Quota exceeded"),
        (404, "NOT_FOUND", InvalidRequest, "Quota exceeded"),
        (403, "PERMISSION_DENIED", AccessDenied, "aiplatform.endpoints.predict"),
        (401, "UNAUTHENTICATED", ProviderFailed, "refused the stored credential"),
        (500, "INTERNAL", ProviderFailed, "500"),
        (503, "UNAVAILABLE", ProviderFailed, "503"),
    ],
)
async def test_each_of_googles_errors_is_one_typed_error(
    provider: VertexProvider, google: Google, status: int, kind: str, expected: type[BonitoError], said: str
) -> None:
    google.answer = lambda: error(status, kind, "Quota exceeded for ya29.fixed")

    with pytest.raises(expected, match=said) as refused:
        await provider.embedding_model(ENGLISH).embed(["a"])

    assert type(refused.value) is expected
    assert "ya29" not in refused.value.message


@pytest.mark.parametrize(
    ("details", "wait_s"),
    [
        ([{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}], 34.5),
        ([{"@type": "type.googleapis.com/google.rpc.Help"}], None),
        ([{"retryDelay": "soon"}], None),
        ("nonsense", None),
    ],
)
async def test_the_pause_that_google_asks_for_is_passed_on(
    provider: VertexProvider, google: Google, details: object, wait_s: float | None
) -> None:
    google.answer = lambda: error(429, "RESOURCE_EXHAUSTED", "Quota exceeded.", details=details)

    with pytest.raises(RateLimited) as refused:
        await provider.embedding_model(ENGLISH).embed(["a"])

    assert refused.value.retry_after_s == wait_s


@pytest.mark.parametrize(
    "answer",
    [
        b"{}",
        b"[]",
        b"not json",
        b'{"predictions": []}',
        b'{"predictions": [{"embeddings": {"values": []}}]}',
        b'{"predictions": [{"embeddings": {"values": ["a"]}}]}',
        b'{"predictions": [{"embeddings": [1.0]}]}',
        b'{"predictions": [{"embeddings": {"values": [1.0]}}, {"embeddings": {"values": [1.0]}}]}',
        b'{"predictions": [{"embeddings": {"val',
    ],
)
async def test_an_answer_without_its_vectors_is_the_providers_failure(
    provider: VertexProvider, google: Google, answer: bytes
) -> None:
    google.answer = lambda: web.Response(body=answer, content_type="application/json")

    with pytest.raises(ProviderFailed):
        await provider.embedding_model(ENGLISH).embed(["a"])


async def test_tokens_that_are_not_told_are_unknown(provider: VertexProvider, google: Google) -> None:
    google.answer = lambda: web.json_response({"predictions": [{"embeddings": {"values": [0.5, 1.0]}}]})

    result = await provider.embedding_model(ENGLISH).embed(["a"])

    assert result.vectors == (array("f", [0.5, 1.0]),)
    assert result.usage.input_tokens is None


async def test_its_models_are_told_after_a_real_call(serve: Serve, client: EgressClient, google: Google) -> None:
    every = await (await opened(serve, client, google)).models()
    named = await (await opened(serve, client, google, models=[GEMINI, "gemini-2.5-pro"])).models()

    assert (every[0], named) == (ENGLISH, [GEMINI, "gemini-2.5-pro"])
    assert [path.rpartition("/")[2] for path, _ in google.requests] == [f"{ENGLISH}:predict", f"{GEMINI}:predict"]


@pytest.mark.parametrize("model", ["gemini-2.5-pro", "text-embedding-005/../x", "multimodalembedding", ""])
def test_models_of_another_kind_are_not_found(client: EgressClient, model: str) -> None:
    provider = VertexProvider(client, name="gcp", project="our-project", region="europe-west4", access=Fixed())

    with pytest.raises(ModelNotFound):
        provider.embedding_model(model)


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"region": "europe-west4.evil.example"}, "region"),
        ({"region": "eu-central-1"}, "region"),
        ({"region": ""}, "region"),
        ({"project": "../other"}, "credential"),
        ({"project": "x"}, "credential"),
    ],
)
def test_what_is_no_region_or_project_never_becomes_an_address(
    client: EgressClient, given: dict[str, str], param: str
) -> None:
    arguments: dict[str, Any] = {"project": "our-project", "region": "europe-west4"} | given

    with pytest.raises(InvalidRequest) as refused:
        VertexProvider(client, name="gcp", access=Fixed(), **arguments)

    assert refused.value.param == param


async def test_openais_embeddings_are_answered_and_chats_are_refused(provider: VertexProvider) -> None:
    asked = {"model": GEMINI, "input": ["a", "bb"], "encoding_format": "float"}
    response = await provider.call(ProviderRequest("embeddings", json.dumps(asked).encode()))
    answer = json.loads(b"".join([piece async for piece in response.chunks()]))

    assert [entry["embedding"][0] for entry in answer["data"]] == [1.0, 2.0]
    assert answer["usage"]["prompt_tokens"] == 8
    with pytest.raises(InvalidRequest, match="has no operation chat"):
        await provider.call(ProviderRequest("chat.completions", b"{}"))


class Clock:
    now = NOW

    def __call__(self) -> dt.datetime:
        return self.now


async def access_to(
    serve: Serve, client: EgressClient, google: Google, clock: Clock | None = None
) -> ServiceAccountAccess:
    url = await serve(google.handle) + "/token"
    key = ServiceAccountKey.from_json(key_file())
    return ServiceAccountAccess(client, key, token_url=url, clock=clock or Clock())


async def test_a_service_accounts_key_becomes_a_token_that_vertex_takes(
    serve: Serve, client: EgressClient, google: Google
) -> None:
    provider = await opened(serve, client, google, access=await access_to(serve, client, google))

    await provider.embedding_model(ENGLISH).embed(["a"])

    (claims,) = google.claims
    assert (claims["iss"], claims["scope"]) == (EMAIL, SCOPE)
    assert (claims["iat"], claims["exp"] - claims["iat"]) == (int(NOW.timestamp()), 3600)
    assert claims["aud"].endswith("/token")


async def test_a_token_is_kept_until_shortly_before_it_expires_and_asked_for_once(
    serve: Serve, client: EgressClient, google: Google
) -> None:
    clock = Clock()
    access = await access_to(serve, client, google, clock)

    first = await asyncio.gather(*(access.token(SCOPE) for _ in range(5)))
    clock.now += dt.timedelta(minutes=54)
    kept = await access.token(SCOPE)
    clock.now += dt.timedelta(minutes=1)
    renewed = await access.token(SCOPE)

    assert [token.token for token in (*first, kept, renewed)] == ["ya29.1"] * 6 + ["ya29.2"]


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, b'{"error": "invalid_grant", "error_description": "Invalid grant: account not found"}', AccessDenied),
        (401, b'{"error": "invalid_client"}', AccessDenied),
        (503, b"", ProviderFailed),
        (200, b"{}", ProviderFailed),
        (200, b'{"access_token": "x", "expires_in": "soon"}', ProviderFailed),
        (200, b"nonsense", ProviderFailed),
    ],
)
async def test_a_key_that_google_refuses_says_so(
    serve: Serve, client: EgressClient, google: Google, status: int, body: bytes, expected: type[BonitoError]
) -> None:
    google.token_answer = lambda: web.Response(status=status, body=body, content_type="application/json")
    access = await access_to(serve, client, google)

    with pytest.raises(expected) as refused:
        await access.token(SCOPE)

    assert type(refused.value) is expected


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "[]",
        "{}",
        key_file(type="authorized_user"),
        key_file(private_key="-----BEGIN PRIVATE KEY-----"),
        key_file(client_email=5),
        key_file(project_id=""),
    ],
)
def test_what_is_no_key_file_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        ServiceAccountKey.from_json(text)

    assert refused.value.param == "credential"
    assert "BEGIN" not in refused.value.message


def test_a_key_is_never_printed() -> None:
    assert "PRIVATE" not in repr(ServiceAccountKey.from_json(key_file()))
