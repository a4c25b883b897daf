"""S3 on a bad day: a server on the loopback that answers what S3's documentation says it answers then.

https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

MODIFIED = "Wed, 12 Oct 2022 17:50:00 GMT"
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class FaultyS3:
    """One bucket with one object, and what happens to the next requests.

    Attributes:
        content: of the object at every key.
        etag: its version.
        faults: answers that come instead, one for each request from the first on.
        always: the answer to every request, where there is one.
        received: method and Range of each request.
    """

    url: str = ""
    content: bytes = b"content"
    etag: str = '"one"'
    faults: list[Answer] = field(default_factory=list)
    always: Answer | None = None
    received: list[tuple[str, str | None]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.received.append((request.method, request.headers.get("Range")))
        if self.always is not None:
            return await self.always(request)
        if self.faults:
            return await self.faults.pop(0)(request)
        return await self.whole(request)

    async def whole(self, request: web.Request) -> web.Response:
        """The object, or what is asked of it."""
        headers, status, content = {"ETag": self.etag, "Last-Modified": MODIFIED}, 200, self.content
        if request.headers.get("If-Match", self.etag) != self.etag:
            return _refusal(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
        if asked := request.headers.get("Range"):
            begin = int(asked.removeprefix("bytes=").removesuffix("-"))
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            status, content = 206, content[begin:]
        return web.Response(status=status, body=content, headers=headers)

    def cut_after(self, number: int, *, then: bytes | None = None) -> Answer:
        """Send so many bytes and hang up; the object is replaced by `then`."""

        async def cut(request: web.Request) -> web.StreamResponse:
            asked = request.headers.get("Range")
            begin = int((asked or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
            headers = {"ETag": self.etag, "Last-Modified": MODIFIED}
            if asked:
                headers["Content-Range"] = f"bytes {begin}-{len(self.content) - 1}/{len(self.content)}"
            response = web.StreamResponse(status=206 if asked else 200, headers=headers)
            response.content_length = len(self.content) - begin
            await response.prepare(request)
            await response.write(self.content[begin : begin + number])
            if then is not None:
                self.content, self.etag = then, '"two"'
            assert request.transport is not None
            request.transport.close()
            return response

        return cut


def refuses(status: int, code: str, message: str = "", **headers: str) -> Answer:
    """An error as S3 writes it; a HEAD's has no body."""

    async def refuse(request: web.Request) -> web.Response:
        refusal = _refusal(status, code, message)
        refusal.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
        return refusal if request.method != "HEAD" else web.Response(status=status, headers=headers)

    return refuse


def _refusal(status: int, code: str, message: str) -> web.Response:
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message>'
        "<RequestId>4442587FB7D0A2F9</RequestId><HostId>example</HostId></Error>"
    )
    return web.Response(status=status, body=body.encode(), content_type="application/xml")


async def hangs(request: web.Request) -> web.StreamResponse:
    """Begins an answer and does not go on."""
    response = web.StreamResponse(headers={"ETag": '"one"', "Last-Modified": MODIFIED})
    response.content_length = 7
    await response.prepare(request)
    await response.write(b"con")
    await asyncio.Event().wait()
    return response


@asynccontextmanager
async def serving() -> AsyncIterator[FaultyS3]:
    """On a port of its own."""
    faulty = FaultyS3()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", faulty.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    faulty.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield faulty
    finally:
        await runner.cleanup()
