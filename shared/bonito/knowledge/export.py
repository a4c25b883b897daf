"""A knowledge base as JSON Lines: documents, chunks and vectors of the generation that is served when it begins.

The first line describes the base and how it was built, then each document is followed by its chunks, and the last line
counts both: a file without it is not whole. No transaction lasts longer than a page, so a slow reader holds nothing.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg.rows import class_row

from bonito.database.pool import Pool, tenant
from bonito.errors import KnowledgeBaseNotReady, StateConflict
from bonito.knowledge import bases, generations
from bonito.knowledge.bases import KnowledgeBase
from bonito.knowledge.generations import Generation

FORMAT = "bonito-export/1"
ROWS_PER_PAGE = 200

DOCUMENTS: LiteralString = """
    SELECT d.id, d.file_path, d.metadata, d.source_version, d.created_at, d.updated_at, r.id AS revision_id,
           r.file_hash, r.file_type, r.file_size, r.page_count, r.warnings, r.chunk_count
      FROM kb_documents d
      JOIN kb_revisions r ON r.org_id = d.org_id AND r.document_id = d.id AND r.generation_id = %(generation_id)s
                         AND r.status = 'served'
     WHERE d.org_id = %(org_id)s AND d.knowledge_base_id = %(knowledge_base_id)s AND d.deleted_at IS NULL
       AND d.file_path > %(after_path)s
     ORDER BY d.file_path LIMIT %(limit)s
"""

# `vector` writes the shortest decimals that read back as the same numbers, between brackets: an array of JSON.
CHUNKS: LiteralString = """
    SELECT c.id, c.chunk_index, c.content, c.token_count, c.source_page, c.source_section, c.char_start, c.char_end,
           c.metadata, i.embedding::text AS embedding
      FROM kb_chunks c
      JOIN kb_index i ON i.org_id = c.org_id AND i.chunk_id = c.id
     WHERE c.org_id = %(org_id)s AND c.revision_id = %(revision_id)s AND c.chunk_index >= %(from_index)s
     ORDER BY c.chunk_index LIMIT %(limit)s
"""


@dataclass(frozen=True)
class _Document:
    id: UUID
    file_path: str
    metadata: dict[str, Any]
    source_version: str | None
    created_at: datetime
    updated_at: datetime
    revision_id: UUID
    file_hash: bytes
    file_type: str | None
    file_size: int | None
    page_count: int | None
    warnings: list[Any]
    chunk_count: int


@dataclass(frozen=True)
class _Chunk:
    id: UUID
    chunk_index: int
    content: str
    token_count: int
    source_page: int | None
    source_section: str | None
    char_start: int
    char_end: int
    metadata: dict[str, Any]
    embedding: str


async def begin(pool: Pool, *, org_id: UUID, name_or_id: str) -> tuple[KnowledgeBase, Generation]:
    """The base, and the generation that `lines` exports; KnowledgeBaseNotFound, KnowledgeBaseNotReady."""
    async with tenant(pool, org_id) as conn:
        base = await bases.get(conn, org_id=org_id, name_or_id=name_or_id)
        generation = None
        if base.served_generation is not None:
            generation = await generations.get(conn, org_id=org_id, generation_id=base.served_generation)
    if generation is None:
        raise KnowledgeBaseNotReady(f"The knowledge base {base.name} serves nothing yet: its first sync has not ended.")
    return base, generation


async def lines(
    pool: Pool, *, org_id: UUID, base: KnowledgeBase, generation: Generation, page: int = ROWS_PER_PAGE
) -> AsyncIterator[bytes]:
    """The export, a JSON object and a newline at a time.

    A document that changes meanwhile comes with the content that was served when its line was written. Rows of what is
    no longer served are kept for a while: an export may go on over a change and over a switch of generations.

    Args:
        pool: the runtime's.
        org_id: the organization.
        base: what `begin` answered.
        generation: likewise.
        page: rows that one transaction reads, of documents and of chunks.

    Raises:
        StateConflict: it went on for so long that rows were removed under it; what was written is not whole.
    """
    yield _line(_head(base, generation))
    document_total = chunk_total = 0
    after_path = ""
    while documents := await _documents(pool, org_id, generation, after_path, page):
        for document in documents:
            yield _line(_described(document))
            document_total += 1
            exported = 0
            async for chunk in _chunks(pool, org_id, document, page):
                exported += 1
                yield chunk
            if exported != document.chunk_count:
                raise StateConflict("Rows of this export were removed before they were read; begin again.")
            chunk_total += exported
        after_path = documents[-1].file_path
    yield _line({"type": "end", "documents": document_total, "chunks": chunk_total})


async def _documents(pool: Pool, org_id: UUID, generation: Generation, after_path: str, limit: int) -> list[_Document]:
    row = {
        "org_id": org_id,
        "knowledge_base_id": generation.knowledge_base_id,
        "generation_id": generation.id,
        "after_path": after_path,
        "limit": limit,
    }
    async with tenant(pool, org_id) as conn, conn.cursor(row_factory=class_row(_Document)) as cursor:
        await cursor.execute(DOCUMENTS, row)
        return await cursor.fetchall()


async def _chunks(pool: Pool, org_id: UUID, document: _Document, limit: int) -> AsyncIterator[bytes]:
    from_index = 0
    while from_index < document.chunk_count:
        row = {
            "org_id": org_id,
            "revision_id": document.revision_id,
            "from_index": from_index,
            "limit": limit,
        }
        async with tenant(pool, org_id) as conn, conn.cursor(row_factory=class_row(_Chunk)) as cursor:
            await cursor.execute(CHUNKS, row)
            page = await cursor.fetchall()
        if not page:
            return
        for chunk in page:
            yield _chunk_line(document, chunk)
        from_index = page[-1].chunk_index + 1


def _head(base: KnowledgeBase, generation: Generation) -> dict[str, Any]:
    return {
        "type": "knowledge_base",
        "format": FORMAT,
        "id": base.id,
        "name": base.name,
        "description": base.description,
        "source": base.source_config,
        "metadata": base.metadata,
        "generation": {
            "id": generation.id,
            "embedding_model": generation.embedding_model,
            "embedding_fingerprint": generation.embedding_fingerprint,
            "dimensions": generation.dimensions,
            "chunk_size": generation.chunk_size,
            "chunk_overlap": generation.chunk_overlap,
            "language": generation.language,
        },
    }


def _described(document: _Document) -> dict[str, Any]:
    return {
        "type": "document",
        "id": document.id,
        "path": document.file_path,
        "file_type": document.file_type,
        "size": document.file_size,
        "sha256": document.file_hash.hex(),
        "source_version": document.source_version,
        "page_count": document.page_count,
        "warnings": document.warnings,
        "metadata": document.metadata,
        "revision_id": document.revision_id,
        "chunk_count": document.chunk_count,
        "created_at": document.created_at.isoformat(),
        "updated_at": document.updated_at.isoformat(),
    }


def _chunk_line(document: _Document, chunk: _Chunk) -> bytes:
    described = {
        "type": "chunk",
        "id": chunk.id,
        "document_id": document.id,
        "index": chunk.chunk_index,
        "content": chunk.content,
        "token_count": chunk.token_count,
        "page": chunk.source_page,
        "section": chunk.source_section,
        "char_start": chunk.char_start,
        "char_end": chunk.char_end,
        "metadata": chunk.metadata,
    }
    return _line(described).removesuffix(b"}\n") + b', "embedding": ' + chunk.embedding.encode() + b"}\n"


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, default=str).encode() + b"\n"
