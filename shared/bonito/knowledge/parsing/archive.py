"""Reads ZIP containers within a budget of decompressed bytes, both declared and real."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO

from bonito.errors import DocumentError, DocumentTooLarge
from bonito.knowledge.parsing.base import MIB, ParseLimits

MAX_ENTRIES = 20_000
# What zipfile lets through when an archive lies about itself.
BROKEN_ARCHIVE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    UnicodeError,
    ValueError,
    OSError,
)


class BoundedArchive:
    """An open ZIP file whose entries together give no more than the limit allows."""

    def __init__(self, path: Path, limits: ParseLimits) -> None:
        self._limit = self._left = limits.max_decompressed_bytes
        with broken_archive_is_an_error():
            self._zip = zipfile.ZipFile(path)
        entries = self._zip.infolist()
        declared = sum(entry.file_size for entry in entries)
        if len(entries) > MAX_ENTRIES or declared > self._limit:
            self._zip.close()
            raise self._too_large()
        self.names = frozenset(entry.filename for entry in entries)

    def __enter__(self) -> BoundedArchive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._zip.close()

    def __contains__(self, name: str) -> bool:
        return name in self.names

    @contextmanager
    def open(self, name: str) -> Iterator[BoundedStream]:
        """Open one entry for reading; DocumentError where it is broken or encrypted."""
        with broken_archive_is_an_error():
            entry = self._zip.open(name)
        with entry:
            yield BoundedStream(entry, self)

    def spend(self, count: int) -> None:
        """Take bytes off the budget that all entries share; DocumentTooLarge when it is used up."""
        self._left -= count
        if self._left < 0:
            raise self._too_large()

    def _too_large(self) -> DocumentTooLarge:
        return DocumentTooLarge(
            f"The document unpacks to more than {self._limit // MIB:,} MiB or {MAX_ENTRIES:,} parts; that is not read."
        )


class BoundedStream:
    """The decompressed bytes of one entry, charged to the archive's budget as they come."""

    def __init__(self, entry: IO[bytes], archive: BoundedArchive) -> None:
        self._entry, self._archive = entry, archive

    def read(self, size: int = 64 * 1024) -> bytes:
        """At most `size` bytes; b"" at the end. DocumentError where the entry is broken."""
        with broken_archive_is_an_error():
            data = self._entry.read(size if size > 0 else 64 * 1024)
        self._archive.spend(len(data))
        return data


@contextmanager
def broken_archive_is_an_error() -> Iterator[None]:
    """Turn what zipfile raises into a sentence for a person."""
    try:
        yield
    except BROKEN_ARCHIVE as error:
        raise DocumentError("The file is broken, truncated or encrypted: it cannot be unpacked.") from error
