"""What the queues carry between the steps of ingestion: ids and a path, never content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self, get_args
from uuid import UUID

from bonito.errors import MalformedMessage

# Queues that know `priority` serve the higher one first, those that know `unique` keep one waiting message of each.
# What somebody dropped or uploaded comes before what a sync found, and the first batches of every document before the
# tenth of any.
EVENT_PRIORITY = 20
BULK_PRIORITY = 10
LATEST_BATCH = 9

# What has a source compared with its documents.
Trigger = Literal["manual", "schedule", "webhook", "notification", "reconcile"]
TRIGGERS: tuple[Trigger, ...] = get_args(Trigger)


@dataclass(frozen=True)
class IngestMessage:
    """Look at this path of this knowledge base; what its store answers decides what happens."""

    queue: ClassVar[str] = "ingest"

    org_id: UUID
    knowledge_base_id: UUID
    path: str
    is_bulk: bool = False

    def to_json(self) -> dict[str, object]:
        """As a queue carries it."""
        return {
            "org_id": str(self.org_id),
            "knowledge_base_id": str(self.knowledge_base_id),
            "path": self.path,
            "is_bulk": self.is_bulk,
            "priority": BULK_PRIORITY if self.is_bulk else EVENT_PRIORITY,
        }

    @staticmethod
    def is_one(message: Mapping[str, object]) -> bool:
        """Whether it is meant to be such a message, and no notification of a store."""
        return "knowledge_base_id" in message and "path" in message

    @classmethod
    def from_json(cls, message: Mapping[str, object]) -> Self:
        """Read it back; MalformedMessage where it is no such message."""
        return cls(
            org_id=_id(message, "org_id"),
            knowledge_base_id=_id(message, "knowledge_base_id"),
            path=_text(message, "path"),
            is_bulk=message.get("is_bulk") is True,
        )


@dataclass(frozen=True)
class EmbedMessage:
    """Embed the batch of this revision's chunks that begins at `first_index`.

    Attributes:
        org_id: the organization.
        revision_id: whose chunks.
        first_index: names the batch.
        number: the batch's place among those of its revision, from 0; it only orders the work.
        is_bulk: the document was found by a sync.
    """

    queue: ClassVar[str] = "embed"

    org_id: UUID
    revision_id: UUID
    first_index: int
    number: int = 0
    is_bulk: bool = False

    def to_json(self) -> dict[str, object]:
        """As a queue carries it."""
        priority = BULK_PRIORITY if self.is_bulk else EVENT_PRIORITY
        return {
            "org_id": str(self.org_id),
            "revision_id": str(self.revision_id),
            "first_index": self.first_index,
            "number": self.number,
            "is_bulk": self.is_bulk,
            "priority": priority - min(self.number, LATEST_BATCH),
        }

    @classmethod
    def from_json(cls, message: Mapping[str, object]) -> Self:
        """Read it back; MalformedMessage where it is no such message."""
        return cls(
            org_id=_id(message, "org_id"),
            revision_id=_id(message, "revision_id"),
            first_index=_index(message, "first_index"),
            number=_index(message, "number"),
            is_bulk=message.get("is_bulk") is True,
        )


@dataclass(frozen=True)
class SyncMessage:
    """Compare a source with the documents of its knowledge base, or go on with a comparison.

    Attributes:
        org_id: the organization.
        knowledge_base_id: whose source.
        retry_failed: send documents too that ended with an error and have not changed.
        trigger: what asked for it; what comes by the clock is content with a sync that runs already.
        slice: the running sync whose listing goes on, and the fence that it was left with; None: a sync is asked for.
    """

    queue: ClassVar[str] = "sync"

    org_id: UUID
    knowledge_base_id: UUID
    retry_failed: bool = False
    trigger: Trigger = "manual"
    slice: tuple[UUID, int] | None = None

    @property
    def is_periodic(self) -> bool:
        """Whether it comes again by itself."""
        return self.trigger in ("schedule", "reconcile")

    def to_json(self) -> dict[str, object]:
        """As a queue carries it."""
        message: dict[str, object] = {
            "org_id": str(self.org_id),
            "knowledge_base_id": str(self.knowledge_base_id),
            "retry_failed": self.retry_failed,
            "trigger": self.trigger,
            "priority": EVENT_PRIORITY,
            "unique": f"sync:{self.knowledge_base_id}:{self.trigger}:{self.retry_failed}",
        }
        if self.slice is not None:
            sync_id, fence = self.slice
            message |= {"sync_id": str(sync_id), "fence": fence, "unique": f"sync:{sync_id}:{fence}"}
        return message

    @classmethod
    def from_json(cls, message: Mapping[str, object]) -> Self:
        """Read it back; MalformedMessage where it is no such message."""
        is_slice = message.get("sync_id") is not None
        return cls(
            org_id=_id(message, "org_id"),
            knowledge_base_id=_id(message, "knowledge_base_id"),
            retry_failed=message.get("retry_failed") is True,
            trigger=_trigger(message),
            slice=(_id(message, "sync_id"), _index(message, "fence")) if is_slice else None,
        )


Message = IngestMessage | EmbedMessage | SyncMessage


def _id(message: Mapping[str, object], name: str) -> UUID:
    try:
        return UUID(_text(message, name))
    except ValueError:
        raise MalformedMessage(f"The message's {name} is no UUID.", param=name) from None


def _trigger(message: Mapping[str, object]) -> Trigger:
    for trigger in TRIGGERS:
        if message.get("trigger", TRIGGERS[0]) == trigger:
            return trigger
    raise MalformedMessage("The message names no trigger of a sync.", param="trigger")


def _text(message: Mapping[str, object], name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str) or not value:
        raise MalformedMessage(f"The message has no {name}.", param=name)
    return value


def _index(message: Mapping[str, object], name: str) -> int:
    value = message.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise MalformedMessage(f"The message's {name} is no number from 0 on.", param=name)
    return value
