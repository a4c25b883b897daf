"""Revisions: a document's new content is written beside the served one, and one short transaction flips.

Every function works in the caller's transaction, which has locked the knowledge base and the document before
(`claims.hold`, or `claims.lock_base` and `claims.lock_document`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, LiteralString
from uuid import UUID, uuid5

from psycopg.rows import class_row

from bonito.database.pool import Connection
from bonito.knowledge import claims, counts, generations

RevisionStatus = Literal["building", "served", "superseded", "failed"]

# Chunks of one message: few enough that a small document does not wait long behind it, many enough for one call.
BATCH = 32
# Rows of one INSERT.
ROWS = 500

OF_CONTENT: LiteralString = """
    SELECT id, generation_id, status FROM kb_revisions
     WHERE org_id = %(org_id)s AND document_id = %(document_id)s AND file_hash = %(file_hash)s
       AND generation_id = ANY(%(generation_ids)s)
"""

# The document moved on: what was being built of another content will not be served, what failed is of no interest.
END_OTHERS: LiteralString = """
    WITH ended AS (
        UPDATE kb_revisions
           SET status = CASE status WHEN 'building' THEN 'superseded' ELSE status END, ended_at = now()
         WHERE org_id = %(org_id)s AND document_id = %(document_id)s AND file_hash IS DISTINCT FROM %(file_hash)s
           AND (status = 'building' OR (status = 'failed' AND ended_at IS NULL))
        RETURNING id)
    DELETE FROM kb_batches b USING ended WHERE b.org_id = %(org_id)s AND b.revision_id = ended.id
"""

FIND_CHUNKS: LiteralString = """
    SELECT content FROM kb_chunks WHERE org_id = %(org_id)s AND revision_id = %(revision_id)s ORDER BY chunk_index
"""

# A content that comes back after others takes up its old row.
BEGIN: LiteralString = """
    INSERT INTO kb_revisions (org_id, id, knowledge_base_id, generation_id, document_id, file_hash, chunk_count,
                              token_count, language, file_type, file_size, page_count, warnings)
    SELECT g.org_id, %(revision_id)s, g.knowledge_base_id, g.id, %(document_id)s, %(file_hash)s, %(chunk_count)s,
           %(token_count)s, coalesce(g.language, 'simple'), %(file_type)s, %(file_size)s, %(page_count)s, %(warnings)s
      FROM kb_generations g
     WHERE g.org_id = %(org_id)s AND g.id = %(generation_id)s AND g.status <> 'retired'
    ON CONFLICT (org_id, id) DO UPDATE
       SET status = 'building', ended_at = NULL, created_at = now(), chunk_count = excluded.chunk_count,
           token_count = excluded.token_count, lexeme_count = 0, language = excluded.language,
           file_type = excluded.file_type, file_size = excluded.file_size, page_count = excluded.page_count,
           warnings = excluded.warnings
    RETURNING language
"""

CLEAR_INDEX: LiteralString = "DELETE FROM kb_index WHERE org_id = %(org_id)s AND revision_id = %(revision_id)s"
CLEAR_CHUNKS: LiteralString = "DELETE FROM kb_chunks WHERE org_id = %(org_id)s AND revision_id = %(revision_id)s"
CLEAR_BATCHES: LiteralString = "DELETE FROM kb_batches WHERE org_id = %(org_id)s AND revision_id = %(revision_id)s"

ADD_CHUNKS: LiteralString = """
    INSERT INTO kb_chunks (org_id, id, knowledge_base_id, document_id, revision_id, chunk_index, content, token_count,
                           source_page, source_section, char_start, char_end, metadata)
    SELECT d.org_id, c.id, d.knowledge_base_id, d.id, %(revision_id)s, c.index, c.content, c.tokens, c.page, c.section,
           c.start, c.ending, d.metadata
      FROM kb_documents d,
           unnest(%(ids)s::uuid[], %(indexes)s::integer[], %(contents)s::text[], %(tokens)s::integer[],
                  %(pages)s::integer[], %(sections)s::text[], %(starts)s::integer[], %(ends)s::integer[])
           AS c (id, index, content, tokens, page, section, start, ending)
     WHERE d.org_id = %(org_id)s AND d.id = %(document_id)s
