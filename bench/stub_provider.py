"""The provider of the gateway's benchmark: one process that answers OpenAI's dialect with as little work as can be.

.venv/bin/python -m bench.stub_provider PORT [CHUNKS]
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, cast

import httptools
import uvloop

CHUNKS = 50


def _response(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    event = {"id": "chatcmpl-stub", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "stub"}
    return b"data: " + json.dumps(event | {"choices": [choice]}, separators=(",", ":")).encode() + b"\n\n"


def _whole() -> bytes:
    message = {"role": "assistant", "content": "token " * 20, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 12, "completion_tokens": 20, "total_tokens": 32}
    answer = {"id": "chatcmpl-stub", "object": "chat.completion", "created": 1_700_000_000, "model": "stub"}
    return _response(json.dumps(answer | {"choices": [choice], "usage": usage}).encode())


class StubProtocol(asyncio.Protocol):
    """One connection; a stream is written one event a time, each in an HTTP chunk of its own."""

    whole = _whole()
    models = _response(b'{"object":"list","data":[{"id":"stub","object":"model"}]}')
    stream_head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    chunks = CHUNKS

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._body, self._url = b"", b""
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is none by name

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._body, self._url = b"", b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        assert self._transport is not None
        if self._url.endswith(b"/models"):
            self._transport.write(self.models)
        elif b'"stream":true' in self._body or b'"stream": true' in self._body:
            task = asyncio.get_running_loop().create_task(self._stream(b"include_usage" in self._body))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._transport.write(self.whole)

    async def _stream(self, includes_usage: bool) -> None:
        transport = self._transport
        assert transport is not None
        transport.write(self.stream_head)
        for event in self._events(includes_usage):
            transport.write(b"%x\r\n%b\r\n" % (len(event), event))
            await asyncio.sleep(0)  # so that each leaves by itself, as tokens do
        transport.write(b"0\r\n\r\n")

    def _events(self, includes_usage: bool) -> list[bytes]:
        events = [_chunk({"role": "assistant", "content": ""})]
        events += [_chunk({"content": f"t{number} "}) for number in range(self.chunks)]
        events.append(_chunk({}, "stop"))
        if includes_usage:
            events.append(
                b'data: {"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":50,"total_tokens":62}}\n\n'
            )
        return [*events, b"data: [DONE]\n\n"]


async def serve(port: int) -> None:
    """Serve on the loopback until the process ends."""
    server = await asyncio.get_running_loop().create_server(StubProtocol, "127.0.0.1", port, backlog=1024)
    async with server:
        print("ready", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    StubProtocol.chunks = int(sys.argv[2]) if len(sys.argv) > 2 else CHUNKS
    uvloop.run(serve(int(sys.argv[1])))
