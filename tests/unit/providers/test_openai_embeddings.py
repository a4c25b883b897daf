from __future__ import annotations

import asyncio
import base64
import json
import struct
from array import array
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from aiohttp import web

from bonito.egress.client import EgressClient
from bonito.errors import InvalidRequest, ProviderFailed, RateLimited, WrongDimensions
from bonito.providers.openai_http import OpenAIEmbeddingModel, OpenAIProvider

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[str]]


def vector_of(text: str) -> list[float]:
    """Three numbers that a 32-bit float holds exactly, different for texts of different length."""
    return [float(len(text)), 0.5, -0.25]


class EmbeddingServer:
    """Speaks OpenAI's /embeddings; `formats` are the encodings that it knows."""

    def __init__(self, *, formats: Sequence[str] = ("float", "base64"), refuses_unknown: bool = False) -> None:
        self.formats, self.refuses_unknown = formats, refuses_unknown
        self.bodies: list[dict[str, Any]] = []
        self.overrides: dict[str, object] = {}

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        wanted = body.get("encoding_format", "float")
        if wanted not in self.formats and self.refuses_unknown:
            return web.json_response({"error": {"message": "unknown encoding_format"}}, status=400)
        is_base64 = wanted == "base64" and "base64" in self.formats
        entries = [
            {"object": "embedding", "index": index, "embedding": self.encode(vector_of(text), is_base64=is_base64)}
            for index, text in enumerate(body["input"])
        ]
        entries.reverse()
        answer = {"object": "list", "data": entries, "model": body["model"], "usage": {"prompt_tokens": len(entries)}}
        return web.json_response(answer | self.overrides)

    @staticmethod
    def encode(vector: list[float], *, is_base64: bool) -> object:
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if is_base64 else vector


async def model_of(serve: Serve, client: EgressClient, server: EmbeddingServer, **given: Any) -> OpenAIEmbeddingModel:
    provider = OpenAIProvider(client, name="acme", base_url=await serve(server.handle))
    return OpenAIEmbeddingModel(provider, "m", **given)


@pytest.mark.parametrize(
    "server",
    [
        pytest.param(EmbeddingServer(), id="knows-base64"),
        pytest.param(EmbeddingServer(formats=["float"]), id="ignores-base64"),
        pytest.param(EmbeddingServer(formats=["float"], refuses_unknown=True), id="refuses-base64"),
    ],
)
async def test_vectors_come_in_the_order_of_the_texts_whatever_the_server_knows(
    serve: Serve, client: EgressClient, server: EmbeddingServer
) -> None:
    model = await model_of(serve, client, server)
    assert model.dimensions is None

    for texts in (["a", "bbb", "cc"], ["dddd"]):
        result = await model.embed(texts)
        assert result.vectors == tuple(array("f", vector_of(text)) for text in texts)
        assert result.usage.input_tokens == len(texts)

    assert model.dimensions == 3
    assert server.bodies[0]["encoding_format"] == "base64"


async def test_a_refused_format_is_asked_for_once(serve: Serve, client: EgressClient) -> None:
    server = EmbeddingServer(formats=["float"], refuses_unknown=True)
    model = await model_of(serve, client, server)

    for _ in range(3):
        await model.embed(["a"])

    assert ["encoding_format" in body for body in server.bodies] == [True, False, False, False]


async def test_a_refused_text_is_the_callers_error_and_not_asked_for_twice_once_the_format_is_known(
    serve: Serve, client: EgressClient
) -> None:
    seen = []

    async def handler(request: web.Request) -> web.Response:
        texts = (await request.json())["input"]
        seen.append(texts)
        if "bad" in texts:
            return web.json_response({"error": {"message": "input is too long"}}, status=400)
        return web.json_response({"data": [{"index": 0, "embedding": [1.0]}]})

    model = OpenAIEmbeddingModel(OpenAIProvider(client, name="acme", base_url=await serve(handler)), "m")
    await model.embed(["good"])
    with pytest.raises(InvalidRequest, match="too long"):
        await model.embed(["bad"])

    assert seen == [["good"], ["bad"]]


async def test_a_rate_limit_tells_when_to_come_back(serve: Serve, client: EgressClient) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.json_response({"error": {"message": "slow down"}}, status=429, headers={"retry-after": "9"})

    model = OpenAIEmbeddingModel(OpenAIProvider(client, name="acme", base_url=await serve(handler)), "m")
    with pytest.raises(RateLimited) as caught:
        await model.embed(["a"])

    assert caught.value.retry_after_s == 9.0


