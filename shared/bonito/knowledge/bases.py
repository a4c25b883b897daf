"""Knowledge bases: the rows, by name or id, in the caller's transaction."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, LiteralString
from uuid import UUID

from psycopg.errors import UniqueViolation
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from bonito.clouds.base import StoreType
from bonito.database.pool import Connection
from bonito.errors import AlreadyExists, InvalidRequest, KnowledgeBaseNotFound
from bonito.knowledge import generations
from bonito.knowledge.generations import Pinned

BaseStatus = Literal["pending", "syncing", "ready", "error"]

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
UUID_SHAPE = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

COLUMNS: LiteralString = """
    id, name, description, source_type, source_config, source_bucket, source_prefix, connection_id, embedding_model,
    chunk_size, chunk_overlap, language, sync_schedule, sync_timezone, metadata, status, error_message,
    served_generation, last_synced_at, created_at, updated_at
"""

GET: LiteralString = f"""
    SELECT {COLUMNS} FROM knowledge_bases
     WHERE org_id = %(org_id)s AND deleted_at IS NULL AND (id = %(id)s OR name = %(name)s)
"""  # noqa: S608

LOCK: LiteralString = f"""
    SELECT {COLUMNS} FROM knowledge_bases
     WHERE org_id = %(org_id)s AND id = %(id)s AND deleted_at IS NULL FOR UPDATE
"""  # noqa: S608

# In the order of names, which are unique: a page goes on after the last name of the one before.
PAGE: LiteralString = f"""
    SELECT {COLUMNS} FROM knowledge_bases
     WHERE org_id = %(org_id)s AND deleted_at IS NULL AND name COLLATE "C" > %(after_name)s COLLATE "C"
     ORDER BY name COLLATE "C" LIMIT %(limit)s
"""  # noqa: S608

# Of two at once with one name the second finds the first and inserts nothing.
INSERT: LiteralString = f"""
    INSERT INTO knowledge_bases (org_id, id, name, description, source_type, source_config, source_bucket,
                                 source_prefix, connection_id, embedding_model, chunk_size, chunk_overlap, language,
                                 sync_schedule, sync_timezone, metadata)
    VALUES (%(org_id)s, %(id)s, %(name)s, %(description)s, %(type)s, %(config)s, %(bucket)s, %(prefix)s,
            %(connection_id)s, %(embedding_model)s, %(chunk_size)s, %(chunk_overlap)s, %(language)s, %(sync_schedule)s,
            %(sync_timezone)s, %(metadata)s)
    ON CONFLICT (org_id, name) WHERE deleted_at IS NULL DO NOTHING
    RETURNING {COLUMNS}
"""  # noqa: S608

UPDATE: LiteralString = f"""
    UPDATE knowledge_bases
       SET name = %(name)s, description = %(description)s, embedding_model = %(embedding_model)s,
           chunk_size = %(chunk_size)s, chunk_overlap = %(chunk_overlap)s, language = %(language)s,
           sync_schedule = %(sync_schedule)s, sync_timezone = %(sync_timezone)s, metadata = %(metadata)s,
           updated_at = now()
     WHERE org_id = %(org_id)s AND id = %(id)s AND deleted_at IS NULL
    RETURNING {COLUMNS}
"""  # noqa: S608

# From this transaction on nobody finds it, and its name is free; the sweeper takes the rows away in batches.
DELETE: LiteralString = """
    UPDATE knowledge_bases SET deleted_at = now(), updated_at = now()
     WHERE org_id = %(org_id)s AND id = %(id)s AND deleted_at IS NULL
    RETURNING id
"""

# What answers now and what is being built: both lose their way to search without the model's provider.
EMBEDDING_WITH: LiteralString = """
    SELECT DISTINCT b.name FROM knowledge_bases b
      JOIN kb_generations g ON g.org_id = b.org_id AND g.knowledge_base_id = b.id AND g.status <> 'retired'
     WHERE b.org_id = %(org_id)s AND b.deleted_at IS NULL AND starts_with(g.embedding_model, %(provider)s || '/')
     ORDER BY b.name
"""

COUNTS: LiteralString = """
    SELECT count(*) FILTER (WHERE status = 'pending') AS pending,
           count(*) FILTER (WHERE status = 'processing') AS processing,
           count(*) FILTER (WHERE status = 'ready') AS ready,
           count(*) FILTER (WHERE status = 'ready_with_warnings') AS ready_with_warnings,
           count(*) FILTER (WHERE status = 'error') AS error,
           coalesce(sum(file_size), 0)::bigint AS source_bytes
      FROM kb_documents
     WHERE org_id = %(org_id)s AND knowledge_base_id = %(id)s AND deleted_at IS NULL