"""

# Chunks without a vector, in windows of fixed places, so that whoever looks finds the same batches.
ADD_BATCHES: LiteralString = """
    INSERT INTO kb_batches (org_id, revision_id, first_index, last_index)
    SELECT %(org_id)s, %(revision_id)s, c.chunk_index / %(batch)s * %(batch)s,
           c.chunk_index / %(batch)s * %(batch)s + %(batch)s - 1
      FROM kb_chunks c
     WHERE c.org_id = %(org_id)s AND c.revision_id = %(revision_id)s
       AND NOT EXISTS (SELECT FROM kb_index i WHERE i.org_id = c.org_id AND i.chunk_id = c.id)
     GROUP BY c.chunk_index / %(batch)s
    ON CONFLICT DO NOTHING
"""

# Those in a model call now are in good hands.
BATCHES: LiteralString = """
    SELECT first_index, lease_until > now() FROM kb_batches
     WHERE org_id = %(org_id)s AND revision_id = %(revision_id)s ORDER BY first_index
"""

EXTEND: LiteralString = """
    UPDATE kb_documents
       SET lease_until = now() + %(lease)s, attempts = 0, source_version = %(version)s, deleted_at = NULL,
           error_message = NULL, updated_at = now()
     WHERE org_id = %(org_id)s AND id = %(document_id)s
"""

LOAD: LiteralString = """
    SELECT id, knowledge_base_id, generation_id, document_id, file_hash, status, chunk_count, token_count, language,
           EXISTS (SELECT FROM kb_batches b WHERE b.org_id = r.org_id AND b.revision_id = r.id) AS has_batches
      FROM kb_revisions r WHERE org_id = %(org_id)s AND id = %(revision_id)s
"""

# In the order in which generations are locked.
SERVED: LiteralString = """
    SELECT generation_id, id FROM kb_revisions
     WHERE org_id = %(org_id)s AND document_id = %(document_id)s AND status = 'served' ORDER BY generation_id
"""

COUNT_VECTORS: LiteralString = """
    SELECT count(*) FROM kb_index WHERE org_id = %(org_id)s AND revision_id = %(revision_id)s
"""

SUPERSEDE: LiteralString = """
    UPDATE kb_revisions SET status = 'superseded', ended_at = now()
     WHERE org_id = %(org_id)s AND id = %(revision_id)s AND status = 'served'
"""

SERVE: LiteralString = """
    UPDATE kb_revisions SET status = 'served' WHERE org_id = %(org_id)s AND id = %(revision_id)s
"""

# Metadata may have been changed while the rows were written.
REFRESH_METADATA: LiteralString = """
    UPDATE kb_index i SET metadata = d.metadata
      FROM kb_documents d
     WHERE i.org_id = %(org_id)s AND i.revision_id = %(revision_id)s
       AND d.org_id = %(org_id)s AND d.id = %(document_id)s AND i.metadata IS DISTINCT FROM d.metadata
"""

# Ready when nothing of this content is still being built, in whichever generation. One that waits to be looked at again
# goes on waiting: it may have changed.
SHOW: LiteralString = """
    UPDATE kb_documents d
       SET file_hash = r.file_hash, file_size = r.file_size, file_type = r.file_type, page_count = r.page_count,
           warnings = r.warnings, deleted_at = NULL, updated_at = now(),
           status = CASE WHEN d.status = 'pending' THEN d.status WHEN o.is_building THEN 'processing'
                         WHEN o.has_failed THEN 'error' WHEN r.warnings = '[]' THEN 'ready'
                         ELSE 'ready_with_warnings' END,
           error_message = CASE WHEN o.has_failed OR d.status = 'pending' THEN d.error_message END,
           attempts = CASE d.status WHEN 'pending' THEN d.attempts ELSE 0 END,
           lease_until = CASE WHEN o.is_building OR d.status = 'pending' THEN d.lease_until END
      FROM kb_revisions r, LATERAL (
           SELECT coalesce(bool_or(o.status = 'building'), false) AS is_building,
                  coalesce(bool_or(o.status = 'failed'), false) AS has_failed
             FROM kb_revisions o JOIN kb_generations g ON g.org_id = o.org_id AND g.id = o.generation_id
            WHERE o.org_id = %(org_id)s AND o.document_id = %(document_id)s AND o.file_hash = r.file_hash
              AND g.status <> 'retired') o
     WHERE d.org_id = %(org_id)s AND d.id = %(document_id)s AND r.org_id = %(org_id)s AND r.id = %(revision_id)s
