"""multipart/form-data, part by part as it arrives: nothing is kept that the route does not keep."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from bonito.errors import InvalidRequest, UnsupportedMediaType

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_HEADER_BYTES = 8 * 1024
MAX_BOUNDARY_BYTES = 70  # RFC 2046, 5.1.1

Kind = Literal["begin", "data", "end"]


@dataclass(frozen=True)
class Part:
    """One field of the form; `filename` is None for plain values. Read `content` to its end before the next part."""

    name: str
    filename: str | None
    content: AsyncIterator[bytes]


async def parts(request: Request) -> AsyncIterator[Part]:
    """The parts of a request's body, in their order.

    Raises:
        UnsupportedMediaType: the body is something else.
        InvalidRequest: it is not well-formed, or ends too early.
    """
    events = _events(request, _boundary(request))
    async for kind, headers in events:
        if kind != "begin":
            continue  # what the route left unread
        name, filename = _disposition(headers)
        yield Part(name, filename, _content(events))


async def _content(events: AsyncIterator[tuple[Kind, bytes]]) -> AsyncIterator[bytes]:
    async for kind, piece in events:
        if kind == "end":
            return
        yield piece


async def _events(request: Request, boundary: bytes) -> AsyncIterator[tuple[Kind, bytes]]:
    """`begin` with the header Content-Disposition, `data` with some bytes, `end`; for each part."""
    collector = _Collector()
    parser = MultipartParser(boundary, collector.callbacks())
    try:
        async for piece in request.stream():
            parser.write(piece)
            for event in collector.take():
                yield event
    except FormParserError as error:
        raise InvalidRequest("The body is not well-formed multipart/form-data.") from error
    except ClientDisconnect as error:
        raise InvalidRequest("The connection ended before the body did.") from error
    if not collector.is_complete:
        raise InvalidRequest("The body ends before its last boundary.")


class _Collector:
    """Gathers what the parser calls back with."""

    def __init__(self) -> None:
        self.is_complete = False
        self._events: list[tuple[Kind, bytes]] = []
        self._name, self._value, self._disposition, self._header_bytes = b"", b"", b"", 0

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": lambda: self._events.append(("begin", self._disposition)),
            "on_part_data": lambda data, start, end: self._events.append(("data", bytes(data[start:end]))),
            "on_part_end": lambda: self._events.append(("end", b"")),
            "on_end": self._on_end,
        }

    def take(self) -> list[tuple[Kind, bytes]]:
        taken, self._events = self._events, []
        return taken

    def _on_part_begin(self) -> None:
        self._name = self._value = self._disposition = b""
        self._header_bytes = 0

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]
        self._count(end - start)

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._count(end - start)

    def _on_header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name = self._value = b""

    def _on_end(self) -> None:
        self.is_complete = True

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MAX_HEADER_BYTES:
            raise InvalidRequest(f"A part's headers have more than {MAX_HEADER_BYTES} bytes.")


def _boundary(request: Request) -> bytes:
    media_type, options = parse_options_header(request.headers.get("content-type", ""))
    if media_type.lower() != b"multipart/form-data":
        raise UnsupportedMediaType("The body must be multipart/form-data.")
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= MAX_BOUNDARY_BYTES:
        raise InvalidRequest("multipart/form-data needs a boundary of 1 to 70 characters.")
    return boundary


def _disposition(header: bytes) -> tuple[str, str | None]:
    kind, options = parse_options_header(header)
    if kind != b"form-data" or b"name" not in options:
        raise InvalidRequest("Every part needs `Content-Disposition: form-data` with a name.")
    try:
        filename = options[b"filename"].decode() if b"filename" in options else None
        return options[b"name"].decode(), filename
    except UnicodeDecodeError:
        raise InvalidRequest("Names of parts and files are UTF-8.") from None
