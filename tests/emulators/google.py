"""What Google's services say and fake-gcs-server does not: answers that a test puts in line, on the loopback."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from bonito.clouds.access import BearerToken

Answer = Callable[[web.Request], Any]


@dataclass
class StaticAccess:
    """TokenAccess of somebody who has it; remembers the scopes that were asked for."""

    scopes: list[str] = field(default_factory=list)

    async def token(self, scope: str) -> BearerToken:
        self.scopes.append(scope)
        return BearerToken("token-of-the-connection", datetime.now(UTC) + timedelta(hours=1))


@dataclass
class Google:
    """The server's state.

    Attributes:
        answers: what comes next, in this order; the last one stays.
        received: every request, with its body.
    """

    url: str = ""
    answers: list[Answer] = field(default_factory=list)
    received: list[tuple[web.Request, bytes]] = field(default_factory=list)

    def says(self, *answers: Answer) -> None:
        self.answers[:] = answers

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.received.append((request, await request.read()))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        response = answer(request)
        if not isinstance(response, web.StreamResponse):
            response = await response
        assert isinstance(response, web.StreamResponse)
        return response


def refusing(status: int, message: str, *, reason: str = "", headers: Mapping[str, str] | None = None) -> Answer:
    """An error as Cloud Storage writes it."""
    error = {"code": status, "message": message}
    if reason:
        error["errors"] = [{"message": message, "domain": "global", "reason": reason}]  # type: ignore[assignment]
    return lambda request: web.json_response({"error": error}, status=status, headers=headers)


def answering(body: Mapping[str, Any]) -> Answer:
    return lambda request: web.Response(text=json.dumps(body), content_type="application/json")


@asynccontextmanager
async def serving() -> AsyncIterator[Google]:
    """A server on a port of its own."""
    google = Google()
    app = web.Application(client_max_size=64 * 2**20)
    app.router.add_route("*", "/{path:.*}", google.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    google.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield google
    finally:
        await runner.cleanup()
