from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from bonito.egress.client import EgressClient
from bonito.egress.policy import EgressPolicy
from bonito.errors import AddressNotAllowed, BonitoError, InvalidRequest, ProviderFailed, ProviderTimeout, RateLimited
from bonito.providers.base import ProviderRequest
from bonito.providers.openai_http import OpenAIProvider
from tests.server_sent_events import EventReader

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[str]]
KEY = "sk-test-0123456789"
# Bytes that no JSON library would write again as they are: spaces, escapes, forms of numbers, fields twice or unknown.
ODD_BODY = (
    b'{ "model":"m" , "messages":[{"role":"user","content":"\\u00e9 \xc3\xa9"}],'
    b'"temperature":1.0e0,"x_new":{},"x_new":[1, 2] }\n'
)


def chat(body: bytes = b'{"model":"m","messages":[]}', **given: Any) -> ProviderRequest:
    return ProviderRequest("chat.completions", body, **given)


async def read(provider: OpenAIProvider, request: ProviderRequest) -> bytes:
    response = await provider.call(request)
    try:
        return b"".join([piece async for piece in response.chunks()])
    finally:
        await response.aclose()


class Upstream:
    """Answers everything with one answer and keeps what arrived."""

    def __init__(self, answer: Callable[[], web.Response]) -> None:
        self.answer = answer
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []

    async def handle(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((request.method, request.path_qs, headers, await request.read()))
        return self.answer()


@pytest.mark.parametrize(
    ("operation", "path"),
    [
        ("chat.completions", "/v1/chat/completions"),
        ("completions", "/v1/completions"),
        ("embeddings", "/v1/embeddings"),
    ],
)
async def test_a_body_reaches_the_provider_and_comes_back_byte_for_byte(
    serve: Serve, client: EgressClient, operation: str, path: str
) -> None:
    upstream = Upstream(lambda: web.Response(body=ODD_BODY, content_type="application/json"))
    provider = OpenAIProvider(client, name="acme", base_url=await serve(upstream.handle) + "/v1/", api_key=KEY)

    answer = await read(provider, ProviderRequest(operation, ODD_BODY))

    assert answer == ODD_BODY
    [(method, seen_path, _headers, body)] = upstream.requests
    assert (method, seen_path, body) == ("POST", path, ODD_BODY)


async def test_the_provider_sees_its_own_credential_and_never_the_callers(serve: Serve, client: EgressClient) -> None:
    upstream = Upstream(lambda: web.json_response({}))
    base = await serve(upstream.handle)
    provider = OpenAIProvider(
        client,
        name="acme",
        base_url=f"{base}/v1?v=2",
        api_key=f" {KEY}\n",
        organization="org-1",
        headers={"X-Extra": "e"},
    )
    theirs = {
        "Authorization": "Bearer bn-ours",
        "Cookie": "a=b",
        "X-Trace": "t",
        "Accept-Encoding": "gzip",
        "Host": "x",
    }

    await read(provider, chat(headers=theirs))
    await read(OpenAIProvider(client, name="open", base_url=base), chat(headers=theirs))

    [(_, path, headers, _), (_, _, keyless, _)] = upstream.requests
    assert path == "/v1/chat/completions?v=2"
    assert headers["authorization"] == f"Bearer {KEY}"
    assert (headers["openai-organization"], headers["x-extra"], headers["x-trace"]) == ("org-1", "e", "t")
    assert (headers["content-type"], headers["accept-encoding"]) == ("application/json", "identity")
    assert base.endswith(headers["host"])
    assert "cookie" not in headers
    assert "authorization" not in keyless


async def test_a_stream_arrives_piece_by_piece_before_it_has_ended(serve: Serve, client: EgressClient) -> None:
    may_go_on = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await answer.prepare(request)
        await answer.write(b'data: {"n": 1}\n\n')
        await may_go_on.wait()
        await answer.write(b'data: {"n": 2}\n\ndata: [DONE]\n\n')
        return answer

    provider = OpenAIProvider(client, name="acme", base_url=await serve(handler))
    response = await provider.call(chat(is_stream=True))
    pieces = response.chunks()

    assert response.content_type == "text/event-stream"
    assert await anext(pieces) == b'data: {"n": 1}\n\n'
    may_go_on.set()
    rest = b"".join([piece async for piece in pieces])
    await response.aclose()
    assert [event.data for event in EventReader().feed(rest)] == ['{"n": 2}', "[DONE]"]


async def test_closing_a_stream_early_hangs_up_at_the_provider(serve: Serve, client: EgressClient) -> None:
    gone = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        try:
            await answer.write(b"data: 1\n\n")
            await asyncio.sleep(60)  # the model is thinking: only the closed connection ends this
        finally:
            gone.set()
        return answer

    provider = OpenAIProvider(client, name="acme", base_url=await serve(handler))
    response = await provider.call(chat(is_stream=True))
    async for _ in response.chunks():
        break
    await response.aclose()

    await asyncio.wait_for(gone.wait(), 60)
    await response.aclose()


async def test_cancelling_the_reader_or_the_call_hangs_up_at_the_provider(serve: Serve, client: EgressClient) -> None:
    arrived: asyncio.Queue[str] = asyncio.Queue()
    gone: asyncio.Queue[str] = asyncio.Queue()

    async def handler(request: web.Request) -> web.StreamResponse:
        body = (await request.read()).decode()
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        try:
            if body == "head":
                await answer.prepare(request)
            arrived.put_nowait(body)
            await asyncio.sleep(60)
        finally:
            gone.put_nowait(body)
        return answer

    provider = OpenAIProvider(client, name="acme", base_url=await serve(handler))
    for body in ("head", "no head"):
        task = asyncio.create_task(read(provider, chat(body.encode(), is_stream=True)))
        await asyncio.wait_for(arrived.get(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.wait_for(gone.get(), 10) == body


async def test_a_connection_is_used_again_after_a_whole_answer(serve: Serve, client: EgressClient) -> None:
    peers = set()

    async def handler(request: web.Request) -> web.Response:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return web.json_response({})

    provider = OpenAIProvider(client, name="acme", base_url=await serve(handler))
    for _ in range(3):
        await read(provider, chat())

    assert len(peers) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequest),
        (404, InvalidRequest),
        (413, InvalidRequest),
        (422, InvalidRequest),
        (401, ProviderFailed),
        (403, ProviderFailed),
        (429, RateLimited),
        (302, ProviderFailed),
        (500, ProviderFailed),
        (503, ProviderFailed),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_refusal_is_a_typed_error_without_the_key(
    serve: Serve, client: EgressClient, status: int, kind: type[BonitoError], is_stream: bool
) -> None:
    body = {"error": {"message": f"no {KEY} for you", "param": "model"}}
    upstream = Upstream(lambda: web.json_response(body, status=status, headers={"retry-after": "3", "location": "/x"}))
    provider = OpenAIProvider(client, name="acme", base_url=await serve(upstream.handle), api_key=KEY)

    with pytest.raises(BonitoError) as caught:
        await provider.call(chat(is_stream=is_stream))

    assert type(caught.value) is kind
    assert KEY not in caught.value.message
    assert len(upstream.requests) == 1
    if kind is RateLimited:
        assert caught.value.retry_after_s == 3.0
    if kind is InvalidRequest:
        assert (caught.value.message, caught.value.param) == ("no [removed] for you", "model")


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda: web.Response(text="<html>login</html>", content_type="text/html"), id="page"),
        pytest.param(lambda: web.Response(text="OK"), id="text"),
        pytest.param(lambda: web.Response(body=b"{}", content_type="application/octet-stream"), id="bytes"),
        pytest.param(
            lambda: web.Response(
                body=b"\x1f\x8b", content_type="application/json", headers={"content-encoding": "gzip"}
            ),
            id="compressed",
        ),
        pytest.param(
            lambda: web.Response(status=404, text="<html>nginx</html>", content_type="text/html"), id="404-page"
        ),
    ],
)
async def test_an_answer_that_is_not_in_the_dialect_is_the_providers_failure(
    serve: Serve, client: EgressClient, answer: Callable[[], web.Response]
) -> None:
    provider = OpenAIProvider(client, name="acme", base_url=await serve(Upstream(answer).handle))

    with pytest.raises(ProviderFailed, match="acme"):
        await provider.call(chat())
    with pytest.raises(ProviderFailed, match="acme"):
        await provider.models()


