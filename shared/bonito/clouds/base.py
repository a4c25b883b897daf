"""The values and protocols that every cloud answers to; one module per cloud implements them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, Protocol

StoreType = Literal["s3", "azure_blob", "gcs", "local", "upload"]
ChangeKind = Literal["created", "deleted", "unknown"]


@dataclass(frozen=True)
class ObjectInfo:
    """What a listing or a head tells of an object."""

    key: str
    size: int
    version: str  # changes with the content: etag, generation, or size and modification time
    modified_at: datetime


@dataclass(frozen=True)
class ObjectChanged:
    """Look at this key. What the store answers then decides, not the kind; so repeats and disorder cannot matter."""

    provider: StoreType
    bucket: str
    key: str
    kind: ChangeKind = "unknown"


class ObjectStore(Protocol):
    """Reads a customer's documents. There is no write here, so none can happen by accident."""

    async def head(self, key: str) -> ObjectInfo:
        """What lies at the key now; NotFound."""
        ...

    async def fetch(self, key: str, into: Path, *, max_bytes: int) -> ObjectInfo:
        """Stream the object into a file; NotFound, DocumentTooLarge before more than `max_bytes` are written."""
        ...

    def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Every object below the prefix, to the last page, in the order of keys."""
        ...


class MessageQueue(Protocol):
    """Carries small JSON messages to the next step, at least once."""

    async def send(self, queue: str, message: Mapping[str, object], *, delay: timedelta = timedelta()) -> None:
        """Enqueue one message, visible after `delay`."""
        ...
