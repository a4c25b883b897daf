"""Batches of chunks that wait for their vectors: taken, embedded by the caller, stored.

A batch is in one worker's model call at a time, by a lease that the worker renews; so a message that comes twice does
not pay twice. Storing is idempotent all the same.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import LiteralString
from uuid import UUID

from psycopg.rows import class_row

from bonito.database.pool import Connection
from bonito.knowledge import claims

TAKE: LiteralString = """
    UPDATE kb_batches
       SET lease_until = now() + %(lease)s,
           attempts = attempts + CASE WHEN lease_until < now() THEN 1 ELSE 0 END
     WHERE org_id = %(org_id)s AND revision_id = %(revision_id)s AND first_index = %(first_index)s
       AND (lease_until IS NULL OR lease_until < now())
    RETURNING last_index, attempts
"""

WAIT: LiteralString = """
    SELECT extract(epoch FROM lease_until - clock_timestamp()) FROM kb_batches
     WHERE org_id = %(org_id)s AND revision_id = %(revision_id)s AND first_index = %(first_index)s
"""

RENEW: LiteralString = """
    UPDATE kb_batches SET lease_until = now() + %(lease)s
     WHERE org_id = %(org_id)s AND revision_id = %(revision_id)s AND first_index = %(first_index)s
"""

# The document before the batch, as everybody locks them.
SHOW_TROUBLE: LiteralString = """
    UPDATE kb_documents d SET error_message = %(message)s, lease_until = now() + %(lease)s
      FROM kb_revisions r
     WHERE r.org_id = %(org_id)s AND r.id = %(revision_id)s AND d.org_id = r.org_id AND d.id = r.document_id
       AND r.status = 'building' AND d.status = 'processing'
"""

PUT_BACK: LiteralString = """
    UPDATE kb_batches SET lease_until = NULL, attempts = attempts + %(failures)s
     WHERE org_id = %(org_id)s AND revision_id = %(revision_id)s AND first_index = %(first_index)s
    RETURNING attempts
"""

REFUSE: LiteralString = """
    UPDATE kb_generations SET refused_since = coalesce(refused_since, now())
     WHERE org_id = %(org_id)s AND id = %(generation_id)s
    RETURNING now() - refused_since
"""

ANSWERED: LiteralString = """
    UPDATE kb_generations SET refused_since = NULL
     WHERE org_id = %(org_id)s AND id = %(generation_id)s AND refused_since IS NOT NULL
"""

PAUSE: LiteralString = """
    UPDATE kb_generations SET paused_until = greatest(paused_until, now() + %(pause)s)
     WHERE org_id = %(org_id)s AND id = %(generation_id)s
"""

# Written once in a while, however often the message comes back.
KEEP_WAITING: LiteralString = """
    UPDATE kb_documents d SET lease_until = now() + %(lease)s
      FROM kb_revisions r
     WHERE r.org_id = %(org_id)s AND r.id = %(revision_id)s AND d.org_id = r.org_id AND d.id = r.document_id
       AND d.status = 'processing' AND d.lease_until < now() + %(lease)s / 2
"""

CROWD: LiteralString = """
    SELECT count(*) FROM (
        SELECT FROM kb_revisions mine
          JOIN kb_revisions r ON r.org_id = mine.org_id AND r.generation_id = mine.generation_id
                             AND r.status = 'building'
          JOIN kb_batches b ON b.org_id = r.org_id AND b.revision_id = r.id
         WHERE mine.org_id = %(org_id)s AND mine.id = %(revision_id)s LIMIT %(most)s) AS waiting
"""

BUILD: LiteralString = """
    SELECT r.id AS revision_id, r.document_id, r.knowledge_base_id, r.generation_id,
           coalesce(greatest(0, extract(epoch FROM g.paused_until - now())), 0)::float AS paused_s
      FROM kb_revisions r JOIN kb_generations g ON g.org_id = r.org_id AND g.id = r.generation_id
     WHERE r.org_id = %(org_id)s AND r.id = %(revision_id)s AND r.status = 'building' AND g.status <> 'retired'