"""

FAIL_BUILDING: LiteralString = """
    WITH ended AS (
        UPDATE kb_revisions SET status = 'failed', ended_at = now()
         WHERE org_id = %(org_id)s AND document_id = %(document_id)s AND status = 'building'
           AND (%(revision_id)s::uuid IS NULL OR id = %(revision_id)s)
        RETURNING id)
    DELETE FROM kb_batches b USING ended WHERE b.org_id = %(org_id)s AND b.revision_id = ended.id
"""

# One generation's vectors failed, and another's are still being made.
SHOW_TROUBLE: LiteralString = """
    UPDATE kb_documents d SET error_message = %(message)s
     WHERE d.org_id = %(org_id)s AND d.id = %(document_id)s AND EXISTS (
           SELECT FROM kb_revisions r
            WHERE r.org_id = d.org_id AND r.document_id = d.id AND r.status = 'building')
    RETURNING d.id
"""

# A content that never came to rows leaves a mark in each open generation, so that a switch need not wait for it.
MARK_FAILED: LiteralString = """
    INSERT INTO kb_revisions (org_id, id, knowledge_base_id, generation_id, document_id, file_hash, status)
    VALUES (%(org_id)s, %(revision_id)s, %(knowledge_base_id)s, %(generation_id)s, %(document_id)s, %(file_hash)s,
            'failed')
    ON CONFLICT (org_id, id) DO UPDATE SET status = 'failed' WHERE kb_revisions.status = 'superseded'
"""


@dataclass(frozen=True)
class Content:
    """What a document is made of now: SHA-256, the store's version, bytes."""

    file_hash: bytes
    version: str
    size: int


@dataclass(frozen=True)
class Description:
    """What its parser tells of a content."""

    file_type: str
    page_count: int | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class NewChunk:
    """A chunk to be stored; `start` and `end` are characters of the document's text."""

    content: str
    token_count: int
    page: int | None
    section: str | None
    start: int
    end: int


@dataclass(frozen=True)
class Revision:
    """A row of kb_revisions; `has_batches` while vectors are missing."""

    id: UUID
    knowledge_base_id: UUID
    generation_id: UUID
    document_id: UUID
    file_hash: bytes
    status: RevisionStatus
    chunk_count: int
    token_count: int
    language: str
    has_batches: bool


def revision_id(*, document_id: UUID, generation_id: UUID, file_hash: bytes) -> UUID:
    """The same content of a document in a generation is the same revision, whoever builds it."""
    return uuid5(document_id, f"{generation_id}:{file_hash.hex()}")


def chunk_id(*, document_id: UUID, revision: UUID, index: int) -> UUID:
    """A chunk's place in its revision is its name, so that a retry writes the same rows (I4)."""
    return uuid5(document_id, f"{revision}:{index}")


async def load(conn: Connection, *, org_id: UUID, revision_id: UUID) -> Revision | None:
    """One revision; None once it is swept away."""
    async with conn.cursor(row_factory=class_row(Revision)) as cursor:
        await cursor.execute(LOAD, {"org_id": org_id, "revision_id": revision_id})
        return await cursor.fetchone()


async def of_content(
    conn: Connection, *, org_id: UUID, document_id: UUID, file_hash: bytes, generation_ids: Sequence[UUID]
) -> dict[UUID, tuple[UUID, RevisionStatus]]:
    """Per generation, the revision of exactly this content: its id and status."""
    row = {
        "org_id": org_id,
        "document_id": document_id,
        "file_hash": file_hash,
        "generation_ids": list(generation_ids),
    }
    found = await (await conn.execute(OF_CONTENT, row)).fetchall()
    return {generation_id: (revision, status) for revision, generation_id, status in found}


