"""Documents in work: who may commit (the fence), for how long (the lease), and what was tried.

Locks are taken in the order knowledge base, document, generation, terms.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, LiteralString
from uuid import UUID, uuid4

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from bonito.database.pool import Connection
from bonito.errors import KnowledgeBaseNotFound

# Every claim moves the fence; a worker commits only under the fence that it was given, so of two workers on one path
# the later claim wins, and the later claim looked at the store later. A lease that ran out is a worker that was lost.
CLAIM: LiteralString = """
    INSERT INTO kb_documents AS d (org_id, id, knowledge_base_id, file_path, file_name, fence, status, lease_until)
    VALUES (%(org_id)s, %(new_id)s, %(knowledge_base_id)s, %(path)s, %(name)s, 1, 'processing', now() + %(lease)s)
    ON CONFLICT (org_id, knowledge_base_id, file_path) DO UPDATE
       SET fence = d.fence + 1, status = 'processing', lease_until = excluded.lease_until, updated_at = now(),
           attempts = d.attempts + CASE WHEN d.status = 'processing' AND d.lease_until < now() THEN 1 ELSE 0 END
    RETURNING id, knowledge_base_id, fence, attempts, error_message AS trouble
"""

RENEW: LiteralString = """
    UPDATE kb_documents SET lease_until = now() + %(lease)s
     WHERE org_id = %(org_id)s AND id = %(id)s AND fence = %(fence)s AND status = 'processing'
"""

# Held off are a switch of generations and the base's deletion, nothing else.
LOCK_BASE: LiteralString = """
    SELECT served_generation FROM knowledge_bases
     WHERE org_id = %(org_id)s AND id = %(knowledge_base_id)s AND deleted_at IS NULL FOR KEY SHARE
"""

LOCK_DOCUMENT: LiteralString = """
    SELECT fence FROM kb_documents WHERE org_id = %(org_id)s AND id = %(document_id)s FOR UPDATE
"""

# The lease outlasts the queue's back-off; should the message be lost, the sweeper sends another.
PUT_BACK: LiteralString = """
    UPDATE kb_documents
       SET status = 'pending', attempts = attempts + 1, error_message = %(message)s, lease_until = now() + %(lease)s,
           updated_at = now()
     WHERE org_id = %(org_id)s AND id = %(id)s AND fence = %(fence)s AND status = 'processing'
    RETURNING attempts
"""

WAIT_ON: LiteralString = """
    UPDATE kb_documents SET lease_until = now() + %(lease)s
     WHERE org_id = %(org_id)s AND id = %(document_id)s AND status = 'processing'
"""

SETTLE: LiteralString = """
    UPDATE kb_documents d
       SET status = CASE WHEN r.warnings = '[]' THEN 'ready' ELSE 'ready_with_warnings' END, error_message = NULL,
           file_hash = r.file_hash, file_size = r.file_size, file_type = r.file_type, page_count = r.page_count,
           warnings = r.warnings, source_version = %(version)s, attempts = 0, lease_until = NULL, updated_at = now()
      FROM kb_revisions r
     WHERE d.org_id = %(org_id)s AND d.id = %(id)s AND r.org_id = d.org_id AND r.id = %(revision_id)s
"""

FAIL: LiteralString = """
    UPDATE kb_documents d
       SET status = 'error', attempts = 0, lease_until = NULL, deleted_at = NULL, updated_at = now(),
           file_hash = %(file_hash)s, source_version = coalesce(%(version)s, source_version),
           error_message = %(message)s || CASE WHEN EXISTS (
               SELECT FROM kb_revisions r
                WHERE r.org_id = d.org_id AND r.document_id = d.id AND r.status = 'served'
                  AND r.file_hash IS DISTINCT FROM %(file_hash)s)
               THEN ' The previous version is still served.' ELSE '' END
     WHERE d.org_id = %(org_id)s AND d.id = %(id)s AND (%(is_claimed)s OR d.status <> 'pending')
"""

BURY: LiteralString = """
    UPDATE kb_documents
       SET deleted_at = now(), status = 'ready', error_message = NULL, warnings = '[]',
           file_hash = NULL, source_version = NULL, attempts = 0, lease_until = NULL, updated_at = now()
     WHERE org_id = %(org_id)s AND id = %(id)s
