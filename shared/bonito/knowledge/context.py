"""What the steps of ingestion work with, and how they hand on to each other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from uuid import UUID

from bonito.clouds.base import MessageQueue, ObjectStore, UploadStore
from bonito.database.pool import Pool
from bonito.knowledge.bases import KnowledgeBase
from bonito.knowledge.messages import Message
from bonito.knowledge.parsing.base import DEFAULT_LIMITS, ParsedDocument, ParseLimits
from bonito.knowledge.retries import Leases
from bonito.providers.base import EmbeddingModels

SENDING_AT_ONCE = 8


class Stores(Protocol):
    """Finds what a knowledge base's documents lie in."""

    async def store(self, org_id: UUID, base: KnowledgeBase) -> ObjectStore:
        """Its store, with the organization's own access; BonitoError says why there is none."""
        ...

    def uploads(self, org_id: UUID, knowledge_base_id: UUID) -> UploadStore:
        """The store of what a base was given by upload."""
        ...

    async def discard(self, org_id: UUID, knowledge_base_id: UUID) -> None:
        """Remove what Bonito itself keeps of a deleted base's source: uploads, nothing of a customer's."""
        ...


class Parser(Protocol):
    """Reads documents where they cannot do harm: `ParserProcess`."""

    async def parse(self, path: Path, *, name: str, limits: ParseLimits) -> ParsedDocument:
        """The document's text and the map over it; DocumentError with a sentence for a person."""
        ...


@dataclass(frozen=True)
class Ingestion:
    """What the steps of ingestion work with; one per process.

    Attributes:
        pool: the runtime's connections.
        stores: where documents lie.
        queue: takes the messages for the next step.
        models: the organizations' embedding models.
        parser: one child process.
        limits: of one document; `max_bytes` is also the most that is fetched.
        scratch: where fetched documents lie while they are parsed; None: the system's place for it.
        leases: how long work stays in one worker's hands.
    """

    pool: Pool
    stores: Stores
    queue: MessageQueue
    models: EmbeddingModels
    parser: Parser
    limits: ParseLimits = DEFAULT_LIMITS
    scratch: Path | None = None
    leases: Leases = field(default_factory=Leases)


async def send_all(queue: MessageQueue, messages: Sequence[Message]) -> None:
    """Send messages, a few at a time; the first failure is raised and the rest may or may not be sent."""
    for begin in range(0, len(messages), SENDING_AT_ONCE):
        some = messages[begin : begin + SENDING_AT_ONCE]
        await asyncio.gather(*(queue.send(message.queue, message.to_json()) for message in some))
