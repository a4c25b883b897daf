"""Generations of a knowledge base: one build each, with everything pinned that old and new rows must agree on.

A base has at most one served generation, which answers, and at most one that is being built beside it. A changed
document is built for both, until one short transaction switches. Locks are taken in the order knowledge base,
document, generation.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, LiteralString
from uuid import UUID

from psycopg.rows import class_row

from bonito.database.pool import Connection
from bonito.errors import KnowledgeBaseNotFound, StateConflict
from bonito.providers.base import EmbeddingModel

GenerationStatus = Literal["building", "served", "retired"]

# What BM25 is written with until there is something to measure: lexemes of a chunk per token of the chunk size. In
# 57,000 tokens of English documentation there were 0.37 to a token, and chunks of 256 tokens were full to two thirds.
LEXEMES_PER_TOKEN = 0.25

COLUMNS: LiteralString = """
    id, knowledge_base_id, status, embedding_model, embedding_fingerprint, dimensions, tokenizer, chunk_size,
    chunk_overlap, language, average_length, document_count, chunk_count, token_count, lexeme_count, chunks_written,
    created_at, served_at, retired_at
"""

GET: LiteralString = f"SELECT {COLUMNS} FROM kb_generations WHERE org_id = %(org_id)s AND id = %(generation_id)s"  # noqa: S608

# Served before building.
OPEN: LiteralString = f"""
    SELECT {COLUMNS} FROM kb_generations
     WHERE org_id = %(org_id)s AND knowledge_base_id = ANY(%(knowledge_base_ids)s) AND status <> 'retired'
     ORDER BY knowledge_base_id, status DESC
"""  # noqa: S608

INSERT: LiteralString = f"""
    INSERT INTO kb_generations (org_id, id, knowledge_base_id, embedding_model, embedding_fingerprint, dimensions,
                                tokenizer, chunk_size, chunk_overlap, language, average_length)
    VALUES (%(org_id)s, %(generation_id)s, %(knowledge_base_id)s, %(embedding_model)s, %(embedding_fingerprint)s,
            %(dimensions)s, %(tokenizer)s, %(chunk_size)s, %(chunk_overlap)s, %(language)s, %(average_length)s)
    RETURNING {COLUMNS}
"""  # noqa: S608

# Whoever begins, switches or deletes waits for the flips in progress and holds off new ones.
LOCK_BASE: LiteralString = """
    SELECT id FROM knowledge_bases
     WHERE org_id = %(org_id)s AND id = %(knowledge_base_id)s AND deleted_at IS NULL FOR UPDATE
"""

RETIRE: LiteralString = """
    UPDATE kb_generations SET status = 'retired', retired_at = now()
     WHERE org_id = %(org_id)s AND knowledge_base_id = %(knowledge_base_id)s AND status = %(status)s
"""

SERVE: LiteralString = """
    UPDATE kb_generations SET status = 'served', served_at = now()
     WHERE org_id = %(org_id)s AND id = %(generation_id)s AND status = 'building'
"""

POINT: LiteralString = """
    UPDATE knowledge_bases SET served_generation = %(generation_id)s
     WHERE org_id = %(org_id)s AND id = %(knowledge_base_id)s
"""

# Of two flips at once the second waits for the first, sees that the base serves, and changes nothing.
POINT_FIRST: LiteralString = """
    UPDATE knowledge_bases b SET served_generation = g.id
      FROM kb_generations g
     WHERE b.org_id = %(org_id)s AND b.id = %(knowledge_base_id)s AND b.served_generation IS NULL
       AND b.deleted_at IS NULL
       AND g.org_id = b.org_id AND g.knowledge_base_id = b.id AND g.id = %(generation_id)s AND g.status = 'building'
    RETURNING b.id
"""

# What the served generation answers from and the building one cannot yet: live documents without a served revision
# there of the content that is served now, or that is wanted now, unless exactly that content failed for good.
MISSING: LiteralString = """
    SELECT count(*) FROM (
    SELECT FROM kb_revisions old
      JOIN kb_documents d ON d.org_id = old.org_id AND d.id = old.document_id AND d.deleted_at IS NULL
     WHERE old.org_id = %(org_id)s AND old.generation_id = %(served)s AND old.status = 'served'
       AND NOT EXISTS (
           SELECT FROM kb_revisions new
            WHERE new.org_id = old.org_id AND new.document_id = old.document_id AND new.generation_id = %(building)s
              AND new.status IN ('served', 'failed') AND new.file_hash IN (old.file_hash, d.file_hash))
     LIMIT %(at_most)s) AS missing
