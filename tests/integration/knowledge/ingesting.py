"""A folder, a knowledge base over it, and ingestion with doubles that are real: only the queue is in memory."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from bonito.clouds.base import ObjectChanged, ObjectStore, UploadStore
from bonito.clouds.local import FolderStore
from bonito.database.pool import Pool, tenant
from bonito.knowledge import bases, generations, ingestion, sweeper, sync, vectors
from bonito.knowledge.bases import KnowledgeBase, Options, Source
from bonito.knowledge.context import Ingestion
from bonito.knowledge.generations import Generation, Pinned
from bonito.knowledge.messages import EmbedMessage, IngestMessage, SyncMessage, Trigger
from bonito.knowledge.parsing import registry
from bonito.knowledge.parsing.base import ParsedDocument, ParseLimits
from bonito.providers.base import EmbeddingModel, EmbeddingResult
from bonito.providers.wrapped import WrappedEmbeddingModel
from tests.integration.knowledge.served import HashModels

PINNED = Pinned(
    embedding_model="test/hash",
    embedding_fingerprint="test/hash:1",
    dimensions=None,
    tokenizer="test/hash",
    chunk_size=64,
    chunk_overlap=8,
    language="english",
)
NO_PATIENCE = sweeper.Patience(grace=timedelta(seconds=-1), tombstones=timedelta(seconds=-1))


class Parsers:
    """Parses in this process: what a child process adds has tests of its own."""

    def __init__(self) -> None:
        self.parsed: list[str] = []

    async def parse(self, path: Path, *, name: str, limits: ParseLimits) -> ParsedDocument:
        self.parsed.append(name)
        return registry.parse(path, name=name, limits=limits)


@dataclass
class MemoryQueue:
    """MessageQueue in a list; delays are kept and not waited for."""

    waiting: list[tuple[str, dict[str, object], timedelta]] = field(default_factory=list)

    async def send(self, queue: str, message: Mapping[str, object], *, delay: timedelta = timedelta()) -> None:
        self.waiting.append((queue, dict(message), delay))

    def of(self, queue: str) -> list[dict[str, object]]:
        return [message for name, message, _ in self.waiting if name == queue]


class Folders:
    """Stores over the folder that a base's source names; a test may put another store in its place."""

    def __init__(self) -> None:
        self.instead: ObjectStore | None = None
        self.discarded: list[UUID] = []

    async def store(self, org_id: UUID, base: KnowledgeBase) -> ObjectStore:
        return self.instead or FolderStore(Path(base.source_bucket))

    def uploads(self, org_id: UUID, knowledge_base_id: UUID) -> UploadStore:
        raise AssertionError("no test of this world uploads")

    async def discard(self, org_id: UUID, knowledge_base_id: UUID) -> None:
        self.discarded.append(knowledge_base_id)


class CountingModels:
    """HashModels that remember which texts were paid for, and fail when they are told to.

    `shape` holds attributes that the models have instead of their own, `answers` what they answer next.
    """

    def __init__(self) -> None:
        self.shape: dict[str, Any] = {}
        self.answers: list[EmbeddingResult] = []
        self.paid: list[str] = []
        self.failures: list[Exception] = []
        self.gate: asyncio.Event | None = None

    async def embedding_model(self, org_id: UUID, name: str) -> EmbeddingModel:
        return _Counting(self, await HashModels().embedding_model(org_id, name))


class _Counting(WrappedEmbeddingModel):
    def __init__(self, owner: CountingModels, model: EmbeddingModel) -> None:
        super().__init__(model)
        self._owner = owner
        for name, value in owner.shape.items():
            setattr(self, name, value)

    async def embed(self, texts: Any, *, purpose: Any = "document") -> Any:
        if self._owner.gate is not None:
            await self._owner.gate.wait()
        if self._owner.failures:
            raise self._owner.failures.pop(0)
        self._owner.paid.extend(texts)
        if self._owner.answers:
            return self._owner.answers.pop(0)
        return await super().embed(texts, purpose=purpose)


