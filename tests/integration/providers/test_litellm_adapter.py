"""LiteLLM for real, against servers that speak the vendors' own protocols."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import openai.types.chat as openai_chat
import pytest
from aiohttp import web

from bonito.egress.client import EgressClient
from bonito.egress.policy import EgressPolicy
from bonito.errors import (
    AddressNotAllowed,
    BonitoError,
    InvalidRequest,
    ModelNotFound,
    ProviderFailed,
    ProviderTimeout,
    RateLimited,
)
from bonito.providers.base import Provider, ProviderRequest
from bonito.providers.litellm_adapter import NEED_A_BASE_URL, VENDORS, LiteLLMProvider
from tests.server_sent_events import EventReader

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[str]]
KEY = "sk-ant-0123456789abcdef"
MODEL = "claude-3-5-haiku-20241022"
AWS = {"aws_access_key_id": "AKIAEXAMPLE", "aws_secret_access_key": "secret/secret", "aws_region_name": "us-east-1"}

# What LiteLLM's own modules warn of while they are loaded is not ours to mend.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*`ReadOnly` qualifier:UserWarning"),
]


class Anthropic:
    """Speaks Anthropic's Messages API: https://docs.anthropic.com/en/api/messages."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.refusal: tuple[int, dict[str, str], object] | None = None
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.gone = asyncio.Event()
        self.arrived = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append((request.path, {n.lower(): v for n, v in request.headers.items()}, body))
        self.arrived.set()
        if self.refusal is not None:
            status, headers, answer = self.refusal
            return web.json_response(answer, status=status, headers=headers)
        try:
            if body.get("stream"):
                return await self.stream(request, body["model"])
            await self.may_end.wait()
        except BaseException:
            self.gone.set()
            raise
        return web.json_response(
            self.message(body["model"])
            | {"content": [{"type": "text", "text": "Good day"}], "stop_reason": "end_turn"}
            | {"usage": {"input_tokens": 12, "output_tokens": 3}}
        )

    async def stream(self, request: web.Request, model: str) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)

        async def send(kind: str, **fields: object) -> None:
            await answer.write(f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode())

        await send("message_start", message=self.message(model) | {"usage": {"input_tokens": 12, "output_tokens": 1}})
        await send("content_block_start", index=0, content_block={"type": "text", "text": ""})
        await send("content_block_delta", index=0, delta={"type": "text_delta", "text": "Good "})
        await self.may_end.wait()
        await send("content_block_delta", index=0, delta={"type": "text_delta", "text": "day"})
        await send("content_block_stop", index=0)
        await send("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 3})
        await send("message_stop")
        return answer

    @staticmethod
    def message(model: str) -> dict[str, object]:
        return {"id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": []} | {
            "stop_reason": None,
            "stop_sequence": None,
        }


def request_of(*, is_stream: bool = False, timeout_s: float = 60.0, **fields: object) -> ProviderRequest:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    body = {"model": MODEL, "messages": messages, "max_tokens": 50, **fields}
    return ProviderRequest("chat.completions", json.dumps(body).encode(), is_stream=is_stream, timeout_s=timeout_s)


async def read(provider: Provider, request: ProviderRequest) -> bytes:
    response = await provider.call(request)
    try:
        return b"".join([piece async for piece in response.chunks()])
    finally:
        await response.aclose()


@pytest.fixture
async def upstream() -> Anthropic:
    return Anthropic()


@pytest.fixture
async def provider(serve: Serve, client: EgressClient, upstream: Anthropic) -> LiteLLMProvider:
    base_url = await serve(upstream.handle)
    return LiteLLMProvider(client, name="acme", vendor="anthropic", credential={"api_key": KEY}, base_url=base_url)


async def test_a_chat_is_translated_both_ways(provider: LiteLLMProvider, upstream: Anthropic) -> None:
    answer = json.loads(await read(provider, request_of(temperature=0.5, stop=["x"])))
    completion = openai_chat.ChatCompletion.model_validate(answer)

    assert completion.choices[0].message.content == "Good day"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (12, 3)
    [(path, headers, body)] = upstream.requests
    assert path == "/v1/messages"
    assert headers["x-api-key"] == KEY
    assert body["model"] == MODEL
    assert "Be brief." in json.dumps(body["system"])
    assert (body["temperature"], body["stop_sequences"], body["max_tokens"]) == (0.5, ["x"], 50)


async def test_a_stream_is_translated_while_it_runs(provider: LiteLLMProvider, upstream: Anthropic) -> None:
    upstream.may_end.clear()
    response = await provider.call(request_of(is_stream=True, stream_options={"include_usage": True}))
    pieces, reader = response.chunks(), EventReader()
    events = reader.feed(await anext(pieces))

    assert json.loads(events[0].data)["choices"][0]["delta"] == {"role": "assistant", "content": "Good "}
    upstream.may_end.set()
    async for piece in pieces:
        events += reader.feed(piece)
    await response.aclose()
    assert events[-1].data == "[DONE]"
    chunks = [openai_chat.ChatCompletionChunk.model_validate_json(event.data) for event in events[:-1]]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "Good day"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (12, 3)


@pytest.mark.parametrize("begins", [False, True])
async def test_closing_a_stream_early_hangs_up_at_the_provider(
    provider: LiteLLMProvider, upstream: Anthropic, begins: bool
) -> None:
    upstream.may_end.clear()
    response = await provider.call(request_of(is_stream=True))
    if begins:
        await anext(response.chunks())
    await response.aclose()

    await asyncio.wait_for(upstream.gone.wait(), 60)


async def test_cancelling_the_call_hangs_up_at_the_provider(provider: LiteLLMProvider, upstream: Anthropic) -> None:
    upstream.may_end.clear()
    task = asyncio.create_task(read(provider, request_of()))
    await asyncio.wait_for(upstream.arrived.wait(), 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await asyncio.wait_for(upstream.gone.wait(), 60)


async def test_no_answer_in_time_is_a_timeout_and_is_not_tried_again(
    provider: LiteLLMProvider, upstream: Anthropic
) -> None:
    await provider.models()  # the import is not part of the call's time
    upstream.may_end.clear()
    with pytest.raises(ProviderTimeout):
        await provider.call(request_of(timeout_s=3.0))

    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequest),
        (404, InvalidRequest),
        (413, InvalidRequest),
        (401, ProviderFailed),
        (403, ProviderFailed),
        (429, RateLimited),
        (302, ProviderFailed),
        (500, ProviderFailed),
        (529, ProviderFailed),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_refusal_is_a_typed_error_without_the_key_and_is_not_tried_again(
    provider: LiteLLMProvider, upstream: Anthropic, status: int, kind: type[BonitoError], is_stream: bool
) -> None:
    body = {"type": "error", "error": {"type": "x", "message": f"no {KEY} for you"}}
    upstream.refusal = (status, {"retry-after": "7", "location": "/elsewhere"}, body)

    with pytest.raises(BonitoError) as caught:
        await provider.call(request_of(is_stream=is_stream))

    assert type(caught.value) is kind
    assert KEY not in caught.value.message
    assert len(upstream.requests) == 1
    if kind is RateLimited:
        assert caught.value.retry_after_s == 7.0
    if kind is InvalidRequest:
        assert caught.value.message == "no [removed] for you"


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_model_that_the_vendor_does_not_have_is_not_found(
    provider: LiteLLMProvider, upstream: Anthropic, is_stream: bool
) -> None:
    upstream.refusal = (404, {}, {"type": "error", "error": {"type": "not_found_error", "message": f"model: {MODEL}"}})

    with pytest.raises(ModelNotFound) as caught:
        await provider.call(request_of(is_stream=is_stream))

    assert (caught.value.message, caught.value.param) == (f"model: {MODEL}", "model")


async def test_a_provider_that_is_not_there_is_a_failure(client: EgressClient) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        base_url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        given = {"api_key": KEY}
        with pytest.raises(ProviderFailed):
            await LiteLLMProvider(client, name="a", vendor="anthropic", credential=given, base_url=base_url).call(
                request_of()
            )


async def test_a_parameter_that_the_vendor_does_not_know_is_refused_and_not_dropped(
    provider: LiteLLMProvider, upstream: Anthropic
) -> None:
    with pytest.raises(InvalidRequest, match="logit_bias"):
        await provider.call(request_of(logit_bias={"1": 5}))

    assert upstream.requests == []


STEERING = ["api_base", "base_url", "api_key", "custom_llm_provider", "mock_response", "fallbacks", "extra_headers"]
STEERING += ["metadata", "client", "aws_profile_name", "vertex_credentials", "model_list", "num_retries", "bonito"]


@pytest.mark.parametrize("field", STEERING)
async def test_what_steers_litellm_is_no_field_of_a_request(
    provider: LiteLLMProvider, upstream: Anthropic, field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await provider.call(request_of(**{field: "http://127.0.0.1:9"}))

    assert caught.value.param == field
    assert upstream.requests == []


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "http://127.0.0.1:9/x"},
        {"model": "../../v1/files"},
        {"model": ""},
        {"model": 5},
        {"model": "a b"},
        {"messages": []},
        {"tools": [{"type": "mcp", "server_url": "http://127.0.0.1:9"}]},
        {"tools": "x"},
    ],
)
async def test_a_request_that_cannot_be_sent_is_refused(provider: LiteLLMProvider, fields: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        await provider.call(request_of(**fields))


async def test_a_body_that_is_no_request_and_an_unknown_operation_are_refused(provider: LiteLLMProvider) -> None:
    for body in (b"", b"[]", b"\xff", b"[" * 100_000):
        with pytest.raises(InvalidRequest):
            await provider.call(ProviderRequest("chat.completions", body))
    with pytest.raises(InvalidRequest):
        await provider.call(ProviderRequest("completions", b"{}"))


async def test_an_address_in_a_message_is_fetched_by_nobody_or_through_the_guard(
    provider: LiteLLMProvider, upstream: Anthropic
) -> None:
    part = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest/meta-data"}}
    with pytest.raises(BonitoError):
        await provider.call(request_of(messages=[{"role": "user", "content": [part]}]))

    assert upstream.requests == []


async def test_an_embedding_is_translated(serve: Serve, client: EgressClient) -> None:
    seen = []

    async def handler(request: web.Request) -> web.Response:
        seen.append((request.path, await request.json()))
        entry = {"object": "embedding", "index": 0, "embedding": [0.5, -1.0]}
        return web.json_response(
            {"object": "list", "data": [entry], "model": "m", "usage": {"prompt_tokens": 2, "total_tokens": 2}}
        )

    base_url = await serve(handler)
    provider = LiteLLMProvider(client, name="a", vendor="mistral", credential={"api_key": KEY}, base_url=base_url)
    request = ProviderRequest("embeddings", json.dumps({"model": "mistral-embed", "input": ["a"]}).encode())
    answer = json.loads(await read(provider, request))

    assert answer["data"][0]["embedding"] == [0.5, -1.0]
    assert answer["usage"]["prompt_tokens"] == 2
    assert seen[0][1]["input"] == ["a"]


@pytest.mark.parametrize("vendor", sorted(VENDORS))
async def test_every_vendor_goes_through_the_guard_and_asks_once(vendor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    around: list[object] = []

    async def lookup(host: str) -> Sequence[str]:
        asked.append(host)
        return ["10.0.0.1"]

    def watch(host: object, *_args: object, **_given: object) -> object:
        around.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "watched")

    credential = dict(AWS) if vendor == "bedrock" else {"api_key": KEY}
    if vendor == "azure":
        credential["api_version"] = "2024-06-01"
    base_url = "https://base.example/v1" if vendor in NEED_A_BASE_URL else None
    async with EgressClient(EgressPolicy(), lookup=lookup) as guard:
        provider = LiteLLMProvider(guard, name="a", vendor=vendor, credential=credential, base_url=base_url)
        await provider.models()
        monkeypatch.setattr(socket, "getaddrinfo", watch)
        body = {"model": "anthropic.claude-3-haiku-20240307-v1:0", "messages": [{"role": "user", "content": "Hello"}]}
        with pytest.raises(AddressNotAllowed):
            await provider.call(ProviderRequest("chat.completions", json.dumps(body).encode()))

    assert len(asked) == 1
    assert around == []


@pytest.mark.parametrize(
    ("vendor", "credential"),
    [
        ("nobody", {"api_key": KEY}),
        ("sagemaker", AWS),
        ("anthropic", {}),
        ("anthropic", {"api_key": ""}),
        ("anthropic", {"api_key": "a\nb"}),
        ("anthropic", {"api_key": KEY, "api_base": "http://127.0.0.1"}),
        ("bedrock", {"api_key": KEY}),
        ("bedrock", AWS | {"aws_region_name": "evil.example/#"}),
        ("bedrock", AWS | {"aws_profile_name": "default"}),
        ("azure", {"api_key": KEY}),
    ],
)
async def test_a_credential_that_would_use_or_send_something_else_is_refused(
    client: EgressClient, vendor: str, credential: dict[str, str]
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        LiteLLMProvider(client, name="a", vendor=vendor, credential=credential)

    assert KEY not in caught.value.message


async def test_a_base_url_must_be_allowed() -> None:
    guard = EgressClient(EgressPolicy())
    with pytest.raises(AddressNotAllowed):
        LiteLLMProvider(
            guard, name="a", vendor="anthropic", credential={"api_key": KEY}, base_url="http://169.254.169.254"
        )


async def test_configured_models_are_listed_as_they_are(client: EgressClient) -> None:
    given = {"api_key": KEY}

    assert await LiteLLMProvider(client, name="a", vendor="groq", credential=given, models=["x"]).models() == ["x"]
    listed = await LiteLLMProvider(client, name="a", vendor="anthropic", credential=given).models()
    assert any(model.startswith("claude-") for model in listed)


def test_without_litellm_the_error_names_the_extra() -> None:
    script = f"""
import asyncio, sys
sys.modules["litellm"] = None
from bonito.egress.client import EgressClient
from bonito.egress.policy import EgressPolicy
from bonito.errors import ProviderFailed
from bonito.providers.base import ProviderRequest
from bonito.providers.litellm_adapter import LiteLLMProvider
provider = LiteLLMProvider(EgressClient(EgressPolicy()), name="a", vendor="groq", credential={{"api_key": "{KEY}"}})
body = b'{{"model": "m", "messages": [{{"role": "user", "content": "x"}}]}}'
try:
    asyncio.run(provider.call(ProviderRequest("chat.completions", body)))
except ProviderFailed as error:
    print(error.message)
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert "bonito[litellm]" in found.stdout
