"""One HTTP exchange with a caller: headers and body in, the answer out, and the end of it when the caller hangs up."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from types import TracebackType
from uuid import uuid4

from starlette.types import Message, Receive, Scope, Send

from bonito.errors import PayloadTooLarge

READ_HEADERS = frozenset({b"authorization", b"content-length", b"expect", b"x-request-id", b"x-bonito-knowledge-base"})
# What a caller may add for the provider; everything else in the headers is between the caller and us.
FORWARDED_HEADERS = frozenset({b"openai-beta", b"idempotency-key"})
WELL_FORMED_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# A body above the limit is read on and thrown away for a while: a client that is still sending does not see an answer.
MAX_DISCARDED_BYTES = 64 * 2**20

Headers = Sequence[tuple[bytes, bytes]]


class ClientDisconnected(Exception):
    """The caller hung up; there is nobody to answer."""


class Client:
    """The caller of one request.

    Attributes:
        headers: those that are read here, by lower-case name; a repeated one is joined by commas.
        forwarded_headers: those that go to the provider.
        id: of the exchange, always ours.
        request_id: the caller's own where it is well formed, or ours.
        has_started: whether the head of the answer was sent.
        is_watched: whether a hang-up still matters.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers: dict[str, str] = {}
        self.forwarded_headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            if name in READ_HEADERS:
                _add(self.headers, name, value)
            elif name in FORWARDED_HEADERS:
                _add(self.forwarded_headers, name, value)
        self.id = uuid4()
        self.request_id = well_formed_id(self.headers.get("x-request-id")) or self.id.hex
        self.has_started = False
        self._receive, self._send = receive, send
        self.is_watched = False

    async def read_body(self, *, max_bytes: int) -> bytes:
        """The whole body.

        Raises:
            PayloadTooLarge: it has more bytes, as declared or as they came.
            ClientDisconnected: it never ended.
        """
        declared = self.headers.get("content-length", "")
        is_too_large = declared.isdecimal() and int(declared) > max_bytes
        if is_too_large and self.headers.get("expect", "").lower() == "100-continue":
            raise _too_large(max_bytes)
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnected
            piece = message.get("body", b"")
            size += len(piece)
            is_too_large = is_too_large or size > max_bytes
            if is_too_large:
                pieces.clear()
            else:
                pieces.append(piece)
            if not message.get("more_body", False) or size > max_bytes + MAX_DISCARDED_BYTES:
                break
        if is_too_large:
            raise _too_large(max_bytes)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def watched(self) -> Watch:
        """Cancel the block when the caller hangs up before `end`; it ends with ClientDisconnected then.

        The body must have been read.
        """
        return Watch(self)

    async def start(self, status: int, headers: Headers) -> None:
        """Send the head of the answer."""
        self.has_started = True
        own = [(b"x-request-id", self.request_id.encode())]
        await self._emit({"type": "http.response.start", "status": status, "headers": [*headers, *own]})

    async def write(self, body: bytes) -> None:
        """Send a piece of the body at once."""
        await self._emit({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self, body: bytes = b"") -> None:
        """Send the last piece; from here on the caller may leave."""
        self.is_watched = False
        await self._emit({"type": "http.response.body", "body": body, "more_body": False})

    async def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send a whole answer of JSON."""
        head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self.start(status, [*head, *((name.encode(), value.encode()) for name, value in headers.items())])
        await self.end(body)

    async def _emit(self, message: Message) -> None:
        try:
            await self._send(message)
        except OSError as error:  # how some servers tell that the caller has left
            raise ClientDisconnected from error

    async def disconnected(self) -> None:
        """Return when the caller has hung up, or the answer is complete."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


class Watch:
    """The block of `Client.watched`; a class, since every request pays for it and a generator costs more."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._hung_up = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        self._task, self._client.is_watched = task, True
        self._watcher = task.get_loop().create_task(self._watch())

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.is_watched = False
        self._watcher.cancel()
        # Somebody else may have cancelled the task at the same time: then it stays cancelled.
        if self._hung_up and isinstance(exc, asyncio.CancelledError) and self._task.uncancel() == 0:
            raise ClientDisconnected from None

    async def _watch(self) -> None:
        await self._client.disconnected()
        if self._client.is_watched:
            self._hung_up = True
            self._task.cancel()


def well_formed_id(sent: str | None) -> str | None:
    """The caller's own id for the request, where it is one."""
    return sent if sent is not None and WELL_FORMED_ID.fullmatch(sent) else None


def _add(headers: dict[str, str], name: bytes, value: bytes) -> None:
    key, text = name.decode("latin-1"), value.decode("latin-1")
    headers[key] = f"{headers[key]},{text}" if key in headers else text


def _too_large(max_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The body is larger than {max_bytes} bytes.")
