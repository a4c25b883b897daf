"""Documents of a knowledge base as their readers see them: pages, chunks, metadata, totals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, LiteralString
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from bonito.database.pool import Connection
from bonito.errors import NotFound

# How long an upload may wait for its message before the sweeper sends another.
ANNOUNCED_LEASE = timedelta(minutes=2)

DocumentStatus = Literal["pending", "processing", "ready", "ready_with_warnings", "error"]

# Chunks are counted where they are served from, so that a switch of generations need not touch every document.
COLUMNS: LiteralString = """
    d.id, d.knowledge_base_id, d.file_path, d.file_name, d.file_type, d.file_size, d.file_hash, d.source_version,
    d.status, d.error_message, d.warnings, d.page_count, d.metadata, d.created_at, d.updated_at,
    coalesce((SELECT r.chunk_count
                FROM knowledge_bases b
                JOIN kb_revisions r ON r.org_id = b.org_id AND r.generation_id = b.served_generation
                                   AND r.document_id = d.id AND r.status = 'served'
               WHERE b.org_id = d.org_id AND b.id = d.knowledge_base_id), 0) AS chunk_count
"""

GET: LiteralString = f"""
    SELECT {COLUMNS} FROM kb_documents d
     WHERE org_id = %(org_id)s AND knowledge_base_id = %(knowledge_base_id)s AND id = %(document_id)s
       AND deleted_at IS NULL
"""  # noqa: S608

# In the order of paths, bytewise, which are unique in a base: a page goes on after the last path of the one before.
PAGE: LiteralString = f"""
    SELECT {COLUMNS} FROM kb_documents d
     WHERE org_id = %(org_id)s AND knowledge_base_id = %(knowledge_base_id)s AND deleted_at IS NULL
       AND file_path > %(after_path)s AND starts_with(file_path, %(prefix)s)
       AND (%(status)s::text IS NULL OR status = %(status)s::text)
     ORDER BY file_path LIMIT %(limit)s
"""  # noqa: S608

# What a document will serve if nothing else comes: what it serves, what is being built, or an upload that nobody has
# read to its end, which stands with its hash as version. What failed is tried again when it is sent again.
FIND_BY_HASH: LiteralString = f"""
    SELECT {COLUMNS} FROM kb_documents d
     WHERE org_id = %(org_id)s AND knowledge_base_id = %(knowledge_base_id)s AND deleted_at IS NULL
       AND (status IN ('ready', 'ready_with_warnings') AND file_hash = %(file_hash)s
            OR status IN ('pending', 'processing') AND source_version = %(uploaded_version)s
            OR status = 'processing' AND EXISTS (
               SELECT FROM kb_revisions r
                WHERE r.org_id = d.org_id AND r.document_id = d.id AND r.status = 'building'
                  AND r.file_hash = %(file_hash)s))
     ORDER BY file_path <> %(path)s, file_path LIMIT 1
"""  # noqa: S608

# A row for what was uploaded, so that it can be seen and carries its metadata before it is read. One that is there
# already keeps what it serves: ingestion decides what the new content means. The lease lets the sweeper send a message
# again, should the first be lost.
ANNOUNCE: LiteralString = f"""
    INSERT INTO kb_documents AS d (org_id, id, knowledge_base_id, file_path, file_name, file_size, source_version,
                                   metadata, lease_until)
    VALUES (%(org_id)s, %(document_id)s, %(knowledge_base_id)s, %(path)s, %(file_name)s, %(size)s, %(version)s,
            %(metadata)s, now() + %(lease)s)
    ON CONFLICT (org_id, knowledge_base_id, file_path) DO UPDATE
       SET deleted_at = NULL, status = 'pending', source_version = excluded.source_version, error_message = NULL,
           attempts = 0, lease_until = excluded.lease_until, updated_at = now(),
           metadata = CASE WHEN %(has_metadata)s OR d.deleted_at IS NOT NULL THEN excluded.metadata ELSE d.metadata END
    RETURNING {COLUMNS}
