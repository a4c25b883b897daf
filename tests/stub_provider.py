"""A provider on the loopback that speaks OpenAI's dialect, does what a model's name says, and remembers what came."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
WORDS = ("Twenty", " days", " a year [1].")
MODELS = ("echo", "gpt-4o", "text-embedding-3-small")


@dataclass(frozen=True)
class Received:
    """One request, as it came over the wire; names of headers in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class StubProvider:
    """The server's state.

    A model's name says what happens: `status-429` answers that status; `unknown` is refused as OpenAI refuses a model
    that it does not have; `hang` never answers; `gated` streams its first chunk and waits for `gate`; `breaks` cuts the
    connection after two chunks; `error-event` ends with an error inside of the stream; `no-done` ends without the usual
    end; `truncated` just stops; `silent` reports no usage; `not-json` is a page; `strict` knows no `stream_options`.
    Every other model answers.

    Attributes:
        received: every request, oldest first.
        gate: lets a `gated` stream go on.
        hung_up: set when a caller left before the end of an answer.
        has_begun: set when an answer's first chunk was sent, or a request hangs.
        answer: replaces the body of a whole answer.
        events: replaces the events of a stream.
    """

    base_url: str = ""
    received: list[Received] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    has_begun: asyncio.Event = field(default_factory=asyncio.Event)
    models: Sequence[str] = MODELS
    answer: bytes | None = None
    events: Sequence[bytes] | None = None
    headers: dict[str, str] = field(default_factory=dict)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(Received(request.path, headers, body))
        try:
            return await self._answer(request, body)
        except (asyncio.CancelledError, ConnectionResetError):
            self.hung_up.set()
            raise

    async def _answer(self, request: web.Request, body: bytes) -> web.StreamResponse:
        if request.path == "/v1/models":
            listed = [{"id": model, "object": "model", "created": 1, "owned_by": "stub"} for model in self.models]
            return web.json_response({"object": "list", "data": listed})
        asked = json.loads(body, parse_int=str)  # of any length
        model = str(asked["model"])
        if model.startswith("status-"):
            return _refusal(int(model.removeprefix("status-")))
        if model == "unknown":
            error = {"message": "The model `unknown` does not exist.", "type": "invalid_request_error", "param": None}
            return web.json_response({"error": error | {"code": "model_not_found"}}, status=404)
        if model == "strict" and "stream_options" in asked:
            problem = {"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Not permitted"}
            return web.json_response({"detail": [problem]}, status=422)
        if model == "hang":
            self.has_begun.set()
            await asyncio.Event().wait()
        if model == "not-json":
            return web.Response(text="<html>hello</html>", content_type="text/html")
        if asked.get("stream"):
            return await self._stream(request, asked)
        return self._whole(request, asked)

    def _whole(self, request: web.Request, asked: dict[str, Any]) -> web.Response:
        if self.answer is not None:
            return web.Response(body=self.answer, content_type="application/json", headers=self.headers)
        if request.path == "/v1/embeddings":
            data = [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}]
            usage = {"prompt_tokens": 8, "total_tokens": 8}
            return web.json_response({"object": "list", "data": data, "model": asked["model"], "usage": usage})
        text = "".join(WORDS)
        if request.path == "/v1/completions":
            choice: dict[str, Any] = {"index": 0, "text": text, "logprobs": None, "finish_reason": "stop"}
        else:
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        answer = {"id": "chatcmpl-stub", "object": "chat.completion", "created": 1_700_000_000, "model": asked["model"]}
        answer |= {"choices": [choice]} | ({} if asked["model"] == "silent" else {"usage": USAGE})
        return web.json_response(answer, headers=self.headers)

    async def _stream(self, request: web.Request, asked: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        model = asked["model"]
        for number, event in enumerate(self.events or stream_events(asked)):
            await response.write(event)
            self.has_begun.set()
            if number == 0 and model == "gated":
                await self.gate.wait()
            if number == 2 and model == "breaks":
                assert request.transport is not None
                request.transport.abort()
                return response
        await response.write_eof()
        return response


def stream_events(asked: Mapping[str, Any]) -> list[bytes]:
    """The events of an answer, as OpenAI sends them."""
    model = asked["model"]
    includes_usage = bool((asked.get("stream_options") or {}).get("include_usage")) and model != "silent"
    if "prompt" in asked:
        events = [chunk(model, text=word, includes_usage=includes_usage) for word in WORDS]
        events.append(chunk(model, text="", finish_reason="stop", includes_usage=includes_usage))
    else:
        events = [chunk(model, {"role": "assistant", "content": "", "refusal": None}, includes_usage=includes_usage)]
        events += [chunk(model, {"content": word}, includes_usage=includes_usage) for word in WORDS]
        events.append(chunk(model, {}, finish_reason="stop", includes_usage=includes_usage))
    if model == "truncated":
        return events[:-1]
    if model == "error-event":
        return [*events[:-1], b'data: {"error": {"message": "sk-canary leaked", "type": "server_error"}}\n\n']
    if includes_usage:
        events.append(encode({**head(model), "choices": [], "usage": USAGE}))
    return events if model == "no-done" else [*events, b"data: [DONE]\n\n"]


def head(model: str) -> dict[str, Any]:
    return {"id": "chatcmpl-stub", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": model}


def chunk(
    model: str,
    delta: Mapping[str, Any] | None = None,
    *,
    text: str | None = None,
    finish_reason: str | None = None,
    includes_usage: bool = False,
    index: int = 0,
) -> bytes:
    choice: dict[str, Any] = {"index": index, "logprobs": None, "finish_reason": finish_reason}
    choice |= {"text": text} if delta is None else {"delta": delta}
    return encode({**head(model), "choices": [choice]} | ({"usage": None} if includes_usage else {}))


def encode(value: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _refusal(status: int) -> web.Response:
    error = {"message": f"stub says {status}", "type": "stub", "param": "temperature", "code": str(status)}
    headers = {"retry-after": "7"} if status == 429 else {}
    return web.json_response({"error": error}, status=status, headers=headers)


@asynccontextmanager
async def serving() -> AsyncIterator[StubProvider]:
    """A stub on a port of its own."""
    stub = StubProvider()
    app = web.Application(client_max_size=64 * 2**20)
    app.router.add_route("*", "/{path:.*}", stub.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    stub.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield stub
    finally:
        await runner.cleanup()
