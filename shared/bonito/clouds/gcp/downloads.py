"""An object of Cloud Storage on its way: one generation, over as many connections as it takes, checked at its end."""

from __future__ import annotations

import base64
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Protocol

from bonito.clouds.base import ObjectInfo
from bonito.clouds.copying import MIB, too_large
from bonito.clouds.gcp.api import BROKEN, TRIES, Refused, Session, paused
from bonito.errors import AccessDenied, DocumentError, UpstreamError

if TYPE_CHECKING:
    import aiohttp


class Checksum(Protocol):
    """As of hashlib."""

    def update(self, chunk: bytes, /) -> None:
        """Go on with these bytes."""
        ...

    def digest(self) -> bytes:
        """Of everything so far."""
        ...


class Replaced(Exception):
    """The generation that was being read is gone."""


@dataclass(frozen=True)
class _Version:
    """A generation, as the first answer described it; `crc32c` of the stored bytes, None where none was told."""

    generation: str
    size: int
    is_gzip: bool
    crc32c: bytes | None
    modified_at: datetime


@dataclass
class Reading:
    """One object on its way.

    Attributes:
        session: whose connections are used.
        path: the object's address.
        max_bytes: more are not begun.
        position: how many of the stored bytes came.
        version: the generation that is read; None before the first answer.
    """

    session: Session
    path: str
    max_bytes: int
    position: int = 0
    version: _Version | None = field(default=None, init=False)

    def info(self, key: str, size: int) -> ObjectInfo:
        """What was read; `size` as it was written."""
        if self.version is None:
            raise AssertionError("nothing was read yet")
        return ObjectInfo(key, size, self.version.generation, self.version.modified_at)

    async def content(self) -> AsyncGenerator[bytes, None]:
        """The object's content, checked."""
        checksum = new_crc32c()
        unpacking = _Unpacking()
        async with aclosing(self._stored()) as stored:
            async for piece in stored:
                checksum.update(piece)
                if self.version is None or not self.version.is_gzip:
                    yield piece
                    continue
                for unpacked in unpacking.unpack(piece):
                    yield unpacked
        if self.version is not None and self.version.is_gzip:
            unpacking.check()
        if self.version is None or self.version.crc32c not in {None, checksum.digest()}:
            raise UpstreamError("The object arrived damaged.")

    async def _stored(self) -> AsyncGenerator[bytes, None]:
        """The bytes that are stored, over as many connections as it takes; a try that brings something counts anew."""
        tried = 0
        while not self._is_whole():
            before = self.position
            failure = UpstreamError("Cloud Storage ended an object before its end.")
            try:
                async with self._opened() as response:
                    self._meet(response)
                    async for piece in response.content.iter_any():
                        self.position += len(piece)
                        yield piece
            except AccessDenied:
                raise
            except BROKEN as error:
                failure = self.session.broken(error)
            except UpstreamError as error:
                failure = error
            tried = 1 if self.position > before else tried + 1
            if not self._is_whole() and (tried == TRIES or not await paused(failure, tried)):
                raise failure

    def _is_whole(self) -> bool:
        return self.version is not None and self.position >= self.version.size

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[aiohttp.ClientResponse]:
        """The object as it is stored, from our position on.

        Without `gzip` Cloud Storage would unpack what is stored so, and know neither its size nor ranges of it:
        https://cloud.google.com/storage/docs/transcoding
        """
        params, headers = {"alt": "media"}, {"accept-encoding": "gzip"}
        if self.version is not None:
            params["generation"] = self.version.generation
            headers["range"] = f"bytes={self.position}-"
        try:
            async with self.session.opened("GET", self.path, params=params, headers=headers) as response:
                yield response
        except Refused as refused:
            if self.version is not None and refused.status in {404, 412, 416}:
                raise Replaced from refused
            raise

    def _meet(self, response: aiohttp.ClientResponse) -> None:
        """Note which generation answers; Replaced where it is not the one that was begun, or not from our position."""
        if self.version is None:
            self.version = _version(response)
            if self.version.size > self.max_bytes:
                raise too_large(self.max_bytes, self.version.size)
            return
        is_same = response.headers.get("x-goog-generation", "") == self.version.generation
        begins = response.headers.get("content-range", "").startswith(f"bytes {self.position}-")
        if not is_same or (self.position > 0 and not begins):
            raise Replaced


class _Unpacking:
    """Undoes the content encoding gzip, in pieces of bounded size."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=31)

    def unpack(self, piece: bytes) -> Iterator[bytes]:
        """What a piece of the stored bytes unpacks to; DocumentError where it is no gzip."""
        try:
            while piece:
                if self._stream.eof:  # one more member
                    self._stream = zlib.decompressobj(wbits=31)
                yield self._stream.decompress(piece, MIB)
                piece = self._stream.unconsumed_tail or self._stream.unused_data
        except zlib.error:
            raise DocumentError("The object says that it is packed with gzip, and is not.") from None

    def check(self) -> None:
        """DocumentError where something is missing at the end."""
        if not self._stream.eof:
            raise DocumentError("The object says that it is packed with gzip, and ends too early.")


def _version(response: aiohttp.ClientResponse) -> _Version:
    """What the headers of a download tell; UpstreamError where they are not those of Cloud Storage."""
    headers = response.headers
    hashes = dict(
        part.strip().partition("=")[::2] for each in headers.getall("x-goog-hash", ()) for part in each.split(",")
    )
    size = headers.get("x-goog-stored-content-length") or headers.get("content-length")
    generation, modified = headers.get("x-goog-generation"), headers.get("last-modified")
    if size is None or generation is None or modified is None:
        raise UpstreamError("Cloud Storage did not say which version of the object it sends.")
    return _Version(
        generation=generation,
        size=int(size),
        is_gzip=headers.get("content-encoding") == "gzip",
        crc32c=base64.b64decode(hashes["crc32c"]) if "crc32c" in hashes else None,
        modified_at=parsedate_to_datetime(modified),
    )


def new_crc32c() -> Checksum:
    """A running CRC32C, the only checksum that every object of Cloud Storage has."""
    import google_crc32c

    checksum: Checksum = google_crc32c.Checksum()  # type: ignore[no-untyped-call]
    return checksum