"""  # noqa: S608

CHUNKS: LiteralString = """
    SELECT c.id, c.document_id, c.chunk_index, c.content, c.token_count, c.source_page, c.source_section,
           c.char_start, c.char_end, c.metadata
      FROM knowledge_bases b
      JOIN kb_revisions r ON r.org_id = b.org_id AND r.generation_id = b.served_generation
                         AND r.document_id = %(document_id)s AND r.status = 'served'
      JOIN kb_chunks c ON c.org_id = r.org_id AND c.revision_id = r.id
     WHERE b.org_id = %(org_id)s AND b.id = %(knowledge_base_id)s AND c.chunk_index >= %(from_index)s
     ORDER BY c.chunk_index LIMIT %(limit)s
"""

# The document first: ingestion holds it when it flips, and then copies its metadata to what it serves.
SET_METADATA: LiteralString = f"""
    UPDATE kb_documents d SET metadata = %(metadata)s, updated_at = now()
     WHERE org_id = %(org_id)s AND knowledge_base_id = %(knowledge_base_id)s AND id = %(document_id)s
       AND deleted_at IS NULL
    RETURNING {COLUMNS}
"""  # noqa: S608

SET_CHUNK_METADATA: LiteralString = """
    UPDATE kb_chunks SET metadata = %(metadata)s
     WHERE org_id = %(org_id)s AND metadata <> %(metadata)s AND revision_id IN (
           SELECT id FROM kb_revisions
            WHERE org_id = %(org_id)s AND document_id = %(document_id)s AND status IN ('building', 'served'))
"""

SET_INDEX_METADATA: LiteralString = """
    UPDATE kb_index SET metadata = %(metadata)s
     WHERE org_id = %(org_id)s AND document_id = %(document_id)s AND metadata <> %(metadata)s
"""


@dataclass(frozen=True)
class Document:
    """A row of kb_documents that is not deleted.

    Attributes:
        file_path: below the source's prefix; unique in the base.
        file_hash: SHA-256 of the content that is served, or that failed; None before the first.
        warnings: sentences for a person.
        chunk_count: chunks that are served.
    """

    id: UUID
    knowledge_base_id: UUID
    file_path: str
    file_name: str
    file_type: str | None
    file_size: int | None
    file_hash: bytes | None
    source_version: str | None
    status: DocumentStatus
    error_message: str | None
    warnings: list[str]
    page_count: int | None
    chunk_count: int
    metadata: Mapping[str, Any]
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Chunk:
    """A span of a document's text; pages count from 1, `char_start` and `char_end` count characters of the text."""

    id: UUID
    document_id: UUID
    chunk_index: int
    content: str
    token_count: int
    source_page: int | None
    source_section: str | None
    char_start: int
    char_end: int
    metadata: Mapping[str, Any]


async def get(conn: Connection, *, org_id: UUID, knowledge_base_id: UUID, document_id: UUID) -> Document:
    """A live document of the base; NotFound."""
    row = {"org_id": org_id, "knowledge_base_id": knowledge_base_id, "document_id": document_id}
    async with conn.cursor(row_factory=class_row(Document)) as cursor:
        await cursor.execute(GET, row)
        found = await cursor.fetchone()
    if found is None:
        raise _not_found(document_id)
    return found


async def list_page(
    conn: Connection,
    *,
    org_id: UUID,
    knowledge_base_id: UUID,
    limit: int,
    after_path: str = "",
    status: DocumentStatus | None = None,
    prefix: str = "",
) -> list[Document]:
    """Up to `limit` live documents in the order of their paths, those after `after_path`.

    Args:
        conn: in the tenant's transaction.
        org_id: the organization.
        knowledge_base_id: whose documents.
        limit: rows at most.
        after_path: the last path of the page before.
        status: only documents in it.
        prefix: only paths that begin with it.
    """
    row = {
        "org_id": org_id,
        "knowledge_base_id": knowledge_base_id,
        "limit": limit,
        "after_path": after_path,
        "status": status,
        "prefix": prefix,
    }
    async with conn.cursor(row_factory=class_row(Document)) as cursor:
        await cursor.execute(PAGE, row)
        return await cursor.fetchall()