"""


NOT_STORABLE = re.compile("[\0\ud800-\udfff]")


class LostFence(Exception):
    """Somebody claimed the document after us; what we hold may be older than what they will find."""


@dataclass(frozen=True)
class Claimed:
    """A document in our hands; `attempts` failed before this one, the last with `trouble` where it could tell."""

    id: UUID
    knowledge_base_id: UUID
    fence: int
    attempts: int
    trouble: str | None


async def claim(conn: Connection, *, org_id: UUID, knowledge_base_id: UUID, path: str, lease: timedelta) -> Claimed:
    """Take a document into work, new or known; whoever held it before can no longer commit."""
    row = {
        "org_id": org_id,
        "new_id": uuid4(),
        "knowledge_base_id": knowledge_base_id,
        "path": path,
        "name": path.rsplit("/", 1)[-1],
        "lease": lease,
    }
    async with conn.cursor(row_factory=class_row(Claimed)) as cursor:
        await cursor.execute(CLAIM, row)
        claimed = await cursor.fetchone()
    assert claimed is not None  # noqa: S101 - the statement inserts or updates
    return claimed


async def renew(conn: Connection, *, org_id: UUID, claimed: Claimed, lease: timedelta) -> bool:
    """Hold the document for longer; False when it is no longer ours."""
    cursor = await conn.execute(RENEW, _row(org_id, claimed) | {"lease": lease})
    return cursor.rowcount == 1


async def lock_base(conn: Connection, *, org_id: UUID, knowledge_base_id: UUID) -> UUID | None:
    """Hold off a switch and the base's deletion; its served generation, or KnowledgeBaseNotFound."""
    row = {"org_id": org_id, "knowledge_base_id": knowledge_base_id}
    found = await (await conn.execute(LOCK_BASE, row)).fetchone()
    if found is None:
        raise KnowledgeBaseNotFound(f"There is no knowledge base {knowledge_base_id}.")
    served: UUID | None = found[0]
    return served


async def lock_document(conn: Connection, *, org_id: UUID, document_id: UUID) -> int | None:
    """Hold the document's row until the transaction ends; its fence, None when the row is gone."""
    found = await (await conn.execute(LOCK_DOCUMENT, {"org_id": org_id, "document_id": document_id})).fetchone()
    return None if found is None else int(found[0])


async def hold(conn: Connection, *, org_id: UUID, claimed: Claimed) -> UUID | None:
    """Lock base and document for a commit under the claim.

    Returns:
        The base's served generation.

    Raises:
        LostFence: the claim is no longer the last.
        KnowledgeBaseNotFound: the base was deleted.
    """
    served = await lock_base(conn, org_id=org_id, knowledge_base_id=claimed.knowledge_base_id)
    if await lock_document(conn, org_id=org_id, document_id=claimed.id) != claimed.fence:
        raise LostFence
    return served


async def put_back(conn: Connection, *, org_id: UUID, claimed: Claimed, message: str, lease: timedelta) -> int | None:
    """Count a failed try that will be repeated; how many failed by now, None when the document is not ours."""
    row = _row(org_id, claimed) | {"message": storable(message), "lease": lease}
    found = await (await conn.execute(PUT_BACK, row)).fetchone()
    return None if found is None else int(found[0])


async def wait_on(conn: Connection, *, org_id: UUID, document_id: UUID, lease: timedelta) -> None:
    """Let a locked document wait for its vectors for longer: work on them goes on."""
    await conn.execute(WAIT_ON, {"org_id": org_id, "document_id": document_id, "lease": lease})


async def settle(conn: Connection, *, org_id: UUID, claimed: Claimed, revision_id: UUID, version: str) -> None:
    """End the work on a held document whose present content is what `revision_id` serves already."""
    row = _row(org_id, claimed) | {"revision_id": revision_id, "version": version}
    await conn.execute(SETTLE, row)


async def fail(
    conn: Connection,
    *,
    org_id: UUID,
    document_id: UUID,
    message: str,
    file_hash: bytes,
    version: str | None,
    is_claimed: bool,
) -> None:
    """End the work on a locked document with an error for people; what was served before stays served.

    Without a claim, one that waits to be looked at again is left to that.
    """
    row = {
        "org_id": org_id,
        "id": document_id,
        "message": storable(message),
        "file_hash": file_hash,
        "version": version,
        "is_claimed": is_claimed,
    }
    await conn.execute(FAIL, row)


async def bury(conn: Connection, *, org_id: UUID, document_id: UUID) -> None:
    """Leave a tombstone of a locked document whose object is gone."""
    await conn.execute(BURY, {"org_id": org_id, "id": document_id})


def storable(text: str) -> str:
    """The text as Postgres can hold it, of the same length: U+FFFD for NUL and for halves of surrogate pairs."""
    return NOT_STORABLE.sub("\ufffd", text)


def as_json(sentences: Sequence[str]) -> Jsonb:
    """Warnings as they are stored."""
    return Jsonb([storable(sentence) for sentence in sentences])


def _row(org_id: UUID, claimed: Claimed) -> dict[str, Any]:
    return {"org_id": org_id, "id": claimed.id, "fence": claimed.fence}
