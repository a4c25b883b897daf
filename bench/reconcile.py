"""A reconcile of a million objects that all are known: seconds, CPU of this process, and memory, in slices.

The store is a stub that names its objects and keeps none; the documents are inserted beforehand, in bulk. Each slice
ends after as many pages as a function lists in some seconds, and the next goes on from the stored cursor.

    .venv/bin/python -m bench.reconcile [--json]
"""

from __future__ import annotations

import asyncio
import resource
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg

import bench
from bonito.clouds.base import ObjectInfo
from bonito.database.pool import open_pool, tenant
from bonito.errors import NotFound
from bonito.knowledge import sync, sync_status
from bonito.knowledge.bases import KnowledgeBase
from bonito.knowledge.context import Ingestion
from bonito.knowledge.messages import SyncMessage
from bonito.local import postgres
from tests.integration.knowledge.ingesting import Parsers
from tests.integration.knowledge.served import HashModels

OBJECTS = 1_000_000
CHANGED = 1000  # of them another version, evenly spread
PAGES_OF_A_SLICE = 100
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)

ADD_ORGANIZATION = "INSERT INTO organizations (id, name) VALUES (%(org)s, 'bench')"
ADD_BASE = """
    INSERT INTO knowledge_bases (org_id, id, name, source_type, source_bucket, status)
    VALUES (%(org)s, %(base)s, 'bench', 's3', 'bench', 'ready')
"""
ADD_DOCUMENTS = """
    INSERT INTO kb_documents (org_id, id, knowledge_base_id, file_path, file_name, status, source_version)
    SELECT %(org)s, gen_random_uuid(), %(base)s, to_char(n, 'FM00000000') || '.md', to_char(n, 'FM00000000') || '.md',
           'ready', '1'
      FROM generate_series(0, %(objects)s - 1) n
"""


class Numbers:
    """A store whose objects have numbers for names."""

    async def store(self, org_id: UUID, base: KnowledgeBase) -> Numbers:
        return self

    async def discard(self, org_id: UUID, knowledge_base_id: UUID) -> None:
        """Nothing is kept."""

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        for number in range(int(after.removesuffix(".md") or -1) + 1, OBJECTS):
            version = "2" if number % (OBJECTS // CHANGED) == 0 else "1"
            yield ObjectInfo(f"{number:08}.md", 1000, version, MOMENT)

    async def head(self, key: str) -> ObjectInfo:
        raise NotFound(key)

    async def fetch(self, key: str, into: Path, *, max_bytes: int) -> ObjectInfo:
        raise NotFound(key)


@dataclass
class Queue:
    """Keeps the next slice's message, and counts the others."""

    next_slice: Mapping[str, object] | None = None
    sent: int = field(default=0)

    async def send(self, queue: str, message: Mapping[str, object], *, delay: timedelta = timedelta()) -> None:
        if queue == "sync":
            self.next_slice = message
        else:
            self.sent += 1


def run() -> dict[str, object]:
    """Fill, list, and look at what it took."""
    with tempfile.TemporaryDirectory(prefix="bonito-") as directory, postgres.running(Path(directory)) as urls:
        org_id, base_id = uuid4(), uuid4()
        row = {"org": org_id, "base": base_id, "objects": OBJECTS}
        with psycopg.connect(urls.owner) as conn:
            conn.execute("SET ROLE bonito_owner")
            for statement in (ADD_ORGANIZATION, ADD_BASE, ADD_DOCUMENTS):
                conn.execute(statement, row)
        with psycopg.connect(urls.owner, autocommit=True) as conn:
            conn.execute("SET ROLE bonito_owner")
            conn.execute("VACUUM ANALYZE kb_documents")
        return asyncio.run(measure(urls.runtime, org_id, base_id))


async def measure(runtime_url: str, org_id: UUID, base_id: UUID) -> dict[str, object]:
    """One sync, slice after slice."""
    pool, queue = await open_pool(runtime_url), Queue()
    context = Ingestion(pool, Numbers(), queue, HashModels(), Parsers())
    message: SyncMessage | None = SyncMessage(org_id, base_id, trigger="reconcile")
    begun, cpu, slices, memory = time.perf_counter(), time.process_time(), 0, list[int]()
    try:
        while message is not None:
            queue.next_slice = None
            await sync.sync(context, message, has_time=pages(PAGES_OF_A_SLICE))
            slices += 1
            memory.append(resident_kib())
            message = SyncMessage.from_json(queue.next_slice) if queue.next_slice else None
        took_s, cpu_s = time.perf_counter() - begun, time.process_time() - cpu
        async with tenant(pool, org_id) as conn:
            last = await sync_status.last(conn, org_id=org_id, knowledge_base_id=base_id)
    finally:
        await pool.close()
    assert last is not None
    return {
        "objects": last.files_total,
        "changed": last.files_changed,
        "sent": queue.sent,
        "slices": slices,
        "seconds": round(took_s, 1),
        "objects_per_s": round(OBJECTS / took_s),
        "cpu_s": round(cpu_s, 1),
        "memory_after_first_slice_mib": memory[0] // 1024,
        "memory_after_last_slice_mib": memory[-1] // 1024,
        "memory_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def pages(count: int) -> Callable[[], bool]:
    """Time for so many pages."""
    left = iter([True] * (count - 1))
    return lambda: next(left, False)


def resident_kib() -> int:
    """Resident memory of this process (Linux)."""
    status: dict[str, Any] = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line
    )
    return int(status["VmRSS"].split()[0])


if __name__ == "__main__":
    bench.show(run, __doc__)