"""


@dataclass(frozen=True)
class Source:
    """Where a base's documents lie; `bucket` and `prefix` are what notifications of it are matched with.

    Attributes:
        type: the kind of store.
        config: as the caller gave it, checked.
        bucket: the bucket, `account/container`, the folder's resolved path, or for uploads the base's id.
        prefix: only keys below it count; '' for all.
        connection_id: the cloud account's access; None for local folders and uploads.
    """

    type: StoreType
    config: Mapping[str, Any]
    bucket: str
    prefix: str = ""
    connection_id: UUID | None = None


@dataclass(frozen=True)
class Options:
    """What a caller may set and change of a base; checked by `configuration`."""

    name: str
    description: str = ""
    embedding_model: str = "auto"
    chunk_size: int = 512
    chunk_overlap: int = 50
    language: str = "auto"
    sync_schedule: str | None = None
    sync_timezone: str = "UTC"
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class KnowledgeBase:
    """A row of knowledge_bases that is not deleted; what is in force stands in its generations."""

    id: UUID
    name: str
    description: str
    source_type: StoreType
    source_config: Mapping[str, Any]
    source_bucket: str
    source_prefix: str
    connection_id: UUID | None
    embedding_model: str
    chunk_size: int
    chunk_overlap: int
    language: str
    sync_schedule: str | None
    sync_timezone: str
    metadata: Mapping[str, Any]
    status: BaseStatus
    error_message: str | None
    served_generation: UUID | None
    last_synced_at: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Counts:
    """Live documents of a base by status, and the bytes of them in the source."""

    pending: int
    processing: int
    ready: int
    ready_with_warnings: int
    error: int
    source_bytes: int


def check_name(name: str) -> str:
    """Give the name back; InvalidRequest unless it can stand in a URL and cannot be taken for an id."""
    if not NAME.fullmatch(name) or UUID_SHAPE.fullmatch(name):
        raise InvalidRequest(
            "A knowledge base's name has 1 to 63 of a-z, 0-9, '.', '_' and '-', begins with a letter or a digit, and "
            "is not a UUID.",
            param="name",
        )
    return name


async def create(
    conn: Connection,
    *,
    org_id: UUID,
    knowledge_base_id: UUID,
    generation_id: UUID,
    options: Options,
    source: Source,
    pinned: Pinned,
) -> KnowledgeBase:
    """Insert a base and its first generation, which is building; AlreadyExists when the name is taken."""
    row = _columns(options) | vars(source) | {"config": Jsonb(dict(source.config))}
    async with conn.cursor(row_factory=class_row(KnowledgeBase)) as cursor:
        await cursor.execute(INSERT, row | {"org_id": org_id, "id": knowledge_base_id})
        created = await cursor.fetchone()
    if created is None:
        raise _name_taken(options.name)
    await generations.create(
        conn, org_id=org_id, knowledge_base_id=knowledge_base_id, generation_id=generation_id, pinned=pinned
    )
    return created


async def get(conn: Connection, *, org_id: UUID, name_or_id: str) -> KnowledgeBase:
    """The base of that name or id; KnowledgeBaseNotFound also for another organization's."""
    base_id = UUID(name_or_id) if UUID_SHAPE.fullmatch(name_or_id) else None
    name = name_or_id if NAME.fullmatch(name_or_id) else None
    async with conn.cursor(row_factory=class_row(KnowledgeBase)) as cursor:
        await cursor.execute(GET, {"org_id": org_id, "id": base_id, "name": name})
        found = await cursor.fetchone()
    if found is None:
        raise _not_found(name_or_id)
    return found


async def lock(conn: Connection, *, org_id: UUID, knowledge_base_id: UUID) -> KnowledgeBase:
    """The base, held FOR UPDATE until the transaction ends: flips wait; KnowledgeBaseNotFound."""
    async with conn.cursor(row_factory=class_row(KnowledgeBase)) as cursor:
        await cursor.execute(LOCK, {"org_id": org_id, "id": knowledge_base_id})
        found = await cursor.fetchone()
    if found is None:
        raise _not_found(str(knowledge_base_id))
    return found


async def list_page(conn: Connection, *, org_id: UUID, limit: int, after_name: str = "") -> list[KnowledgeBase]:
    """Up to `limit` bases in the order of names, those after `after_name`."""
    async with conn.cursor(row_factory=class_row(KnowledgeBase)) as cursor:
        await cursor.execute(PAGE, {"org_id": org_id, "limit": limit, "after_name": after_name})
        return await cursor.fetchall()


async def update(conn: Connection, *, org_id: UUID, knowledge_base_id: UUID, options: Options) -> KnowledgeBase:
    """Set everything that `options` holds; lock the base first where they were made from its present ones.

    Raises:
        KnowledgeBaseNotFound: there is none of this id.
        AlreadyExists: another base has the name.
    """
    async with conn.cursor(row_factory=class_row(KnowledgeBase)) as cursor:
        try:
            await cursor.execute(UPDATE, _columns(options) | {"org_id": org_id, "id": knowledge_base_id})
        except UniqueViolation as error:
            raise _name_taken(options.name) from error
        updated = await cursor.fetchone()
    if updated is None:
        raise _not_found(str(knowledge_base_id))
    return updated


async def delete(conn: Connection, *, org_id: UUID, knowledge_base_id: UUID) -> None:
    """Delete a base for every reader from this transaction on; KnowledgeBaseNotFound."""
    await lock(conn, org_id=org_id, knowledge_base_id=knowledge_base_id)
    await conn.execute(DELETE, {"org_id": org_id, "id": knowledge_base_id})


async def embedding_with(conn: Connection, *, org_id: UUID, provider: str) -> list[str]:
    """The names of the bases whose served or building generation has its vectors from a model of this provider."""
    rows = await conn.execute(EMBEDDING_WITH, {"org_id": org_id, "provider": provider})
    return [name for (name,) in await rows.fetchall()]


async def counts(conn: Connection, *, org_id: UUID, knowledge_base_id: UUID) -> Counts:
    """How many live documents there are by status; all 0 for a base that does not exist."""
    async with conn.cursor(row_factory=class_row(Counts)) as cursor:
        await cursor.execute(COUNTS, {"org_id": org_id, "id": knowledge_base_id})
        found = await cursor.fetchone()
    assert found is not None  # noqa: S101 - an aggregate always answers
    return found


def _columns(options: Options) -> dict[str, Any]:
    return vars(options) | {"metadata": Jsonb(dict(options.metadata or {}))}


def _not_found(name_or_id: str) -> KnowledgeBaseNotFound:
    return KnowledgeBaseNotFound(f"There is no knowledge base {name_or_id[:100]}.")


def _name_taken(name: str) -> AlreadyExists:
    return AlreadyExists(f"There is a knowledge base {name} already.", param="name")
