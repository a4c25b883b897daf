"""A worker over a folder, in this process or in one of its own that can be killed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from bonito.clouds.base import ObjectStore
from bonito.clouds.local import FolderStore, ProcrastinateQueue, open_queue
from bonito.database.pool import open_pool
from bonito.errors import RateLimited
from bonito.knowledge.bases import KnowledgeBase
from bonito.knowledge.context import Ingestion
from bonito.knowledge.parsing.process import ParserProcess
from bonito.knowledge.retries import Leases
from bonito.local import worker
from bonito.local.worker import Options
from bonito.providers.base import EmbeddingModel, EmbeddingResult, Purpose
from tests.integration.knowledge.served import HashEmbedding

PATIENCE_S = 120.0
# A killed worker's batches are free again soon.
LEASES = Leases(batch=timedelta(seconds=2), renewal=timedelta(seconds=0.5))


class Folders:
    """Stores over the folder that a base's source names."""

    async def store(self, org_id: UUID, base: KnowledgeBase) -> ObjectStore:
        return FolderStore(Path(base.source_bucket))

    async def discard(self, org_id: UUID, knowledge_base_id: UUID) -> None:
        pass


class SlowEmbedding(HashEmbedding):
    """Takes its time, so that there is something to interrupt."""

    async def embed(self, texts: Sequence[str], *, purpose: Purpose = "document") -> EmbeddingResult:
        await asyncio.sleep(0.01 * len(texts))
        return await super().embed(texts, purpose=purpose)


class SlowModels:
    async def embedding_model(self, org_id: UUID, name: str) -> EmbeddingModel:
        return SlowEmbedding()


class LimitedModels:
    """A provider that takes one call in so many, and asks for a pause at the others."""

    def __init__(self, *, one_in: int, pause_s: float) -> None:
        self.one_in, self.pause_s = one_in, pause_s
        self.paid: list[str] = []
        self.refused = 0

    async def embedding_model(self, org_id: UUID, name: str) -> EmbeddingModel:
        return _Limited(self)


class _Limited(HashEmbedding):
    def __init__(self, owner: LimitedModels) -> None:
        super().__init__()
        self._owner = owner

    async def embed(self, texts: Sequence[str], *, purpose: Purpose = "document") -> EmbeddingResult:
        owner = self._owner
        if (owner.refused + len(owner.paid)) % owner.one_in:
            owner.refused += 1
            raise RateLimited("Slow down.", retry_after_s=owner.pause_s)
        owner.paid.extend(texts)
        return await super().embed(texts, purpose=purpose)


@asynccontextmanager
async def opened(runtime_url: str) -> AsyncIterator[tuple[Ingestion, ProcrastinateQueue]]:
    """What a worker works with, over a database."""
    pool = await open_pool(runtime_url, min_size=1, max_size=6)
    async with open_queue(runtime_url) as queue, ParserProcess() as parser:
        try:
            yield Ingestion(pool, Folders(), queue, SlowModels(), parser, leases=LEASES), queue
        finally:
            await pool.close()


@asynccontextmanager
async def working(context: Ingestion, queue: ProcrastinateQueue, options: Options | None = None) -> AsyncIterator[None]:
    """A worker runs inside of the block."""
    task = asyncio.create_task(worker.run(context, queue, options or Options(is_alone=True)))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def eventually(look: Callable[[], Awaitable[Any]], expected: Callable[[Any], bool]) -> Any:
    """Wait until the value is as expected and return it; the last value is in the failure."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            value = await look()
            if expected(value):
                return value
            await asyncio.sleep(0.05)


async def main(runtime_url: str) -> None:
    async with opened(runtime_url) as (context, queue):
        await worker.run(context, queue, Options(is_alone=True))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