async def end_others(conn: Connection, *, org_id: UUID, document_id: UUID, file_hash: bytes | None) -> None:
    """Give up what is being built of another content than this one; None: of any."""
    await conn.execute(END_OTHERS, {"org_id": org_id, "document_id": document_id, "file_hash": file_hash})


async def store(
    conn: Connection,
    *,
    org_id: UUID,
    document_id: UUID,
    generation_id: UUID,
    content: Content,
    description: Description,
    chunks: Sequence[NewChunk],
) -> UUID | None:
    """Write a revision that is building, with all of its chunks and none of its vectors.

    Vectors that exist already are kept where the same chunks were stored before.

    Returns:
        The revision's id; None where the generation was retired meanwhile.
    """
    revision = revision_id(document_id=document_id, generation_id=generation_id, file_hash=content.file_hash)
    row = {
        "org_id": org_id,
        "revision_id": revision,
        "generation_id": generation_id,
        "document_id": document_id,
        "file_hash": content.file_hash,
        "chunk_count": len(chunks),
        "token_count": sum(chunk.token_count for chunk in chunks),
        "file_type": description.file_type,
        "file_size": content.size,
        "page_count": description.page_count,
        "warnings": claims.as_json(description.warnings),
    }
    before = await load(conn, org_id=org_id, revision_id=revision)
    if (language := await (await conn.execute(BEGIN, row)).fetchone()) is None:
        return None
    texts = [claims.storable(chunk.content) for chunk in chunks]
    if before is not None:
        written = [found[0] for found in await (await conn.execute(FIND_CHUNKS, row)).fetchall()]
        if written == texts and before.language == language[0]:
            return revision
        for statement in (CLEAR_INDEX, CLEAR_CHUNKS, CLEAR_BATCHES):
            await conn.execute(statement, row)
    for begin in range(0, len(chunks), ROWS):
        await conn.execute(ADD_CHUNKS, row | _arrays(document_id, revision, begin, chunks, texts))
    return revision


async def missing_batches(conn: Connection, *, org_id: UUID, revision_id: UUID) -> list[tuple[int, int]] | None:
    """What has to be sent so that the revision gets the vectors that it lacks.

    Returns:
        (place among the batches, first index) of each batch that no worker has in a model call now. None when no
        vector is missing, and the revision can flip.
    """
    row = {"org_id": org_id, "revision_id": revision_id, "batch": BATCH}
    await conn.execute(ADD_BATCHES, row)
    found = await (await conn.execute(BATCHES, row)).fetchall()
    if not found:
        return None
    return [(number, first_index) for number, (first_index, is_leased) in enumerate(found) if not is_leased]


async def flip(conn: Connection, *, org_id: UUID, revision_id: UUID) -> bool:
    """Serve a building revision that lacks no vector, in place of the one that was served before.

    Whoever comes when a vector is missing, or when another flipped, changes nothing.

    Returns:
        Whether the revision is served from this transaction on because of this call.
    """
    revision = await load(conn, org_id=org_id, revision_id=revision_id)
    if revision is None or revision.status != "building" or revision.has_batches:
        return False
    row = {"org_id": org_id, "revision_id": revision_id, "document_id": revision.document_id}
    vectors = await (await conn.execute(COUNT_VECTORS, row)).fetchone()
    if vectors is None or vectors[0] != revision.chunk_count:
        return False
    answering = await claims.lock_base(conn, org_id=org_id, knowledge_base_id=revision.knowledge_base_id)
    served = await _served(conn, org_id=org_id, document_id=revision.document_id)
    old = served.get(revision.generation_id)
    async with conn.pipeline():
        if old is not None:
            await conn.execute(SUPERSEDE, {"org_id": org_id, "revision_id": old})
        await conn.execute(SERVE, row)
        await conn.execute(REFRESH_METADATA, row)
    await counts.exchange(conn, org_id=org_id, generation_id=revision.generation_id, entering=revision_id, leaving=old)
    if answering is None:
        await generations.serve_first(
            conn,
            org_id=org_id,
            knowledge_base_id=revision.knowledge_base_id,
            generation_id=revision.generation_id,
        )
    await conn.execute(SHOW, row)
    return True


