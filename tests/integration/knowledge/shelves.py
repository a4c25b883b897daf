"""Knowledge bases with any texts and any vectors, written straight into the tables as ingestion leaves them."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from pgvector import Vector
from psycopg.types.json import Jsonb

from bonito.database.pool import Connection, Pool, tenant
from bonito.errors import ModelNotFound, ProviderFailed
from bonito.knowledge import bases, generations
from bonito.knowledge.bases import Options, Source
from bonito.providers.base import EmbeddingModel, EmbeddingResult, Purpose, Usage

AVERAGE_LENGTH = 12.0

ADD_DOCUMENT = """
    INSERT INTO kb_documents (org_id, id, knowledge_base_id, file_path, file_name, file_type, status, metadata)
    VALUES (%(org_id)s, %(document_id)s, %(base_id)s, %(path)s, %(name)s, 'md', 'ready', %(metadata)s)
    ON CONFLICT (org_id, knowledge_base_id, file_path) DO UPDATE SET metadata = excluded.metadata
    RETURNING id
"""
SUPERSEDE = """
    UPDATE kb_revisions SET status = 'superseded', ended_at = now()
     WHERE org_id = %(org_id)s AND document_id = %(document_id)s AND generation_id = %(generation_id)s
       AND status = 'served' AND %(status)s = 'served'
"""
ADD_REVISION = """
    INSERT INTO kb_revisions (org_id, id, knowledge_base_id, generation_id, document_id, file_hash, status, chunk_count,
                              token_count)
    VALUES (%(org_id)s, %(revision_id)s, %(base_id)s, %(generation_id)s, %(document_id)s,
            sha256(%(revision_id)s::text::bytea), %(status)s, %(count)s, %(count)s)
"""
ADD_CHUNKS = """
    INSERT INTO kb_chunks (org_id, id, knowledge_base_id, document_id, revision_id, chunk_index, content, token_count,
                           source_page, source_section, char_start, char_end)
    SELECT %(org_id)s, c.id, %(base_id)s, %(document_id)s, %(revision_id)s, c.place, c.content, 1, c.place, 'A > B',
           0, 1
      FROM unnest(%(ids)s::uuid[], %(contents)s::text[]) WITH ORDINALITY AS c (id, content, place)
"""
ADD_INDEX = """
    INSERT INTO kb_index (org_id, chunk_id, knowledge_base_id, generation_id, revision_id, document_id, dimensions,
                          embedding, terms, lexical, lexeme_count)
    SELECT %(org_id)s, c.id, %(base_id)s, %(generation_id)s, %(revision_id)s, %(document_id)s, vector_dims(c.embedding),
           c.embedding, l.terms, l.lexical, l.lexeme_count
      FROM unnest(%(ids)s::uuid[], %(contents)s::text[], %(vectors)b::vector[]) AS c (id, content, embedding),
           lexical_row(%(generation_id)s, to_tsvector(%(language)s::regconfig, c.content), %(average)s::real) l
"""
RECOUNT = """
    UPDATE kb_generations g
       SET (document_count, chunk_count, dimensions) = (
           SELECT count(*), coalesce(sum(r.chunk_count), 0), %(dimensions)s FROM kb_revisions r
            WHERE r.org_id = g.org_id AND r.generation_id = g.id AND r.status = 'served'),
           chunks_written = chunks_written + %(count)s
     WHERE g.org_id = %(org_id)s AND g.id = %(generation_id)s
"""
FORGET_TERMS = "DELETE FROM kb_terms WHERE org_id = %(org_id)s AND generation_id = %(generation_id)s"
COUNT_TERMS = """
    INSERT INTO kb_terms (org_id, generation_id, term, document_frequency)
    SELECT %(org_id)s, %(generation_id)s, t.term, count(*)
      FROM kb_index i
      JOIN kb_revisions r ON r.org_id = i.org_id AND r.id = i.revision_id AND r.status = 'served',
           unnest(i.terms) AS t (term)
     WHERE i.org_id = %(org_id)s AND i.generation_id = %(generation_id)s AND t.term > 0
     GROUP BY t.term
