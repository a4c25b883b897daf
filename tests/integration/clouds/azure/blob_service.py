"""A blob service on loopback that answers what Azurite cannot: refusals, broken bodies, directories in the listing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from aiohttp import web

MODIFIED = "Sat, 28 Nov 2026 10:00:00 GMT"
LISTING = (
    '<?xml version="1.0" encoding="utf-8"?><EnumerationResults ContainerName="docs"><Blobs>{}</Blobs><NextMarker/>'
    "</EnumerationResults>"
)
LISTED = (
    "<Blob><Name>{name}</Name><Properties><Last-Modified>{modified}</Last-Modified><Etag>0x1</Etag>"
    "<Content-Length>{size}</Content-Length><BlobType>BlockBlob</BlobType></Properties>"
    "<Metadata>{metadata}</Metadata></Blob>"
)


@dataclass
class BlobService:
    """One container `docs` with one blob.

    Attributes:
        content: of the blob at every key.
        version: its ETag.
        refusal: what every request gets, as status, code and headers; None lets them through.
        breaks: how many answers with a body are to break off in their middle.
        before_read: is called before each range is answered.
        paths: of a hierarchical account; directories and files of a listing.
        asked: method, path and Range of every request.
    """

    url: str = ""
    content: bytes = b""
    version: str = "0x1"
    refusal: tuple[int, str, dict[str, str]] | None = None
    breaks: int = 0
    before_read: Callable[[], None] = lambda: None
    paths: Sequence[str] = ()
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    queries: list[dict[str, str]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.method, request.path, request.headers.get("x-ms-range", "")))
        self.queries.append(dict(request.query))
        if self.refusal is not None:
            status, code, headers = self.refusal
            body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>No.</Message></Error>"
            headers = {"x-ms-error-code": code, "content-type": "application/xml"} | headers
            return web.Response(status=status, headers=headers, body=None if request.method == "HEAD" else body)
        if request.query.get("comp") == "list":
            return web.Response(text=self._listing(request.query), content_type="application/xml")
        headers = {"etag": f'"{self.version}"', "last-modified": MODIFIED, "x-ms-blob-type": "BlockBlob"}
        if request.method == "HEAD":
            return web.Response(headers=headers | {"content-length": str(len(self.content))})
        self.before_read()
        if request.headers.get("if-match") != f'"{self.version}"':
            return web.Response(status=412, headers={"x-ms-error-code": "ConditionNotMet"})
        return await self._range(request, headers)

    async def _range(self, request: web.Request, headers: dict[str, str]) -> web.StreamResponse:
        first, last = map(int, request.headers["x-ms-range"].removeprefix("bytes=").split("-"))
        piece = self.content[first : last + 1]
        headers |= {"content-range": f"bytes {first}-{last}/{len(self.content)}", "content-length": str(len(piece))}
        response = web.StreamResponse(status=206, headers=headers)
        await response.prepare(request)
        if self.breaks > 0:
            self.breaks -= 1
            await response.write(piece[: len(piece) // 2])
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(piece)
        await response.write_eof()
        return response

    def _listing(self, query: Mapping[str, str]) -> str:
        """In the order of a hierarchical account: by the names of each level, a directory before what it holds."""
        prefix, delimiter = (query.get(name, "") for name in ("prefix", "delimiter"))
        first = query.get("startFrom", "").split("/")
        entries = []
        for path in sorted(self.paths, key=_levels):
            if not path.startswith(prefix) or _levels(path) < first:
                continue
            if delimiter and "/" in path[len(prefix) :].rstrip("/"):
                continue
            if delimiter and path.endswith("/"):
                if path != prefix:
                    entries.append(f"<BlobPrefix><Name>{escape(path)}</Name></BlobPrefix>")
                continue
            mark = "<hdi_isfolder>true</hdi_isfolder>" if path.endswith("/") else ""
            name = escape(path.rstrip("/"))
            entries.append(LISTED.format(name=name, modified=MODIFIED, size=4, metadata=mark))
        return LISTING.format("".join(entries))


def _levels(path: str) -> list[str]:
    return path.rstrip("/").split("/")


@asynccontextmanager
async def serving() -> AsyncIterator[BlobService]:
    """The service on a port of its own."""
    service = BlobService()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", service.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    service.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield service
    finally:
        await runner.cleanup()
