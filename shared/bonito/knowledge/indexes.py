"""Gives each large generation an HNSW index of its own, rebuilds it after much change, drops what nobody needs.

Maintenance runs this with the owner's rights on a direct connection. One index over many knowledge bases, filtered, has
a recall of 0.04 at 1 % of the rows (R1); an own one does not see the others. Everything is built concurrently, beside
what is in use.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.rows import class_row

from bonito.database.migrate import READ_PGVECTOR
from bonito.database.versions import check_pgvector

logger = logging.getLogger(__name__)

# Measured with 100,000 vectors of 384 dimensions like those of all-MiniLM-L6-v2, ten best among 100 candidates. On the
# topic every setting finds them. Beside it, where all chunks are about equally far, 16 and 64 find 92 % of them with
# ef_search = 1,000; 32 and 200 find 99 % by reading 15,750 pages; 16 and 400 find 99.5 % by reading 9,500, with 700.
M = 16
EF_CONSTRUCTION = 400

# Rebuilt after more than this many chunks came or went, and more than this share of what there is (ING-13).
CHURN_CHUNKS = 10_000
CHURN_SHARE = 0.2

MIN_BUILD_BYTES = 64 * 2**20
MAX_BUILD_BYTES = 2**30

# Until the connection closes.
LOCK: LiteralString = "SELECT pg_try_advisory_lock(4207849485)"

PATIENT: LiteralString = "SET statement_timeout = 0"
SET: LiteralString = "SELECT set_config(%(name)s, %(value)s, false)"

# The name tells the generation, and its chunks_written when the build began.
FIND_INDEXES: LiteralString = """
    SELECT c.relname AS name, x.indisvalid AS is_valid
      FROM pg_index x
      JOIN pg_class c ON c.oid = x.indexrelid
      JOIN pg_inherits h ON h.inhrelid = x.indrelid AND h.inhparent = 'public.kb_index'::regclass
     WHERE c.relname ~ '^kb_hnsw_[0-9a-f]{32}_[0-9]+$'
     ORDER BY c.relname
"""

# The partition is told by any row.
FIND_GENERATIONS: LiteralString = """
    SELECT g.org_id, g.knowledge_base_id, g.id, g.dimensions, g.chunk_count, g.chunks_written,
           g.chunk_count > exact_search_limit() AS is_large, g.chunk_count > exact_search_limit() / 2 AS may_keep,
           (SELECT c.relname FROM kb_index i JOIN pg_class c ON c.oid = i.tableoid
             WHERE i.org_id = g.org_id AND i.generation_id = g.id LIMIT 1) AS partition
      FROM kb_generations g
      JOIN knowledge_bases b ON b.org_id = g.org_id AND b.id = g.knowledge_base_id AND b.deleted_at IS NULL
     WHERE g.status <> 'retired' AND g.dimensions IS NOT NULL
     ORDER BY g.org_id, g.id
"""

# vector_candidates in 0003_search.sql orders by this expression, and names these three columns with literals.
# Normalized, no number is too large for a halfvec; half the memory, the same recall.
CREATE = sql.SQL("""
    CREATE INDEX CONCURRENTLY {name} ON {partition}
     USING hnsw ((l2_normalize(embedding)::halfvec({dimensions})) halfvec_cosine_ops)
      WITH (m = {m}, ef_construction = {ef_construction})
     WHERE org_id = {org_id} AND knowledge_base_id = {knowledge_base_id} AND generation_id = {generation_id}
""")
DROP = sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS public.{name}")


@dataclass(frozen=True)
class OwnIndex:
    """An HNSW index of ours; one that is not valid was left by a build that did not end."""

    name: str
    is_valid: bool

    @property
    def generation_id(self) -> UUID:
        """The generation that it is over."""
        return UUID(self.name.split("_")[2])

    @property
    def built_at_written(self) -> int:
        """The generation's `chunks_written` when the build began."""
        return int(self.name.split("_")[3])


@dataclass(frozen=True)
class IndexedGeneration:
    """A generation that is served or building, as far as its index needs to know.

    Attributes:
        chunk_count: served.
        chunks_written: ever served and no longer served.
        is_large: above what is searched by comparing everything.
        may_keep: not so small by now that its index is not worth its memory.
        partition: of kb_index; None without rows.
    """

    org_id: UUID
    knowledge_base_id: UUID
    id: UUID
    dimensions: int
    chunk_count: int
    chunks_written: int
    is_large: bool
    may_keep: bool
    partition: str | None

    @property
    def index_name(self) -> str:
        """Of an index that is built now."""
        return f"kb_hnsw_{self.id.hex}_{self.chunks_written}"

    def has_changed_since(self, index: OwnIndex) -> bool:
        """Whether enough came or went for a new build."""
        churn = self.chunks_written - index.built_at_written
        return churn > CHURN_CHUNKS and churn > CHURN_SHARE * self.chunk_count


@dataclass(frozen=True)
class Maintained:
    """What one run did, by the indexes' names; `failed` ones are tried again by the next run."""

    built: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