"""

TEXTS: LiteralString = """
    SELECT c.id, c.content, c.token_count FROM kb_chunks c
     WHERE c.org_id = %(org_id)s AND c.revision_id = %(revision_id)s
       AND c.chunk_index BETWEEN %(first_index)s AND %(last_index)s
       AND NOT EXISTS (SELECT FROM kb_index i WHERE i.org_id = c.org_id AND i.chunk_id = c.id)
     ORDER BY c.chunk_index
"""

# While this is held nobody ends the revision, so no row is written for the sweeper to miss.
LOCK_BUILDING: LiteralString = """
    SELECT FROM kb_revisions WHERE org_id = %(org_id)s AND id = %(revision_id)s AND status = 'building' FOR SHARE
"""

# Each chunk is fetched by its id; joined in the plain way, all chunks of the organization were read where statistics
# are young, ten times the cost of all the rest.
ADD_VECTORS: LiteralString = """
    WITH whole AS MATERIALIZED (
        SELECT r.knowledge_base_id, r.language::regconfig AS language, g.average_length, d.metadata
          FROM kb_revisions r, kb_generations g, kb_documents d
         WHERE r.org_id = %(org_id)s AND r.id = %(revision_id)s AND g.org_id = %(org_id)s AND g.id = %(generation_id)s
           AND d.org_id = %(org_id)s AND d.id = %(document_id)s)
    INSERT INTO kb_index (org_id, chunk_id, knowledge_base_id, generation_id, revision_id, document_id, dimensions,
                          embedding, terms, lexical, lexeme_count, metadata)
    SELECT %(org_id)s, v.id, w.knowledge_base_id, %(generation_id)s, %(revision_id)s, %(document_id)s,
           vector_dims(v.embedding), v.embedding, l.terms, l.lexical, l.lexeme_count, w.metadata
      FROM whole w, unnest(%(ids)s::uuid[], %(vectors)b::vector[]) AS v (id, embedding),
           LATERAL (SELECT c.content FROM kb_chunks c WHERE c.org_id = %(org_id)s AND c.id = v.id OFFSET 0) AS c,
           lexical_row(%(generation_id)s, to_tsvector(w.language, c.content), w.average_length) l
    ON CONFLICT DO NOTHING
"""

DONE: LiteralString = """
    DELETE FROM kb_batches
     WHERE org_id = %(org_id)s AND revision_id = %(revision_id)s AND first_index = %(first_index)s