"""

PIN_DIMENSIONS: LiteralString = """
    UPDATE kb_generations SET dimensions = %(dimensions)s
     WHERE org_id = %(org_id)s AND id = %(generation_id)s AND dimensions IS NULL
"""

PIN_LANGUAGE: LiteralString = """
    UPDATE kb_generations SET language = %(language)s
     WHERE org_id = %(org_id)s AND id = %(generation_id)s AND language IS NULL
"""


@dataclass(frozen=True)
class Pinned:
    """What a generation is built with and never changes.

    Attributes:
        embedding_model: by its full name; `auto` has been decided.
        embedding_fingerprint: of the model; vectors under another one cannot be compared.
        dimensions: of every vector; None until the first one tells.
        tokenizer: the model whose tokenizer counts, as `tokenizer_for` takes it.
        chunk_size: tokens, in force: what was asked for, capped by what the model reads.
        chunk_overlap: tokens, below chunk_size.
        language: a text search configuration; None until the first text tells.
    """

    embedding_model: str
    embedding_fingerprint: str
    dimensions: int | None
    tokenizer: str
    chunk_size: int
    chunk_overlap: int
    language: str | None


@dataclass(frozen=True)
class Generation:
    """A row of kb_generations; the counts are of served revisions and change in the transaction of each flip."""

    id: UUID
    knowledge_base_id: UUID
    status: GenerationStatus
    embedding_model: str
    embedding_fingerprint: str
    dimensions: int | None
    tokenizer: str
    chunk_size: int
    chunk_overlap: int
    language: str | None
    average_length: float
    document_count: int
    chunk_count: int
    token_count: int
    lexeme_count: int
    chunks_written: int
    created_at: datetime
    served_at: datetime | None
    retired_at: datetime | None

    def is_built_with(self, pinned: Pinned) -> bool:
        """Whether a build with `pinned` would give what this one gives."""
        return (
            self.embedding_model == pinned.embedding_model
            and self.embedding_fingerprint == pinned.embedding_fingerprint
            and self.chunk_size == pinned.chunk_size
            and self.chunk_overlap == pinned.chunk_overlap
            and self.language == pinned.language
        )


def pin(model: EmbeddingModel, *, chunk_size: int, chunk_overlap: int, language: str | None) -> Pinned:
    """Decide what a new generation is built with.

    Args:
        model: what the base's `embedding_model` means now.
        chunk_size: tokens, as asked for; cut to what the model reads.
        chunk_overlap: tokens, as asked for; the same share of the chunk is kept when the size is cut.
        language: a text search configuration, None where the first text shall tell.
    """
    size = min(chunk_size, model.max_input_tokens)
    return Pinned(
        embedding_model=model.name,
        embedding_fingerprint=model.fingerprint,
        dimensions=model.dimensions,
        tokenizer=model.name,
        chunk_size=size,
        chunk_overlap=chunk_overlap * size // chunk_size,
        language=language,
    )


def expected_length(pinned: Pinned, served: Generation | None) -> float:
    """Lexemes per chunk that a new generation's BM25 weights are written with; fixed for its life.

    An empty base starts from a constant per token. A later generation is measured from the served one: its lexemes
    per token, times the tokens that a chunk of the new size will hold if it is filled as before, and never more than
    a document has.
    """
    if served is None or not (served.chunk_count and served.token_count and served.lexeme_count):
        return max(1.0, LEXEMES_PER_TOKEN * pinned.chunk_size)
    filled = served.token_count / served.chunk_count / served.chunk_size
    tokens = min(filled * pinned.chunk_size, served.token_count / max(1, served.document_count))
    return max(1.0, served.lexeme_count / served.token_count * tokens)


def check_fingerprint(generation: Generation, model: EmbeddingModel) -> None:
    """Refuse to compare vectors of two models: StateConflict when the model is no longer what was pinned (I16)."""
    if model.fingerprint != generation.embedding_fingerprint:
        raise StateConflict(
            f"The embedding model {generation.embedding_model} is no longer the one that this knowledge base was "
            "built with. Set its embedding model again to build it anew."
        )


async def get(conn: Connection, *, org_id: UUID, generation_id: UUID) -> Generation | None:
    """One generation, retired or not; None once the sweeper removed it."""
    async with conn.cursor(row_factory=class_row(Generation)) as cursor:
        await cursor.execute(GET, {"org_id": org_id, "generation_id": generation_id})
        return await cursor.fetchone()


async def building_or_served(conn: Connection, *, org_id: UUID, knowledge_base_id: UUID) -> tuple[Generation, ...]:
    """The generations that a changed document is built for: the served one first, then the building one."""
    found = await open_of_bases(conn, org_id=org_id, knowledge_base_ids=[knowledge_base_id])
    return found.get(knowledge_base_id, ())


async def open_of_bases(
    conn: Connection, *, org_id: UUID, knowledge_base_ids: list[UUID]
) -> dict[UUID, tuple[Generation, ...]]:
    """Per knowledge base, its served generation, then its building one, of those that there are."""
    found: dict[UUID, tuple[Generation, ...]] = {}
    async with conn.cursor(row_factory=class_row(Generation)) as cursor:
        await cursor.execute(OPEN, {"org_id": org_id, "knowledge_base_ids": knowledge_base_ids})
        async for generation in cursor:
            found[generation.knowledge_base_id] = (*found.get(generation.knowledge_base_id, ()), generation)
    return found


async def create(
    conn: Connection,
    *,
    org_id: UUID,
    knowledge_base_id: UUID,
    generation_id: UUID,
    pinned: Pinned,
    served: Generation | None = None,
) -> Generation:
    """Insert a building generation; the base has no other one that is building."""
    row = {
        "org_id": org_id,
        "generation_id": generation_id,
        "knowledge_base_id": knowledge_base_id,
        "average_length": expected_length(pinned, served),
    }
    async with conn.cursor(row_factory=class_row(Generation)) as cursor:
        await cursor.execute(INSERT, row | vars(pinned))
        created = await cursor.fetchone()
    assert created is not None  # noqa: S101 - INSERT … RETURNING answers with its row
    return created


async def begin(
    conn: Connection, *, org_id: UUID, knowledge_base_id: UUID, generation_id: UUID, pinned: Pinned
) -> Generation | None:
    """Build anew beside what is served, in place of whatever was being built.

    Args:
        conn: in the tenant's transaction; the base stays locked until its end.
        org_id: the organization.
        knowledge_base_id: a base that is not deleted; KnowledgeBaseNotFound.
        generation_id: of the new generation, should one be needed.
        pinned: what it is built with.

    Returns:
        The generation that is building now, new or the one that already was built with `pinned`; its documents have
        yet to be sent to work. None when the served generation is built so, and nothing needs to be built.
    """
    base = {"org_id": org_id, "knowledge_base_id": knowledge_base_id}
    await _lock_base(conn, org_id=org_id, knowledge_base_id=knowledge_base_id)
    served, building = await _served_and_building(conn, org_id=org_id, knowledge_base_id=knowledge_base_id)
    if building is not None and building.is_built_with(pinned):
        return building
    await conn.execute(RETIRE, base | {"status": "building"})
    if served is not None and served.is_built_with(pinned):
        return None
    return await create(
        conn,
        org_id=org_id,
        knowledge_base_id=knowledge_base_id,
        generation_id=generation_id,
        pinned=pinned,
        served=served,
    )


async def serve_first(conn: Connection, *, org_id: UUID, knowledge_base_id: UUID, generation_id: UUID) -> bool:
    """Serve the building generation of a base that serves nothing yet: at its first flip, or when it is empty.

    Idempotent. Lock the base (KEY SHARE) before the document and call this after the flip's other changes.

    Returns:
        Whether the generation is served from this transaction on because of this call.
    """
    row = {"org_id": org_id, "knowledge_base_id": knowledge_base_id, "generation_id": generation_id}
    if await (await conn.execute(POINT_FIRST, row)).fetchone() is None:
        return False
    await conn.execute(SERVE, row)
    return True


async def switch_if_complete(conn: Connection, *, org_id: UUID, knowledge_base_id: UUID) -> bool:
    """Serve the building generation if it holds everything that the served one answers from.

    One transaction with the base locked FOR UPDATE: no flip can come between the count and the switch, and searches
    see the old generation or the new one, whole. Call it in a transaction of its own, after each flip or failure.

    Returns:
        Whether the base serves another generation now.
    """
    base = {"org_id": org_id, "knowledge_base_id": knowledge_base_id}
    if await missing(conn, org_id=org_id, knowledge_base_id=knowledge_base_id, at_most=1) != 0:
        return False  # seen without the lock, as by most calls
    await _lock_base(conn, org_id=org_id, knowledge_base_id=knowledge_base_id)
    if await missing(conn, org_id=org_id, knowledge_base_id=knowledge_base_id, at_most=1) != 0:
        return False
    _, building = await _served_and_building(conn, org_id=org_id, knowledge_base_id=knowledge_base_id)
    assert building is not None  # noqa: S101 - missing() answered 0 under the lock
    await conn.execute(RETIRE, base | {"status": "served"})
    await conn.execute(SERVE, base | {"generation_id": building.id})
    await conn.execute(POINT, base | {"generation_id": building.id})
    return True


async def missing(conn: Connection, *, org_id: UUID, knowledge_base_id: UUID, at_most: int | None = None) -> int | None:
    """How many served documents the building generation lacks, counted up to `at_most`.

    Returns:
        None where nothing is built beside a served generation.
    """
    served, building = await _served_and_building(conn, org_id=org_id, knowledge_base_id=knowledge_base_id)
    if served is None or building is None:
        return None
    row = {"org_id": org_id, "served": served.id, "building": building.id, "at_most": at_most}
    counted = await (await conn.execute(MISSING, row)).fetchone()
    assert counted is not None  # noqa: S101 - count(*) always answers
    return int(counted[0])


async def pin_dimensions(conn: Connection, *, org_id: UUID, generation_id: UUID, dimensions: int) -> None:
    """Record how long this generation's vectors are; the first writer wins.

    Raises:
        StateConflict: the generation has vectors of another length, or is gone.
    """
    row = {"org_id": org_id, "generation_id": generation_id, "dimensions": dimensions}
    found = await get(conn, org_id=org_id, generation_id=generation_id)
    if found is not None and found.dimensions is None:
        await conn.execute(PIN_DIMENSIONS, row)
        found = await get(conn, org_id=org_id, generation_id=generation_id)
    if found is None:
        raise StateConflict("This build of the knowledge base was removed.")
    if found.dimensions != dimensions:
        raise StateConflict(
            f"The embedding model {found.embedding_model} answered with vectors of {dimensions} numbers, and this "
            f"knowledge base is built with {found.dimensions}. Set its embedding model again to build it anew."
        )


async def pin_language(conn: Connection, *, org_id: UUID, generation_id: UUID, language: str) -> str:
    """Record which text search configuration this generation is written with; the first writer wins.

    Returns:
        The configuration in force: `language`, or that of whoever came first.

    Raises:
        StateConflict: the generation is gone.
    """
    row = {"org_id": org_id, "generation_id": generation_id, "language": language}
    found = await get(conn, org_id=org_id, generation_id=generation_id)
    if found is not None and found.language is None:
        await conn.execute(PIN_LANGUAGE, row)
        found = await get(conn, org_id=org_id, generation_id=generation_id)
    if found is None or found.language is None:
        raise StateConflict("This build of the knowledge base was removed.")
    return found.language


async def _lock_base(conn: Connection, *, org_id: UUID, knowledge_base_id: UUID) -> None:
    row = {"org_id": org_id, "knowledge_base_id": knowledge_base_id}
    if await (await conn.execute(LOCK_BASE, row)).fetchone() is None:
        raise KnowledgeBaseNotFound(f"There is no knowledge base {knowledge_base_id}.")


async def _served_and_building(
    conn: Connection, *, org_id: UUID, knowledge_base_id: UUID
) -> tuple[Generation | None, Generation | None]:
    found = await building_or_served(conn, org_id=org_id, knowledge_base_id=knowledge_base_id)
    by_status = {generation.status: generation for generation in found}
    return by_status.get("served"), by_status.get("building")
