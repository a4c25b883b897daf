"""Ingestion end to end: documents per minute, rows written per second, and how soon a dropped file can be found.

Everything runs as in the product: the embedded Postgres as it comes, the runtime role under row-level security, the
worker with its queue, the parser's process, the watcher. Beside what the clock says stands what the processor did, in
this process, the parser's and the server's: that depends less on whatever else the machine does.

With vectors that cost nothing, the figure is Bonito's own share; with the local model it is what a laptop sees. A
document is a page of some 450 words, a ten-page one ten times that; chunks are 254 tokens as the local model reads
them. Rows are written by the statement of each batch of 32 chunks: text search terms, BM25 weights, and all indexes but
HNSW.

    .venv/bin/python -m bench.ingest [--json]
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import statistics
import tempfile
import time
from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import psutil
import psycopg

import bench
from bench import server
from bench.server import Server
from bench.synthetic import Corpus
from bonito.clouds.base import ObjectStore
from bonito.clouds.local import FolderStore, ProcrastinateQueue, open_queue
from bonito.database.pool import Pool, open_pool, tenant
from bonito.knowledge import bases, batches, claims, revisions
from bonito.knowledge.bases import KnowledgeBase, Options, Source
from bonito.knowledge.context import Ingestion
from bonito.knowledge.generations import Pinned
from bonito.knowledge.messages import SyncMessage
from bonito.knowledge.parsing.process import ParserProcess
from bonito.knowledge.revisions import Content, Description, NewChunk
from bonito.local import watcher, worker
from bonito.providers.base import EmbeddingModel, EmbeddingResult, Purpose
from bonito.providers.local.embedding import LocalEmbeddingModel

FREE_DOCUMENTS, MODEL_DOCUMENTS = 400, 40
DROPS = 15
WRITTEN_CHUNKS = 12_800
WRITERS = (1, 2, 4)
DIMENSIONS = 384
PAGE_WORDS = 450


class FreeModel:
    """Vectors out of a hash."""

    name, dimensions, max_input_tokens, fingerprint = "bench/free", DIMENSIONS, 256, "bench:1"
    max_batch, max_batch_tokens, max_parallel, price_nano_usd = 64, 100_000, 1, 0

    async def embed(self, texts: Sequence[str], *, purpose: Purpose = "document") -> EmbeddingResult:
        """One vector each, at the cost of a hash."""
        return EmbeddingResult(tuple(vector(text) for text in texts))


@dataclass(frozen=True)
class OneModel:
    """EmbeddingModels for a benchmark."""

    model: EmbeddingModel

    async def embedding_model(self, org_id: UUID, name: str) -> EmbeddingModel:
        """Always the same."""
        return self.model


class Folders:
    """Stores over the folder that a base's source names."""

    async def store(self, org_id: UUID, base: KnowledgeBase) -> ObjectStore:
        """A folder."""
        return FolderStore(Path(base.source_bucket))

    async def discard(self, org_id: UUID, knowledge_base_id: UUID) -> None:
        """Nothing is kept."""