async def test_nothing_to_embed_asks_nothing_and_too_much_is_a_mistake(serve: Serve, client: EgressClient) -> None:
    server = EmbeddingServer()
    model = await model_of(serve, client, server, max_batch=2)

    assert (await model.embed([])).vectors == ()
    with pytest.raises(ValueError, match="at most 2"):
        await model.embed(["a", "b", "c"])
    assert server.bodies == []


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param({"data": []}, id="none"),
        pytest.param({"data": None}, id="null"),
        pytest.param({"data": [{"index": 0, "embedding": [1.0]}]}, id="too-few"),
        pytest.param({"data": [{"index": 0, "embedding": [1.0]}] * 2}, id="same-index"),
        pytest.param({"data": [{"index": 0, "embedding": [1.0]}, {"index": 2, "embedding": [1.0]}]}, id="wrong-index"),
        pytest.param({"data": [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": []}]}, id="empty"),
        pytest.param({"data": [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0, 2]}]}, id="lengths"),
        pytest.param({"data": [{"index": 0, "embedding": ["a"]}, {"index": 1, "embedding": [1.0]}]}, id="words"),
        pytest.param({"data": [{"index": 0, "embedding": "?"}, {"index": 1, "embedding": "?"}]}, id="no-base64"),
        pytest.param({"data": [{"index": 0, "embedding": "AAA="}, {"index": 1, "embedding": "AAA="}]}, id="no-floats"),
        pytest.param({"data": ["a", "b"]}, id="no-objects"),
        pytest.param({"data": [{"index": "x", "embedding": [1.0]}] * 2}, id="index-word"),
    ],
)
async def test_an_answer_without_one_vector_per_text_is_a_failure(
    serve: Serve, client: EgressClient, overrides: dict[str, object]
) -> None:
    server = EmbeddingServer()
    server.overrides = overrides

    with pytest.raises(ProviderFailed):
        await (await model_of(serve, client, server)).embed(["a", "b"])


@pytest.mark.parametrize("body", [b"nonsense", b"[]", b"null", b"{}", b"\xff"])
async def test_an_answer_that_is_no_object_is_a_failure(serve: Serve, client: EgressClient, body: bytes) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    model = OpenAIEmbeddingModel(OpenAIProvider(client, name="acme", base_url=await serve(handler)), "m")
    with pytest.raises(ProviderFailed):
        await model.embed(["a"])


async def test_vectors_of_another_length_than_before_are_refused(serve: Serve, client: EgressClient) -> None:
    server = EmbeddingServer()
    model = await model_of(serve, client, server)
    await model.embed(["a"])
    server.overrides = {"data": [{"index": 0, "embedding": [1.0, 2.0]}]}

    with pytest.raises(WrongDimensions, match="2 dimensions instead of 3"):
        await model.embed(["a"])


async def test_usage_that_the_server_does_not_report_is_unknown(serve: Serve, client: EgressClient) -> None:
    server = EmbeddingServer()
    server.overrides = {"usage": None}

    assert (await (await model_of(serve, client, server)).embed(["a"])).usage.input_tokens is None


async def test_batches_at_once_do_not_disturb_each_other(serve: Serve, client: EgressClient) -> None:
    server = EmbeddingServer(formats=["float"], refuses_unknown=True)
    model = await model_of(serve, client, server)

    results = await asyncio.gather(*(model.embed(["x" * length]) for length in range(1, 20)))

    assert [result.vectors[0][0] for result in results] == list(range(1, 20))


async def test_known_models_bring_their_sizes_and_a_choice_of_dimensions_is_asked_for(
    serve: Serve, client: EgressClient
) -> None:
    server = EmbeddingServer()
    provider = OpenAIProvider(client, name="openai", base_url=await serve(server.handle) + "/v1?key=secret")
    small = OpenAIEmbeddingModel(provider, "text-embedding-3-small")
    short = OpenAIEmbeddingModel(provider, "text-embedding-3-large", dimensions=3)
    other = OpenAIEmbeddingModel(provider, "nomic-embed-text", max_input_tokens=2048)

    assert (small.name, small.dimensions, small.max_input_tokens) == ("openai/text-embedding-3-small", 1536, 8191)
    assert (short.dimensions, other.dimensions, other.max_input_tokens) == (3, None, 2048)
    fingerprints = {small.fingerprint, short.fingerprint, other.fingerprint}
    fingerprints.add(OpenAIEmbeddingModel(provider, "text-embedding-3-large").fingerprint)
    assert len(fingerprints) == 4
    assert "secret" not in json.dumps(sorted(fingerprints))

    await short.embed(["a"])
    with pytest.raises(ProviderFailed, match="instead of 1536"):
        await small.embed(["a"])
    assert [body.get("dimensions") for body in server.bodies] == [3, None]


async def test_learning_the_dimensions_does_not_change_the_fingerprint(serve: Serve, client: EgressClient) -> None:
    model = await model_of(serve, client, EmbeddingServer())
    before = model.fingerprint
    await model.embed(["a"])

    assert model.fingerprint == before
