"""An OpenAI-style provider of embeddings on loopback: equal texts get equal vectors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from tests.integration.knowledge.served import vector_of


@dataclass
class Embeddings:
    """The server's state.

    Attributes:
        refusals: statuses of the next answers.
        paid: the texts that were embedded.
        gate: answers wait for it.
        was_asked: set with the first request.
    """

    base_url: str = ""
    refusals: list[int] = field(default_factory=list)
    paid: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    was_asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.Response:
        self.was_asked.set()
        await self.gate.wait()
        if self.refusals:
            error = {"message": "not now", "type": "server_error", "param": None, "code": None}
            return web.json_response({"error": error}, status=self.refusals.pop(0))
        texts = (await request.json())["input"]
        self.paid.extend(texts)
        data = [
            {"object": "embedding", "index": index, "embedding": list(vector_of(text))}
            for index, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
        return web.json_response({"object": "list", "data": data, "model": "hash", "usage": usage})


@asynccontextmanager
async def serving() -> AsyncIterator[Embeddings]:
    """The provider on a port of its own."""
    provider = Embeddings()
    provider.gate.set()
    app = web.Application(client_max_size=64 * 2**20)
    app.router.add_post("/v1/embeddings", provider.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    provider.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield provider
    finally:
        await runner.cleanup()