async def find_by_hash(
    conn: Connection, *, org_id: UUID, knowledge_base_id: UUID, file_hash: bytes, path: str
) -> Document | None:
    """A live document that has this content (SHA-256), served or waiting to be read; the one at `path` first."""
    row = {
        "org_id": org_id,
        "knowledge_base_id": knowledge_base_id,
        "file_hash": file_hash,
        "uploaded_version": uploaded_version(file_hash),
        "path": path,
    }
    async with conn.cursor(row_factory=class_row(Document)) as cursor:
        await cursor.execute(FIND_BY_HASH, row)
        return await cursor.fetchone()


async def announce(
    conn: Connection,
    *,
    org_id: UUID,
    knowledge_base_id: UUID,
    document_id: UUID,
    path: str,
    size: int,
    file_hash: bytes,
    metadata: Mapping[str, Any] | None,
) -> Document:
    """Show an uploaded file as a document before ingestion has looked at it.

    Args:
        conn: in the tenant's transaction.
        org_id: the organization.
        knowledge_base_id: of the source `upload`.
        document_id: for a path that is new; one that is there keeps its id.
        path: where it lies in the upload store.
        size: bytes.
        file_hash: SHA-256 of them.
        metadata: None leaves what the document has.
    """
    row = {
        "org_id": org_id,
        "knowledge_base_id": knowledge_base_id,
        "document_id": document_id,
        "path": path,
        "file_name": path.rsplit("/", 1)[-1],
        "size": size,
        "version": uploaded_version(file_hash),
        "metadata": Jsonb(dict(metadata or {})),
        "has_metadata": metadata is not None,
        "lease": ANNOUNCED_LEASE,
    }
    async with conn.cursor(row_factory=class_row(Document)) as cursor:
        await cursor.execute(ANNOUNCE, row)
        announced = await cursor.fetchone()
    assert announced is not None  # noqa: S101 - INSERT … RETURNING answers with its row
    return announced


async def chunks(
    conn: Connection, *, org_id: UUID, knowledge_base_id: UUID, document_id: UUID, limit: int, from_index: int = 0
) -> list[Chunk]:
    """Up to `limit` served chunks of a document in order, from `from_index` on; none while nothing of it is served."""
    row = {
        "org_id": org_id,
        "knowledge_base_id": knowledge_base_id,
        "document_id": document_id,
        "limit": limit,
        "from_index": from_index,
    }
    async with conn.cursor(row_factory=class_row(Chunk)) as cursor:
        await cursor.execute(CHUNKS, row)
        return await cursor.fetchall()


async def set_metadata(
    conn: Connection, *, org_id: UUID, knowledge_base_id: UUID, document_id: UUID, metadata: Mapping[str, Any]
) -> Document:
    """Replace a document's metadata, also on its chunks, so that filters see it from this transaction on; NotFound."""
    row = {
        "org_id": org_id,
        "knowledge_base_id": knowledge_base_id,
        "document_id": document_id,
        "metadata": Jsonb(dict(metadata)),
    }
    async with conn.cursor(row_factory=class_row(Document)) as cursor:
        await cursor.execute(SET_METADATA, row)
        changed = await cursor.fetchone()
    if changed is None:
        raise _not_found(document_id)
    await conn.execute(SET_CHUNK_METADATA, row)
    await conn.execute(SET_INDEX_METADATA, row)
    return changed


def uploaded_version(file_hash: bytes) -> str:
    """The source version of an upload that nobody has read yet."""
    return f"sha256:{file_hash.hex()}"


def _not_found(document_id: UUID) -> NotFound:
    return NotFound(f"There is no document {document_id} in this knowledge base.")