async def maintain(url: str, *, max_build_bytes: int = MAX_BUILD_BYTES) -> Maintained | None:
    """Build and drop indexes until every generation has what it needs.

    A generation above the limit of exact search gets an index; after much change a new one beside the old, which then
    goes; retired, deleted and shrunken ones lose theirs. What a crashed build left is dropped first.

    Args:
        url: a direct connection (no transaction-pooling proxy) of a member of bonito_owner.
        max_build_bytes: memory of one build; a graph that does not fit is built slower.

    Returns:
        What was done; None while another process maintains this database.

    Raises:
        SchemaMismatch: pgvector is too old.
        psycopg.Error: the database did not answer. What fails about one index is logged and told in the result.
    """
    connection = await AsyncConnection.connect(url, autocommit=True)
    async with connection:
        locked = await (await connection.execute(LOCK)).fetchone()
        if locked is None or not locked[0]:
            return None
        await connection.execute(PATIENT)
        row = await (await connection.execute(READ_PGVECTOR)).fetchone()
        workers = None if check_pgvector(row[0] if row else "0") else 0
        done = Maintained()
        for index in await _find_indexes(connection):
            if not index.is_valid:
                await _drop(connection, index, done)
        await _build_missing(connection, done, workers=workers, max_build_bytes=max_build_bytes)
        await _drop_unneeded(connection, done)
        return done


async def _build_missing(
    connection: AsyncConnection[Any], done: Maintained, *, workers: int | None, max_build_bytes: int
) -> None:
    newest = _newest(await _find_indexes(connection))
    for generation in await _find_generations(connection):
        present = newest.get(generation.id)
        if not generation.is_large or generation.partition is None:
            continue
        if present is not None and not generation.has_changed_since(present):
            continue
        memory = max(MIN_BUILD_BYTES, min(max_build_bytes, _build_bytes(generation)))
        try:
            await _build(connection, generation, workers=workers, memory=memory)
        except psycopg.Error:
            logger.exception("The index %s could not be built", generation.index_name)
            done.failed.append(generation.index_name)
            if connection.closed:
                raise
        else:
            done.built.append(generation.index_name)


async def _build(
    connection: AsyncConnection[Any], generation: IndexedGeneration, *, workers: int | None, memory: int
) -> None:
    statement = CREATE.format(
        name=sql.Identifier(generation.index_name),
        partition=sql.Identifier("public", generation.partition or ""),
        dimensions=sql.Literal(generation.dimensions),
        m=sql.Literal(M),
        ef_construction=sql.Literal(EF_CONSTRUCTION),
        org_id=sql.Literal(generation.org_id),
        knowledge_base_id=sql.Literal(generation.knowledge_base_id),
        generation_id=sql.Literal(generation.id),
    )
    await _set(connection, "maintenance_work_mem", f"{memory // 1024}kB")
    if workers is not None:
        await _set(connection, "max_parallel_maintenance_workers", str(workers))
    try:
        await connection.execute(statement)
    except psycopg.errors.DiskFull:  # shared memory: containers have 64 MB of it, and parallel builds live there
        logger.info("Building %s by one process, for want of shared memory", generation.index_name)
        await connection.execute(DROP.format(name=sql.Identifier(generation.index_name)))
        await _set(connection, "max_parallel_maintenance_workers", "0")
        await connection.execute(statement)


async def _drop_unneeded(connection: AsyncConnection[Any], done: Maintained) -> None:
    """Of each generation that is still large, the newest valid index stays."""
    kept = {generation.id for generation in await _find_generations(connection) if generation.may_keep}
    found = await _find_indexes(connection)
    newest = _newest(found)
    for index in found:
        if index.generation_id not in kept or newest.get(index.generation_id) != index:
            await _drop(connection, index, done)


def _newest(indexes: Sequence[OwnIndex]) -> dict[UUID, OwnIndex]:
    """Per generation, the valid index that was built last."""
    valid = (index for index in indexes if index.is_valid)
    return {index.generation_id: index for index in sorted(valid, key=lambda index: index.built_at_written)}


async def _drop(connection: AsyncConnection[Any], index: OwnIndex, done: Maintained) -> None:
    await connection.execute(DROP.format(name=sql.Identifier(index.name)))
    done.dropped.append(index.name)


async def _find_indexes(connection: AsyncConnection[Any]) -> Sequence[OwnIndex]:
    async with connection.cursor(row_factory=class_row(OwnIndex)) as cursor:
        await cursor.execute(FIND_INDEXES)
        return await cursor.fetchall()


async def _find_generations(connection: AsyncConnection[Any]) -> Sequence[IndexedGeneration]:
    async with connection.cursor(row_factory=class_row(IndexedGeneration)) as cursor:
        await cursor.execute(FIND_GENERATIONS)
        return await cursor.fetchall()


async def _set(connection: AsyncConnection[Any], name: str, value: str) -> None:
    await connection.execute(SET, {"name": name, "value": value})


def _build_bytes(generation: IndexedGeneration) -> int:
    """What the graph takes in memory: vectors of two bytes a number, 2 * M neighbours on the lowest layer and more."""
    return round(1.2 * generation.chunk_count * (2 * generation.dimensions + 40 * M + 300))