@dataclass(frozen=True)
class Bed:
    """A database with an organization, and text."""

    runtime_url: str
    org_id: UUID
    corpus: Corpus
    root: Path
    server_pid: int

    def cpu_s(self) -> float:
        """Processor seconds that this process, its children and the server have used."""
        total = 0.0
        for process in (psutil.Process(), psutil.Process(self.server_pid)):
            for each in (process, *process.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    spent = each.cpu_times()
                    total += spent.user + spent.system + spent.children_user + spent.children_system
        return total

    def page(self) -> str:
        """A heading and some 450 words in paragraphs."""
        words = " ".join(self.corpus.text(0) for _ in range(2)).split()[:PAGE_WORDS]
        paragraphs = [" ".join(words[begin : begin + 60]) + "." for begin in range(0, len(words), 60)]
        return f"# {words[0]} {words[1]}\n\n" + "\n\n".join(paragraphs) + "\n\n"


def run() -> dict[str, object]:
    """All figures."""
    with server.running() as started, tempfile.TemporaryDirectory(prefix="bonito-bench-") as root:
        return asyncio.run(_measure(_prepare(started, Path(root))))


def vector(text: str) -> array[float]:
    """384 numbers out of a text's hash."""
    digest = hashlib.sha256(text.encode()).digest()
    return array("f", [byte - 127.5 for byte in digest * (DIMENSIONS // len(digest))])


def _prepare(started: Server, root: Path) -> Bed:
    org_id = uuid4()
    with psycopg.connect(started.urls.owner) as conn:
        conn.execute("INSERT INTO organizations (id, name) VALUES (%s, 'bench')", [org_id])
    return Bed(started.urls.runtime, org_id, Corpus(1), root, started.pid)


async def _measure(bed: Bed) -> dict[str, object]:
    figures: dict[str, object] = {"cpus": os.cpu_count()}
    pool = await open_pool(bed.runtime_url, min_size=4, max_size=8)
    try:
        figures["writing"] = {f"{count} writers": await _writing(bed, pool, count) for count in WRITERS}
        figures["free vectors"] = await _ingesting(bed, pool, FreeModel(), FREE_DOCUMENTS)
        figures["dropped, free vectors"] = await _dropping(bed, pool, FreeModel())
        local = LocalEmbeddingModel()
        await local.load()
        figures["local model"] = await _ingesting(bed, pool, local, MODEL_DOCUMENTS)
        figures["dropped, local model"] = await _dropping(bed, pool, local)
        local.close()
    finally:
        await pool.close()
    return figures


async def _writing(bed: Bed, pool: Pool, writers: int) -> dict[str, object]:
    """Chunks per second into kb_index, by so many connections at once."""
    base_id, generation_id = await _base(bed, pool, bed.root / "nothing", tokenizer="bench/free")
    share = WRITTEN_CHUNKS // max(WRITERS)
    parts = [await _stored(bed, pool, base_id, generation_id, number, share) for number in range(writers)]
    begin, spent = time.perf_counter(), bed.cpu_s()
    await asyncio.gather(*(_write(bed, pool, revision) for revision in parts))
    seconds, spent = time.perf_counter() - begin, bed.cpu_s() - spent
    await _forget(bed, pool, base_id)
    return {"chunks_per_s": round(writers * share / seconds), "chunks_per_cpu_s": round(writers * share / spent)}


async def _stored(bed: Bed, pool: Pool, base_id: UUID, generation_id: UUID, number: int, count: int) -> UUID:
    chunks = [NewChunk(text := bed.corpus.text(0), 250, None, None, 0, len(text)) for _ in range(count)]
    async with tenant(pool, bed.org_id) as conn:
        claimed = await claims.claim(
            conn,
            org_id=bed.org_id,
            knowledge_base_id=base_id,
            path=f"{number}.md",
            lease=worker.Options().reconcile,
        )
        revision = await revisions.store(
            conn,
            org_id=bed.org_id,
            document_id=claimed.id,
            generation_id=generation_id,
            content=Content(hashlib.sha256(str(number).encode()).digest(), "1", 1),
            description=Description("md"),
            chunks=chunks,
        )
        if revision is None:
            raise RuntimeError("the generation is gone")
        await revisions.missing_batches(conn, org_id=bed.org_id, revision_id=revision)
    return revision


async def _write(bed: Bed, pool: Pool, revision: UUID) -> None:
    async with tenant(pool, bed.org_id) as conn:
        waiting = await revisions.missing_batches(conn, org_id=bed.org_id, revision_id=revision)
    for _, first_index in waiting or []:
        async with tenant(pool, bed.org_id) as conn:
            lease = worker.Options().reconcile
            batch = await batches.take(
                conn, org_id=bed.org_id, revision_id=revision, first_index=first_index, lease=lease
            )
            if not isinstance(batch, batches.Batch):
                raise TypeError("the batch is in other hands")
            texts = await batches.texts(conn, org_id=bed.org_id, batch=batch)
        async with tenant(pool, bed.org_id) as conn:
            build = await batches.find_build(conn, org_id=bed.org_id, revision_id=revision)
            if build is None:
                raise RuntimeError("the revision is no longer built")
            await batches.store(
                conn,
                org_id=bed.org_id,
                build=build,
                chunk_ids=[chunk_id for chunk_id, _ in texts],
                vectors=[vector(text) for _, text in texts],
            )


async def _ingesting(bed: Bed, pool: Pool, model: EmbeddingModel, documents: int) -> dict[str, object]:
    """Documents per minute, from a sync of a full folder to its end."""
    folder = Path(tempfile.mkdtemp(dir=bed.root))
    for number in range(documents):
        (folder / f"{number:04}.md").write_text(bed.page())
    base_id, _ = await _base(bed, pool, folder, tokenizer="local/all-minilm-l6-v2", model=model)
    async with _working(bed, pool, model) as (_, queue):
        begin, spent = time.perf_counter(), bed.cpu_s()
        await queue.send("sync", SyncMessage(bed.org_id, base_id).to_json())
        while not await _is_ready(bed, pool, base_id):
            await asyncio.sleep(0.1)
        seconds, spent = time.perf_counter() - begin, bed.cpu_s() - spent
    async with tenant(pool, bed.org_id) as conn:
        counted = await (
            await conn.execute(
                "SELECT document_count, chunk_count FROM kb_generations WHERE knowledge_base_id = %s", [base_id]
            )
        ).fetchone()
    await _forget(bed, pool, base_id)
    found, chunks = counted or (0, 0)
    if found != documents:
        raise RuntimeError(f"{found} of {documents} documents were ingested")
    return {
        "documents": documents,
        "chunks": chunks,
        "documents_per_minute": round(60 * documents / seconds),
        "documents_per_cpu_minute": round(60 * documents / spent),
        "chunks_per_s": round(chunks / seconds, 1),
    }


async def _dropping(bed: Bed, pool: Pool, model: EmbeddingModel) -> dict[str, object]:
    """Milliseconds from a file's appearance in a watched folder to its being served."""
    folder = Path(tempfile.mkdtemp(dir=bed.root))
    base_id, _ = await _base(bed, pool, folder, tokenizer="local/all-minilm-l6-v2", model=model)
    async with _working(bed, pool, model) as (context, _):
        watching = asyncio.create_task(watcher.run(context))
        while not await _is_ready(bed, pool, base_id):
            await asyncio.sleep(0.05)
        await asyncio.sleep(1.0)
        figures = {
            f"{pages} pages": await _drop_some(bed, pool, base_id, folder, pages, drops)
            for pages, drops in ((1, DROPS), (10, max(3, DROPS // 5)))
        }
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
    await _forget(bed, pool, base_id)
    return {"unit": "ms", **figures}


async def _drop_some(bed: Bed, pool: Pool, base_id: UUID, folder: Path, pages: int, drops: int) -> dict[str, int]:
    taken = []
    for number in range(drops):
        name, text = f"{pages}-{number}.md", "".join(bed.page() for _ in range(pages))
        begin = time.perf_counter()
        (folder / name).write_text(text)
        while not await _is_served(bed, pool, base_id, name):
            await asyncio.sleep(0.005)
        taken.append(1000 * (time.perf_counter() - begin))
        await asyncio.sleep(0.3)
    return {"median": round(statistics.median(taken)), "worst": round(max(taken))}


async def _is_ready(bed: Bed, pool: Pool, base_id: UUID) -> bool:
    async with tenant(pool, bed.org_id) as conn:
        return (await bases.get(conn, org_id=bed.org_id, name_or_id=str(base_id))).status == "ready"


async def _is_served(bed: Bed, pool: Pool, base_id: UUID, path: str) -> bool:
    async with tenant(pool, bed.org_id) as conn:
        cursor = await conn.execute(
            "SELECT 1 FROM kb_documents WHERE knowledge_base_id = %s AND file_path = %s AND status = 'ready'",
            [base_id, path],
        )
        return await cursor.fetchone() is not None


async def _base(
    bed: Bed, pool: Pool, folder: Path, *, tokenizer: str, model: EmbeddingModel | None = None
) -> tuple[UUID, UUID]:
    base_id, generation_id, chosen = uuid4(), uuid4(), model or FreeModel()
    pinned = Pinned(
        embedding_model=chosen.name,
        embedding_fingerprint=chosen.fingerprint,
        dimensions=DIMENSIONS,
        tokenizer=tokenizer,
        chunk_size=254,
        chunk_overlap=25,
        language="english",
    )
    async with tenant(pool, bed.org_id) as conn:
        await bases.create(
            conn,
            org_id=bed.org_id,
            knowledge_base_id=base_id,
            generation_id=generation_id,
            options=Options(name=f"b{base_id.hex[:8]}"),
            source=Source(type="local", config={"type": "local"}, bucket=str(folder)),
            pinned=pinned,
        )
    return base_id, generation_id


async def _forget(bed: Bed, pool: Pool, base_id: UUID) -> None:
    async with tenant(pool, bed.org_id) as conn:
        await bases.delete(conn, org_id=bed.org_id, knowledge_base_id=base_id)


@asynccontextmanager
async def _working(bed: Bed, pool: Pool, model: EmbeddingModel) -> AsyncIterator[tuple[Ingestion, ProcrastinateQueue]]:
    async with open_queue(bed.runtime_url) as queue, ParserProcess() as parser:
        context = Ingestion(pool, Folders(), queue, OneModel(model), parser)
        task = asyncio.create_task(worker.run(context, queue, worker.Options(can_listen=True, is_alone=True)))
        await asyncio.sleep(0.5)
        try:
            yield context, queue
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


if __name__ == "__main__":
    bench.show(run, __doc__)
