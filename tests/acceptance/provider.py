"""A model provider for the tests, served from a thread: what `tests.stub_provider` answers, and vectors of words."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from tests.stub_provider import StubProvider

CHAT_MODEL, EMBEDDING_MODEL = "gpt-4o", "text-embedding-3-small"
DIMENSIONS = 1536  # what text-embedding-3-small is known to have


@contextmanager
def running() -> Iterator[StubProvider]:
    """A stub on a port of its own; its events may be looked at, not waited for, from here."""
    stub = StubProvider()
    loop = asyncio.new_event_loop()
    runner = loop.run_until_complete(_start(stub))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield stub
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _start(stub: StubProvider) -> web.AppRunner:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await (_embed(stub, request) if request.path == "/v1/embeddings" else stub.handle(request))

    app = web.Application(client_max_size=64 * 2**20)
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    stub.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    return runner


async def _embed(stub: StubProvider, request: web.Request) -> web.Response:
    asked = json.loads(await request.read())
    texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
    as_text = asked.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(vector(text)) if as_text else vector(text)}
        for index, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
    return web.json_response({"object": "list", "data": data, "model": asked["model"], "usage": usage})


def vector(text: str) -> list[float]:
    """Each word counts at a place of its own."""
    counts = [0.0] * DIMENSIONS
    for word in re.findall(r"\w+", text.lower()):
        counts[zlib.crc32(word.encode()) % DIMENSIONS] += 1.0
    return counts if any(counts) else [1.0] * DIMENSIONS


def _encoded(numbers: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()
