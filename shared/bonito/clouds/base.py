"""The values and protocols that every cloud answers to; one module per cloud implements them."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, Protocol

StoreType = Literal["s3", "azure_blob", "gcs", "local", "upload"]
ChangeKind = Literal["created", "deleted", "unknown", "folder"]


@dataclass(frozen=True)
class ObjectInfo:
    """What a listing or a head tells of an object."""

    key: str
    size: int
    version: str  # changes with the content: etag, generation, or size and modification time
    modified_at: datetime


@dataclass(frozen=True)
class ObjectChanged:
    """Look at this key. What the store answers then decides, not the kind; so repeats and disorder cannot matter.

    Of the kind `folder` the key ends with a slash and stands for all that is or was below it: the source is listed.
    """

    provider: StoreType
    bucket: str
    key: str
    kind: ChangeKind = "unknown"


@dataclass(frozen=True)
class SignedUpload:
    """Where somebody without credentials may put one file, by PUT with exactly these headers, and for how long.

    Whoever knows the address may use it: it is no more printed than a key is.
    """

    address: str = field(repr=False)
    headers: Mapping[str, str]


class ObjectStore(Protocol):
    """Reads a customer's documents. There is no write here, so none can happen by accident.

    Besides what each method names, all of them raise UpstreamError where the store does not answer, and AccessDenied
    where it refuses: in a sentence for the person who set up the source, which says what is missing (the bucket, a
    right on it, a right on the key that encrypts it).
    """

    async def head(self, key: str) -> ObjectInfo:
        """What lies at the key now; NotFound."""
        ...

    async def fetch(self, key: str, into: Path, *, max_bytes: int) -> ObjectInfo:
        """Stream the object into a file, as it was at one moment.

        A connection that breaks is resumed where it broke, of the same version only.

        Raises:
            NotFound: there is nothing at the key.
            DocumentTooLarge: before more than `max_bytes` are written.
        """
        ...

    def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        """Every object below the prefix with a key after `after`, to the last page, in the order of the keys' bytes."""
        ...


class UploadStore(ObjectStore, Protocol):
    """The files that one knowledge base was given by upload: the only store that is written to."""

    async def check(self, names: Iterable[str]) -> None:
        """Refuse names under which `put` could store nothing as the files lie now; AlreadyExists, InvalidRequest."""
        ...

    async def put(self, name: str, content: AsyncIterable[bytes], *, max_bytes: int) -> ObjectInfo:
        """Store a file under its cleaned name, whole or not at all; one that lies there already is replaced.

        Raises:
            InvalidRequest: the name cannot be a document's.
            DocumentTooLarge: the content is above `max_bytes`.
            AlreadyExists: the name is a folder of other files here, or lies below a file.
        """
        ...

    async def delete(self, key: str) -> bool:
        """Remove a file; whether there was one."""
        ...

    async def discard(self) -> None:
        """Remove everything."""
        ...


class MessageQueue(Protocol):
    """Carries small JSON messages to the next step, at least once."""

    async def send(self, queue: str, message: Mapping[str, object], *, delay: timedelta = timedelta()) -> None:
        """Enqueue one message, visible after `delay`; UpstreamError where it is not taken.

        `queue` is the step: `ingest`, `embed` or `sync`. Members `priority` and `unique` of the message concern queues
        that know them; the others carry them along.
        """
        ...


class SecretStore(Protocol):
    """Reads secrets that lie outside of Bonito's database, by reference."""

    async def read(self, reference: str) -> str:
        """The secret's present value; NotFound, AccessDenied, UpstreamError."""
        ...