"""


@dataclass
class TableEmbedding:
    """An embedding model that answers from a table; what is not in it has the vector (1, 1, …)."""

    name: str = "test/table"
    dimensions: int | None = 4
    max_input_tokens: int = 256
    max_batch: int = 64
    max_batch_tokens: int = 100_000
    max_parallel: int = 1
    price_nano_usd: int | None = None
    fingerprint: str = "test/table:1"
    vectors: dict[str, Sequence[float]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    is_down: bool = False

    async def embed(self, texts: Sequence[str], *, purpose: Purpose = "document") -> EmbeddingResult:
        if self.is_down:
            raise ProviderFailed("The provider answered 500.")
        self.calls.extend(texts)
        rest = [1.0] * (self.dimensions or 0)
        found = tuple(array("f", self.vectors.get(text, rest)) for text in texts)
        return EmbeddingResult(found, Usage(input_tokens=3 * len(texts)))


class Models:
    """The embedding models of a test, by name, for every organization."""

    def __init__(self, *models: TableEmbedding) -> None:
        self.by_name = {model.name: model for model in models}

    async def embedding_model(self, org_id: UUID, name: str) -> EmbeddingModel:
        if name not in self.by_name:
            raise ModelNotFound(f"There is no embedding model {name}.")
        return self.by_name[name]


@dataclass(frozen=True)
class Shelf:
    """A knowledge base and the generation that tests fill."""

    pool: Pool
    org_id: UUID
    base_id: UUID
    generation_id: UUID
    name: str
    language: str
    dimensions: int

    async def add(
        self,
        path: str,
        contents: Sequence[str],
        vectors: Sequence[Sequence[float]] | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        status: str = "served",
    ) -> list[UUID]:
        """A document's new content; one that is served supersedes what was. The chunks' ids."""
        vectors = vectors or [[1.0] * self.dimensions for _ in contents]
        async with tenant(self.pool, self.org_id) as conn:
            row = self._row() | {"path": path, "name": path.rsplit("/", 1)[-1], "metadata": Jsonb(metadata or {})}
            found = await (await conn.execute(ADD_DOCUMENT, row | {"document_id": uuid4()})).fetchone()
            assert found is not None
            ids = [uuid4() for _ in contents]
            row |= {"document_id": found[0], "revision_id": uuid4(), "status": status, "count": len(contents)}
            row |= {"ids": ids, "contents": list(contents), "vectors": [Vector(list(vector)) for vector in vectors]}
            statements = (SUPERSEDE, ADD_REVISION, ADD_CHUNKS, ADD_INDEX, RECOUNT, FORGET_TERMS, COUNT_TERMS)
            for statement in statements:
                await conn.execute(statement, row)
        return ids

    async def serve(self) -> None:
        """Let this generation answer, in place of whichever did."""
        async with tenant(self.pool, self.org_id) as conn:
            await self.serve_in(conn)

    async def serve_in(self, conn: Connection) -> None:
        """The same, in a transaction of the caller's."""
        for statement in (
            "UPDATE kb_generations SET status = 'retired', retired_at = now() "
            "WHERE org_id = %(org_id)s AND knowledge_base_id = %(base_id)s AND status = 'served'",
            "UPDATE kb_generations SET status = 'served', served_at = now() "
            "WHERE org_id = %(org_id)s AND id = %(generation_id)s",
            "UPDATE knowledge_bases SET served_generation = %(generation_id)s "
            "WHERE org_id = %(org_id)s AND id = %(base_id)s",
        ):
            await conn.execute(statement, self._row())

    def _row(self) -> dict[str, Any]:
        return {
            "org_id": self.org_id,
            "base_id": self.base_id,
            "generation_id": self.generation_id,
            "language": self.language,
            "average": AVERAGE_LENGTH,
            "dimensions": self.dimensions,
        }


async def create_shelf(
    pool: Pool, org_id: UUID, name: str, *, model: TableEmbedding, language: str = "english", serving: bool = True
) -> Shelf:
    """A base whose first generation is served, empty as it is; `serving=False`: it is not ready."""
    pinned = generations.pin(model, chunk_size=256, chunk_overlap=0, language=language)
    base_id, generation_id = uuid4(), uuid4()
    async with tenant(pool, org_id) as conn:
        await bases.create(
            conn,
            org_id=org_id,
            knowledge_base_id=base_id,
            generation_id=generation_id,
            options=Options(name=name, embedding_model=model.name, language=language),
            source=Source(type="upload", config={"type": "upload"}, bucket=str(base_id)),
            pinned=pinned,
        )
    shelf = Shelf(pool, org_id, base_id, generation_id, name, language, model.dimensions or 0)
    if serving:
        await shelf.serve()
    return shelf


async def next_generation(shelf: Shelf, *, model: TableEmbedding, language: str | None = None) -> Shelf:
    """Another build of the same base, building."""
    pinned = generations.pin(model, chunk_size=128, chunk_overlap=0, language=language or shelf.language)
    generation_id = uuid4()
    async with tenant(shelf.pool, shelf.org_id) as conn:
        await generations.create(
            conn,
            org_id=shelf.org_id,
            knowledge_base_id=shelf.base_id,
            generation_id=generation_id,
            pinned=pinned,
        )
    return Shelf(
        shelf.pool,
        shelf.org_id,
        shelf.base_id,
        generation_id,
        shelf.name,
        language or shelf.language,
        model.dimensions or 0,
    )