"""


@dataclass(frozen=True)
class Build:
    """The revision that a batch belongs to, still building.

    Attributes:
        paused_s: seconds until the embedding model wants to be called again; 0 for now.
    """

    revision_id: UUID
    document_id: UUID
    knowledge_base_id: UUID
    generation_id: UUID
    paused_s: float


@dataclass(frozen=True)
class Batch:
    """A batch in our hands: chunks first_index … last_index of a revision; `attempts` failed before this one."""

    revision_id: UUID
    first_index: int
    last_index: int
    attempts: int


async def find_build(conn: Connection, *, org_id: UUID, revision_id: UUID) -> Build | None:
    """What the revision is built with; None where it no longer is building."""
    async with conn.cursor(row_factory=class_row(Build)) as cursor:
        await cursor.execute(BUILD, {"org_id": org_id, "revision_id": revision_id})
        return await cursor.fetchone()


async def take(
    conn: Connection, *, org_id: UUID, revision_id: UUID, first_index: int, lease: timedelta
) -> Batch | float | None:
    """Take a batch into work.

    Returns:
        The batch; or the seconds until its present holder's lease ends; or None when it is stored already.
    """
    row = {"org_id": org_id, "revision_id": revision_id, "first_index": first_index, "lease": lease}
    taken = await (await conn.execute(TAKE, row)).fetchone()
    if taken is not None:
        return Batch(revision_id, first_index, taken[0], taken[1])
    waiting = await (await conn.execute(WAIT, row)).fetchone()
    return None if waiting is None else max(0.0, float(waiting[0] or 0))


async def renew(conn: Connection, *, org_id: UUID, batch: Batch, lease: timedelta) -> bool:
    """Hold the batch for longer; False when it is stored."""
    row = {"org_id": org_id, "revision_id": batch.revision_id, "first_index": batch.first_index, "lease": lease}
    return (await conn.execute(RENEW, row)).rowcount == 1


async def put_back(
    conn: Connection, *, org_id: UUID, batch: Batch, message: str, lease: timedelta, is_failure: bool = True
) -> int:
    """Let go of a batch whose call will be made or repeated later; how many of its calls failed by now.

    Args:
        conn: in the tenant's transaction.
        org_id: the organization.
        batch: in our hands.
        message: shown on the document until the next outcome.
        lease: how long the document may now wait for its vectors.
        is_failure: counts as one of the tries that are made before the document is given up.
    """
    row = {
        "org_id": org_id,
        "revision_id": batch.revision_id,
        "first_index": batch.first_index,
        "message": claims.storable(message),
        "lease": lease,
        "failures": int(is_failure),
    }
    await conn.execute(SHOW_TROUBLE, row)
    found = await (await conn.execute(PUT_BACK, row)).fetchone()
    return 0 if found is None else int(found[0])


async def refuse(conn: Connection, *, org_id: UUID, generation_id: UUID) -> timedelta:
    """The embedding model took no call; for how long it has been taking none."""
    row = {"org_id": org_id, "generation_id": generation_id}
    found = await (await conn.execute(REFUSE, row)).fetchone()
    return timedelta() if found is None else found[0]


async def answered(conn: Connection, *, org_id: UUID, generation_id: UUID) -> None:
    """The embedding model took a call: how long it had refused before is forgotten."""
    await conn.execute(ANSWERED, {"org_id": org_id, "generation_id": generation_id})


async def wait_on(conn: Connection, *, org_id: UUID, revision_id: UUID, lease: timedelta, most: int) -> int:
    """Let the revision's document wait for its vectors for longer.

    Returns:
        How many batches wait for the same generation's model, this one included; `most` where there are more.
    """
    row = {"org_id": org_id, "revision_id": revision_id, "lease": lease, "most": most}
    await conn.execute(KEEP_WAITING, row)
    found = await (await conn.execute(CROWD, row)).fetchone()
    return 0 if found is None else int(found[0])


async def pause(conn: Connection, *, org_id: UUID, generation_id: UUID, pause: timedelta) -> None:
    """Have all workers leave the generation's embedding model alone for as long as it asked for (I15)."""
    await conn.execute(PAUSE, {"org_id": org_id, "generation_id": generation_id, "pause": pause})


async def texts(conn: Connection, *, org_id: UUID, batch: Batch) -> list[tuple[UUID, str, int]]:
    """The batch's chunks that have no vector yet: id, content and tokens, in order."""
    row = {
        "org_id": org_id,
        "revision_id": batch.revision_id,
        "first_index": batch.first_index,
        "last_index": batch.last_index,
    }
    return await (await conn.execute(TEXTS, row)).fetchall()


async def store(
    conn: Connection, *, org_id: UUID, build: Build, chunk_ids: Sequence[UUID], vectors: Sequence[array[float]]
) -> None:
    """Write vectors with their keyword rows; nothing, when the revision is no longer being built."""
    from pgvector import Vector

    row = {
        "org_id": org_id,
        "revision_id": build.revision_id,
        "generation_id": build.generation_id,
        "document_id": build.document_id,
        "ids": list(chunk_ids),
        "vectors": [Vector(vector.tolist()) for vector in vectors],
    }
    if await (await conn.execute(LOCK_BUILDING, row)).fetchone() is not None:
        await conn.execute(ADD_VECTORS, row)


async def done(conn: Connection, *, org_id: UUID, batch: Batch) -> None:
    """All vectors of the batch are stored."""
    row = {"org_id": org_id, "revision_id": batch.revision_id, "first_index": batch.first_index}
    await conn.execute(DONE, row)