async def extend(conn: Connection, *, org_id: UUID, document_id: UUID, version: str, lease: timedelta) -> None:
    """The document waits for vectors: its chunks are stored, and what failed before is forgotten."""
    row = {"org_id": org_id, "document_id": document_id, "version": version, "lease": lease}
    await conn.execute(EXTEND, row)


async def withdraw(conn: Connection, *, org_id: UUID, document_id: UUID) -> None:
    """Serve nothing of the document from this transaction on, and leave a tombstone."""
    await end_others(conn, org_id=org_id, document_id=document_id, file_hash=None)
    for generation_id, revision in (await _served(conn, org_id=org_id, document_id=document_id)).items():
        await conn.execute(SUPERSEDE, {"org_id": org_id, "revision_id": revision})
        await counts.exchange(conn, org_id=org_id, generation_id=generation_id, entering=None, leaving=revision)
    await claims.bury(conn, org_id=org_id, document_id=document_id)


async def fail(
    conn: Connection,
    *,
    org_id: UUID,
    knowledge_base_id: UUID,
    document_id: UUID,
    message: str,
    file_hash: bytes,
    version: str | None = None,
) -> None:
    """End the document with an error; what it served before stays served, and the message says so.

    Args:
        conn: base and document are locked.
        org_id: the organization.
        knowledge_base_id: the document's.
        document_id: the document.
        message: a sentence for a person.
        file_hash: SHA-256 of the content that failed.
        version: what the store called it; None leaves what is known.
    """
    row = {
        "org_id": org_id,
        "knowledge_base_id": knowledge_base_id,
        "document_id": document_id,
        "file_hash": file_hash,
        "revision_id": None,
    }
    await end_others(conn, org_id=org_id, document_id=document_id, file_hash=file_hash)
    await conn.execute(FAIL_BUILDING, row)
    for generation in await generations.building_or_served(conn, org_id=org_id, knowledge_base_id=knowledge_base_id):
        failed = revision_id(document_id=document_id, generation_id=generation.id, file_hash=file_hash)
        await conn.execute(MARK_FAILED, row | {"generation_id": generation.id, "revision_id": failed})
    await claims.fail(
        conn,
        org_id=org_id,
        document_id=document_id,
        message=message,
        file_hash=file_hash,
        version=version,
        is_claimed=True,
    )


async def fail_revision(conn: Connection, *, org_id: UUID, revision: Revision, message: str) -> None:
    """End one building revision; its document too, unless another generation is still building the same content."""
    row = {
        "org_id": org_id,
        "document_id": revision.document_id,
        "revision_id": revision.id,
        "message": claims.storable(message),
    }
    await conn.execute(FAIL_BUILDING, row)
    if await (await conn.execute(SHOW_TROUBLE, row)).fetchone() is None:
        await claims.fail(
            conn,
            org_id=org_id,
            document_id=revision.document_id,
            message=message,
            file_hash=revision.file_hash,
            version=None,
            is_claimed=False,
        )


async def _served(conn: Connection, *, org_id: UUID, document_id: UUID) -> dict[UUID, UUID]:
    """Per generation, in the order of their ids, the document's served revision."""
    row = {"org_id": org_id, "document_id": document_id}
    return dict(await (await conn.execute(SERVED, row)).fetchall())


def _arrays(
    document_id: UUID, revision: UUID, begin: int, chunks: Sequence[NewChunk], texts: Sequence[str]
) -> dict[str, list[object]]:
    """The columns of up to ROWS chunks from `begin` on."""
    some = range(begin, min(begin + ROWS, len(chunks)))
    return {
        "ids": [chunk_id(document_id=document_id, revision=revision, index=index) for index in some],
        "indexes": list(some),
        "contents": [texts[index] for index in some],
        "tokens": [chunks[index].token_count for index in some],
        "pages": [chunks[index].page for index in some],
        "sections": [_section(chunks[index]) for index in some],
        "starts": [chunks[index].start for index in some],
        "ends": [chunks[index].end for index in some],
    }


def _section(chunk: NewChunk) -> str | None:
    return None if chunk.section is None else claims.storable(chunk.section)
