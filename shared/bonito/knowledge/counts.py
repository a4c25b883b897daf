"""What is counted of served revisions: documents, chunks, tokens and lexemes, and in how many chunks each term stands.

All of it changes in the transaction of the flip, under the lock of the generation's row, so that it never drifts (I18).
"""

from __future__ import annotations

from typing import LiteralString
from uuid import UUID

from bonito.database.pool import Connection

# From here on no other flip of this generation runs; terms need no order among themselves.
LOCK_GENERATION: LiteralString = """
    SELECT coalesce(language, 'simple') FROM kb_generations
     WHERE org_id = %(org_id)s AND id = %(generation_id)s FOR NO KEY UPDATE
"""

LANGUAGE: LiteralString = "SELECT language FROM kb_revisions WHERE org_id = %(org_id)s AND id = %(revision_id)s"

REWORD: LiteralString = """
    UPDATE kb_index i
       SET terms = l.terms, lexical = l.lexical, lexeme_count = l.lexeme_count
      FROM kb_chunks c, kb_generations g,
           lexical_row(g.id, to_tsvector(%(language)s::regconfig, c.content), g.average_length) l
     WHERE i.org_id = %(org_id)s AND i.revision_id = %(revision_id)s AND c.org_id = i.org_id AND c.id = i.chunk_id
       AND g.org_id = i.org_id AND g.id = i.generation_id
"""

SET_LANGUAGE: LiteralString = """
    UPDATE kb_revisions SET language = %(language)s WHERE org_id = %(org_id)s AND id = %(revision_id)s
"""

COUNT_LEXEMES: LiteralString = """
    UPDATE kb_revisions r SET lexeme_count = (
        SELECT coalesce(sum(i.lexeme_count), 0) FROM kb_index i
         WHERE i.org_id = %(org_id)s AND i.revision_id = r.id)
     WHERE r.org_id = %(org_id)s AND r.id = %(revision_id)s
"""

COUNT: LiteralString = """
    UPDATE kb_generations g
       SET document_count = g.document_count + c.documents, chunk_count = g.chunk_count + c.chunks,
           token_count = g.token_count + c.tokens, lexeme_count = g.lexeme_count + c.lexemes,
           chunks_written = g.chunks_written + c.written
      FROM (SELECT coalesce(sum(sign), 0) AS documents, coalesce(sum(sign * r.chunk_count), 0) AS chunks,
                   coalesce(sum(sign * r.token_count), 0) AS tokens, coalesce(sum(sign * r.lexeme_count), 0) AS lexemes,
                   coalesce(sum(r.chunk_count), 0) AS written
              FROM kb_revisions r, LATERAL (SELECT CASE WHEN r.id = %(entering)s THEN 1 ELSE -1 END AS sign) s
             WHERE r.org_id = %(org_id)s AND r.id = ANY(%(revisions)s)) c
     WHERE g.org_id = %(org_id)s AND g.id = %(generation_id)s
"""

# Positive terms are posting lists. An upsert goes by the key, term by term: a join would read the generation's whole
# vocabulary as soon as the planner takes it for small.
COUNT_TERMS: LiteralString = """
    INSERT INTO kb_terms AS k (org_id, generation_id, term, document_frequency)
    SELECT %(org_id)s, %(generation_id)s, t.term,
           sum(CASE WHEN i.revision_id = %(entering)s THEN 1 ELSE -1 END)::integer
      FROM kb_index i, unnest(i.terms) AS t (term)
     WHERE i.org_id = %(org_id)s AND i.revision_id = ANY(%(revisions)s) AND t.term > 0
     GROUP BY t.term
    HAVING sum(CASE WHEN i.revision_id = %(entering)s THEN 1 ELSE -1 END) <> 0
    ON CONFLICT (org_id, generation_id, term) DO UPDATE
       SET document_frequency = k.document_frequency + excluded.document_frequency
"""

# Posting lists in which no chunk stands any more.
FORGET_TERMS: LiteralString = """
    DELETE FROM kb_terms
     WHERE org_id = %(org_id)s AND generation_id = %(generation_id)s AND document_frequency = 0 AND term = ANY (ARRAY(
           SELECT DISTINCT t.term FROM kb_index i, unnest(i.terms) AS t (term)
            WHERE i.org_id = %(org_id)s AND i.revision_id = %(leaving)s AND t.term > 0))
"""

# Served before the generation's language was known.
OTHERWISE_WORDED: LiteralString = """
    SELECT r.id, r.document_id, g.knowledge_base_id
      FROM kb_generations g
      JOIN kb_revisions r ON r.org_id = g.org_id AND r.generation_id = g.id AND r.status = 'served'
     WHERE g.org_id = %(org_id)s AND g.id = %(generation_id)s AND r.language <> coalesce(g.language, 'simple')
     LIMIT 1
"""


async def exchange(
    conn: Connection, *, org_id: UUID, generation_id: UUID, entering: UUID | None, leaving: UUID | None
) -> None:
    """Count a revision in that is served from now on, and one out that no longer is."""
    row = {
        "org_id": org_id,
        "generation_id": generation_id,
        "entering": entering,
        "leaving": leaving,
        "revisions": [revision for revision in (entering, leaving) if revision is not None],
    }
    locked = await (await conn.execute(LOCK_GENERATION, row)).fetchone()
    assert locked is not None  # noqa: S101 - a revision's foreign key keeps its generation
    if entering is not None:
        await _word(conn, org_id=org_id, revision_id=entering, language=locked[0])
    async with conn.pipeline():
        if entering is not None:
            await conn.execute(COUNT_LEXEMES, {"org_id": org_id, "revision_id": entering})
        await conn.execute(COUNT, row)
        await conn.execute(COUNT_TERMS, row)
        if leaving is not None:
            await conn.execute(FORGET_TERMS, row)


async def find_otherwise_worded(
    conn: Connection, *, org_id: UUID, generation_id: UUID
) -> tuple[UUID, UUID, UUID] | None:
    """A served revision whose rows are not in the generation's language: its id, document and knowledge base."""
    row = {"org_id": org_id, "generation_id": generation_id}
    found = await (await conn.execute(OTHERWISE_WORDED, row)).fetchone()
    return None if found is None else (found[0], found[1], found[2])


async def reword(conn: Connection, *, org_id: UUID, generation_id: UUID, revision_id: UUID) -> None:
    """Write a served revision in the language that its generation has found since; base and document are locked."""
    await exchange(conn, org_id=org_id, generation_id=generation_id, entering=None, leaving=revision_id)
    await exchange(conn, org_id=org_id, generation_id=generation_id, entering=revision_id, leaving=None)


async def _word(conn: Connection, *, org_id: UUID, revision_id: UUID, language: str) -> None:
    row = {"org_id": org_id, "revision_id": revision_id, "language": language}
    written = await (await conn.execute(LANGUAGE, row)).fetchone()
    if written is not None and written[0] != language:
        await conn.execute(REWORD, row)
        await conn.execute(SET_LANGUAGE, row)