@dataclass
class World:
    """One knowledge base over a folder, and what a test does with both."""

    pool: Pool
    org_id: UUID
    folder: Path
    context: Ingestion
    queue: MemoryQueue
    folders: Folders
    models: CountingModels
    parser: Parsers
    base_id: UUID
    has_time: Callable[[], bool] = sync.without_end

    @classmethod
    async def create(
        cls,
        pool: Pool,
        org_id: UUID,
        folder: Path,
        *,
        pinned: Pinned = PINNED,
        prefix: str = "",
        source: Source | None = None,
    ) -> World:
        queue, folders, models, parser = MemoryQueue(), Folders(), CountingModels(), Parsers()
        context = Ingestion(pool, folders, queue, models, parser)
        world = cls(pool, org_id, folder, context, queue, folders, models, parser, uuid4())
        async with tenant(pool, org_id) as conn:
            await bases.create(
                conn,
                org_id=org_id,
                knowledge_base_id=world.base_id,
                generation_id=uuid4(),
                options=Options(name=f"kb-{world.base_id.hex[:8]}"),
                source=source or Source(type="local", config={"type": "local"}, bucket=str(folder), prefix=prefix),
                pinned=pinned,
            )
        return world

    # what a person does

    def write(self, path: str, text: str) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    async def changed(self, path: str, *, kind: Any = "unknown") -> int:
        return await ingestion.object_changed(self.context, ObjectChanged("local", str(self.folder), path, kind))

    async def sync(
        self,
        *,
        retry_failed: bool = False,
        trigger: Trigger = "manual",
        has_time: Callable[[], bool] = sync.without_end,
    ) -> UUID | None:
        message = SyncMessage(self.org_id, self.base_id, retry_failed, trigger)
        return await sync.sync(self.context, message, has_time=has_time)

    async def rebuild(self, pinned: Pinned) -> Generation | None:
        async with tenant(self.pool, self.org_id) as conn:
            return await generations.begin(
                conn, org_id=self.org_id, knowledge_base_id=self.base_id, generation_id=uuid4(), pinned=pinned
            )

    # what workers do

    async def run(self, queue: str, message: Mapping[str, object]) -> None:
        if queue == "ingest":
            await ingestion.ingest(self.context, IngestMessage.from_json(message))
        elif queue == "embed":
            await vectors.embed(self.context, EmbedMessage.from_json(message))
        else:
            await sync.sync(self.context, SyncMessage.from_json(message), has_time=self.has_time)

    async def settle(self, *, shuffle: random.Random | None = None, limit: int = 10_000) -> list[Exception]:
        """Work until the queue is empty; failures put the message back and are returned."""
        failures: list[Exception] = []
        for _ in range(limit):
            if not self.queue.waiting:
                return failures
            index = shuffle.randrange(len(self.queue.waiting)) if shuffle else 0
            queue, message, _ = self.queue.waiting.pop(index)
            try:
                await self.run(queue, message)
            except Exception as error:  # noqa: BLE001 - the test looks at them
                failures.append(error)
                if getattr(error, "retryable", True):
                    self.queue.waiting.append((queue, message, timedelta()))
        raise AssertionError("the queue does not get empty")

    async def drop(self, path: str, text: str) -> None:
        """Write a file, and work until nothing is left to do."""
        self.write(path, text)
        await self.changed(path, kind="created")
        assert await self.settle() == []

    async def remove(self, path: str) -> None:
        (self.folder / path).unlink()
        await self.changed(path, kind="deleted")
        assert await self.settle() == []

    async def sweep(self) -> None:
        """Sweep until nothing is due, with no patience at all."""
        for _ in range(50):
            if not sum((await sweeper.sweep(self.context, patience=NO_PATIENCE)).values()):
                return
        raise AssertionError("the sweeper does not come to an end")

    # what readers see

    async def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        async with tenant(self.pool, self.org_id) as conn:
            return await (await conn.execute(statement, values)).fetchall()  # type: ignore[call-overload]

    async def row(self, statement: str, *values: object) -> tuple[Any, ...]:
        (found,) = await self.rows(statement, *values)
        return found

    async def served(self) -> dict[str, str]:
        """Per path the text that search can find: the contents of the served chunks, one a line."""
        found = await self.rows(
            """SELECT d.file_path, string_agg(c.content, E'\\n' ORDER BY c.chunk_index)
                 FROM knowledge_bases b
                 JOIN kb_revisions r ON r.org_id = b.org_id AND r.generation_id = b.served_generation
                                    AND r.status = 'served'
                 JOIN kb_index i ON i.org_id = r.org_id AND i.revision_id = r.id
                 JOIN kb_chunks c ON c.org_id = i.org_id AND c.id = i.chunk_id
                 JOIN kb_documents d ON d.org_id = r.org_id AND d.id = r.document_id
                WHERE b.id = %s GROUP BY d.file_path""",
            self.base_id,
        )
        return dict(found)

    async def statuses(self) -> dict[str, str]:
        found = await self.rows(
            "SELECT file_path, status FROM kb_documents WHERE knowledge_base_id = %s AND deleted_at IS NULL",
            self.base_id,
        )
        return dict(found)

    async def error(self, path: str) -> str | None:
        (message,) = await self.row(
            "SELECT error_message FROM kb_documents WHERE knowledge_base_id = %s AND file_path = %s",
            self.base_id,
            path,
        )
        assert message is None or isinstance(message, str)
        return message

    async def base(self) -> KnowledgeBase:
        async with tenant(self.pool, self.org_id) as conn:
            return await bases.get(conn, org_id=self.org_id, name_or_id=str(self.base_id))

    async def generations(self) -> tuple[Generation, ...]:
        async with tenant(self.pool, self.org_id) as conn:
            return await generations.building_or_served(conn, org_id=self.org_id, knowledge_base_id=self.base_id)

    async def check_counts(self) -> None:
        """Counters and term frequencies are what a recount finds."""
        for generation in await self.generations():
            counted = await self.row(
                """SELECT count(*), coalesce(sum(chunk_count), 0), coalesce(sum(token_count), 0)::bigint,
                          (SELECT coalesce(sum(i.lexeme_count), 0) FROM kb_index i JOIN kb_revisions s
                               ON s.id = i.revision_id WHERE s.generation_id = %s AND s.status = 'served')
                     FROM kb_revisions WHERE generation_id = %s AND status = 'served'""",
                generation.id,
                generation.id,
            )
            stored = (
                generation.document_count,
                generation.chunk_count,
                generation.token_count,
                generation.lexeme_count,
            )
            assert stored == counted
            terms = await self.rows(
                """SELECT t.term, count(*) FROM kb_revisions r JOIN kb_index i ON i.revision_id = r.id,
                          unnest(i.terms) t (term)
                    WHERE r.generation_id = %s AND r.status = 'served' AND t.term > 0 GROUP BY t.term""",
                generation.id,
            )
            kept = await self.rows(
                "SELECT term, document_frequency FROM kb_terms WHERE generation_id = %s", generation.id
            )
            assert dict(kept) == dict(terms)

    async def check_rows(self) -> None:
        """Every served revision has exactly its chunks, numbered from 0, each with a vector."""
        wrong = await self.rows(
            """SELECT r.id, r.chunk_count, count(c.id), count(i.chunk_id), max(c.chunk_index)
                 FROM kb_revisions r LEFT JOIN kb_chunks c ON c.revision_id = r.id
                 LEFT JOIN kb_index i ON i.chunk_id = c.id
                WHERE r.knowledge_base_id = %s AND r.status = 'served' GROUP BY r.id, r.chunk_count
               HAVING count(c.id) <> r.chunk_count OR count(i.chunk_id) <> r.chunk_count
                   OR coalesce(max(c.chunk_index), -1) <> r.chunk_count - 1""",
            self.base_id,
        )
        assert wrong == []


SENTENCE = "Reading {number}: the {word} of the harbour is read every morning and written down with care. "


def prose(word: str, sentences: int = 1) -> str:
    """Sentences that differ, so that no two chunks are equal."""
    return "".join(SENTENCE.format(number=number, word=word) for number in range(sentences))
