"""Knowledge bases in the state that ingestion leaves them in, written straight into the tables."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4, uuid5

from psycopg.types.json import Jsonb

from bonito.database.pool import Pool, tenant
from bonito.errors import ModelNotFound
from bonito.knowledge import bases, generations
from bonito.knowledge.bases import KnowledgeBase, Options, Source
from bonito.knowledge.generations import Generation
from bonito.providers.base import EmbeddingModel, EmbeddingResult, Purpose, Usage

DIMENSIONS = 8


@dataclass
class HashEmbedding:
    """An embedding model whose vectors are made of hashes: equal texts are equal, nothing else means anything."""

    name: str = "test/hash"
    dimensions: int | None = DIMENSIONS
    max_input_tokens: int = 256
    max_batch: int = 64
    max_batch_tokens: int = 100_000
    max_parallel: int = 1
    price_nano_usd: int | None = None
    fingerprint: str = "test/hash:1"

    async def embed(self, texts: Sequence[str], *, purpose: Purpose = "document") -> EmbeddingResult:
        return EmbeddingResult(tuple(vector_of(text) for text in texts), Usage(input_tokens=len(texts)))


class HashModels:
    """`auto` and `test/hash` are one model, `test/other` is another; there are no more."""

    async def embedding_model(self, org_id: UUID, name: str) -> EmbeddingModel:
        if name in {"auto", "test/hash"}:
            return HashEmbedding()
        if name == "test/other":
            return HashEmbedding(name=name, fingerprint="test/other:1", max_input_tokens=8192)
        raise ModelNotFound(f"There is no embedding model {name}.")


def vector_of(text: str) -> array[float]:
    raw = [byte - 127.5 for byte in hashlib.sha256(text.encode()).digest()[:DIMENSIONS]]
    length = math.sqrt(sum(value * value for value in raw))
    return array("f", [value / length for value in raw])


ADD_DOCUMENT = """
    INSERT INTO kb_documents (org_id, id, knowledge_base_id, file_path, file_name, file_type, file_size, file_hash,
                              source_version, status, page_count, metadata)
    VALUES (%(org_id)s, %(document_id)s, %(base_id)s, %(path)s, %(path)s, 'md', %(size)s, %(file_hash)s, 'v1', 'ready',
            NULL, %(metadata)s)
    ON CONFLICT (org_id, knowledge_base_id, file_path) DO UPDATE
       SET file_hash = excluded.file_hash
    RETURNING id
"""
SUPERSEDE = """
    UPDATE kb_revisions SET status = 'superseded', ended_at = now()
     WHERE org_id = %(org_id)s AND document_id = %(document_id)s AND generation_id = %(generation_id)s
       AND status = 'served'
"""
ADD_REVISION = """
    INSERT INTO kb_revisions (org_id, id, knowledge_base_id, generation_id, document_id, file_hash, status, chunk_count,
                              token_count, file_type, file_size)
    VALUES (%(org_id)s, %(revision_id)s, %(base_id)s, %(generation_id)s, %(document_id)s, %(file_hash)s, 'served',
            %(chunk_count)s, %(token_count)s, 'md', %(size)s)
"""
ADD_CHUNK = """
    INSERT INTO kb_chunks (org_id, id, knowledge_base_id, document_id, revision_id, chunk_index, content, token_count,
                           source_page, source_section, char_start, char_end, metadata)
    VALUES (%(org_id)s, %(chunk_id)s, %(base_id)s, %(document_id)s, %(revision_id)s, %(index)s, %(content)s,
            %(tokens)s, 1, 'Leave > Accrual', %(start)s, %(end)s, %(metadata)s)
"""
ADD_INDEX = """
    INSERT INTO kb_index (org_id, chunk_id, knowledge_base_id, generation_id, revision_id, document_id, dimensions,
                          embedding, terms, lexical, lexeme_count, metadata)
    SELECT %(org_id)s, %(chunk_id)s, %(base_id)s, %(generation_id)s, %(revision_id)s, %(document_id)s,
           %(dimensions)s, %(embedding)s::vector, l.terms, l.lexical, l.lexeme_count, %(metadata)s
      FROM lexical_row(%(generation_id)s, to_tsvector('english', %(content)s), 100) l
"""
COUNT = """
    UPDATE kb_generations g SET (document_count, chunk_count, token_count) = (
        SELECT count(*), coalesce(sum(r.chunk_count), 0), coalesce(sum(r.token_count), 0) FROM kb_revisions r
         WHERE r.org_id = g.org_id AND r.generation_id = g.id AND r.status = 'served')
     WHERE g.org_id = %(org_id)s AND g.id = %(generation_id)s
"""


async def create_base(pool: Pool, org_id: UUID, name: str, *, source_type: str = "upload") -> KnowledgeBase:
    """A base without documents, and its building generation."""
    new_id = uuid4()
    pinned = generations.pin(HashEmbedding(), chunk_size=512, chunk_overlap=50, language="english")
    source = Source(type=source_type, config={"type": source_type}, bucket=str(new_id))  # type: ignore[arg-type]
    async with tenant(pool, org_id) as conn:
        return await bases.create(
            conn,
            org_id=org_id,
            knowledge_base_id=new_id,
            generation_id=uuid4(),
            options=Options(name=name),
            source=source,
            pinned=pinned,
        )


async def serve(
    pool: Pool,
    org_id: UUID,
    base: KnowledgeBase,
    path: str,
    contents: Sequence[str],
    *,
    generation: Generation | None = None,
    metadata: dict[str, object] | None = None,
) -> UUID:
    """Serve a document with these chunks in a generation, the oldest open one unless told; the document's id."""
    async with tenant(pool, org_id) as conn:
        if generation is None:
            generation = (await generations.building_or_served(conn, org_id=org_id, knowledge_base_id=base.id))[0]
        text = "\n".join(contents)
        row: dict[str, object] = {
            "org_id": org_id,
            "base_id": base.id,
            "generation_id": generation.id,
            "document_id": uuid4(),
            "path": path,
            "size": len(text.encode()),
            "file_hash": hashlib.sha256(text.encode()).digest(),
            "chunk_count": len(contents),
            "token_count": sum(len(content.split()) for content in contents),
            "metadata": Jsonb(metadata or {}),
            "dimensions": DIMENSIONS,
        }
        found = await (await conn.execute(ADD_DOCUMENT, row)).fetchone()
        assert found is not None
        document_id: UUID = found[0]
        row["document_id"] = document_id
        row["revision_id"] = uuid5(document_id, f"{generation.id}:{text}")
        await conn.execute(SUPERSEDE, row)
        await conn.execute(ADD_REVISION, row)
        start = 0
        for index, content in enumerate(contents):
            chunk = {
                "chunk_id": uuid5(document_id, f"{row['revision_id']}:{index}"),
                "index": index,
                "content": content,
                "tokens": len(content.split()),
                "start": start,
                "end": start + len(content),
                "embedding": str(list(vector_of(content))),
            }
            await conn.execute(ADD_CHUNK, row | chunk)
            await conn.execute(ADD_INDEX, row | chunk)
            start += len(content) + 1
        await conn.execute(COUNT, row)
        await generations.serve_first(conn, org_id=org_id, knowledge_base_id=base.id, generation_id=generation.id)
    return document_id