async def test_an_endless_error_body_is_not_read_to_its_end(serve: Serve, client: EgressClient) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(status=500)
        await answer.prepare(request)
        while True:
            await answer.write(b"x" * 65536)

    provider = OpenAIProvider(client, name="acme", base_url=await serve(handler))
    with pytest.raises(ProviderFailed):
        await provider.call(chat())


async def test_no_head_in_time_is_a_timeout(serve: Serve, client: EgressClient) -> None:
    async def handler(_request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    provider = OpenAIProvider(client, name="acme", base_url=await serve(handler))
    with pytest.raises(ProviderTimeout):
        await provider.call(chat(timeout_s=0.05))


async def test_silence_inside_a_stream_is_a_timeout_and_a_broken_one_a_failure(
    serve: Serve, client: EgressClient
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        await answer.write(b"data: 1\n\n")
        if await request.read() == b"break":
            assert request.transport is not None
            request.transport.abort()
        await asyncio.sleep(60)
        return answer

    provider = OpenAIProvider(client, name="acme", base_url=await serve(handler), idle_timeout_s=1.0)
    for body, kind in ((b"silence", ProviderTimeout), (b"break", ProviderFailed)):
        with pytest.raises(kind):
            await read(provider, chat(body, is_stream=True))


async def test_a_provider_that_is_not_there_is_a_failure(client: EgressClient) -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()

    with pytest.raises(ProviderFailed):
        await OpenAIProvider(client, name="acme", base_url=f"http://127.0.0.1:{port}").call(chat())


async def test_models_are_listed_as_the_provider_names_them(serve: Serve, client: EgressClient) -> None:
    upstream = Upstream(lambda: web.json_response({"data": [{"id": "b/x"}, {"id": "a"}]}))
    provider = OpenAIProvider(client, name="acme", base_url=await serve(upstream.handle) + "/v1", api_key=KEY)

    assert await provider.models() == ["b/x", "a"]
    [(method, path, headers, _)] = upstream.requests
    assert (method, path, headers["authorization"]) == ("GET", "/v1/models", f"Bearer {KEY}")


@pytest.mark.parametrize("body", ["{}", "[]", "null", '{"data": {}}', '{"data": [1]}', '{"data": [{}]}', "nonsense"])
async def test_a_list_of_models_that_is_none_is_a_failure(serve: Serve, client: EgressClient, body: str) -> None:
    upstream = Upstream(lambda: web.Response(text=body, content_type="application/json"))
    provider = OpenAIProvider(client, name="acme", base_url=await serve(upstream.handle))

    with pytest.raises(ProviderFailed):
        await provider.models()


def test_what_cannot_be_called_is_refused_at_once() -> None:
    guard = EgressClient(EgressPolicy())

    with pytest.raises(AddressNotAllowed):
        OpenAIProvider(guard, name="acme", base_url="http://127.0.0.1:11434/v1")
    with pytest.raises(InvalidRequest, match="key") as caught:
        OpenAIProvider(guard, name="acme", base_url="https://api.example", api_key="sk-a\r\nx: y")
    assert "sk-a" not in caught.value.message
    for headers in ({"X\n": "y"}, {"x": "a\nb"}, {"Host": "x"}, {"transfer-encoding": "x"}):
        with pytest.raises(InvalidRequest):
            OpenAIProvider(guard, name="acme", base_url="https://api.example", headers=headers)


async def test_an_operation_that_the_dialect_lacks_is_refused(client: EgressClient) -> None:
    with pytest.raises(InvalidRequest):
        await OpenAIProvider(client, name="acme", base_url="https://api.example").call(ProviderRequest("images", b""))
