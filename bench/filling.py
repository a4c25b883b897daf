"""Fills knowledge bases for a benchmark: the rows that ingestion leaves, in bulk, as the owner."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import numpy as np
import psycopg

from bench.synthetic import DIMENSIONS, Corpus

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHUNKS_PER_DOCUMENT = 10
BATCH = 32
AVERAGE_LENGTH = 180.0

STAGE = "CREATE UNLOGGED TABLE stage (place integer PRIMARY KEY, topic integer, content text, embedding vector)"

ADD_BASE = """
    INSERT INTO knowledge_bases (org_id, id, name, source_type, source_bucket, status)
    VALUES (%(org)s, %(base)s::uuid, %(name)s, 'upload', %(base)s::text, 'ready')
"""
ADD_GENERATION = """
    INSERT INTO kb_generations (org_id, id, knowledge_base_id, status, embedding_model, embedding_fingerprint,
                                dimensions, tokenizer, chunk_size, chunk_overlap, language, average_length,
                                document_count, chunk_count, chunks_written)
    VALUES (%(org)s, %(generation)s, %(base)s, 'served', 'bench', 'bench', %(dimensions)s, 'bench', 512, 50, 'english',
            %(average)s, 0, %(chunks)s, %(chunks)s)
"""
SERVE = "UPDATE knowledge_bases SET served_generation = %(generation)s WHERE org_id = %(org)s AND id = %(base)s"
# Documents take their chunks from anywhere in the stage that belongs to the base.
MINE = """
    CREATE TEMPORARY TABLE mine AS
    SELECT place, topic, md5(%(base)s::text || 'chunk' || place)::uuid AS chunk_id,
           md5(%(base)s::text || 'document' || document)::uuid AS document_id,
           md5(%(base)s::text || 'revision' || document)::uuid AS revision_id
      FROM (SELECT place, topic, (row_number() OVER (ORDER BY place) - 1) / %(per_document)s AS document
              FROM stage WHERE place < %(chunks)s AND (%(topic)s::integer IS NULL OR topic = %(topic)s)) s
"""
ADD_DOCUMENTS = """
    INSERT INTO kb_documents (org_id, id, knowledge_base_id, file_path, file_name, status)
    SELECT DISTINCT %(org)s::uuid, document_id, %(base)s::uuid, document_id || '.md', document_id || '.md', 'ready'
      FROM mine
"""
ADD_REVISIONS = """
    INSERT INTO kb_revisions (org_id, id, knowledge_base_id, generation_id, document_id, file_hash, status, chunk_count,
                              language)
    SELECT %(org)s, revision_id, %(base)s, %(generation)s, document_id, sha256(revision_id::text::bytea), 'served',
           count(*), 'english'
      FROM mine GROUP BY revision_id, document_id
"""
ADD_CHUNKS = """
    INSERT INTO kb_chunks (org_id, id, knowledge_base_id, document_id, revision_id, chunk_index, content, token_count,
                           char_start, char_end)
    SELECT %(org)s, m.chunk_id, %(base)s, m.document_id, m.revision_id, m.place, s.content, 400, 0, length(s.content)
      FROM mine m JOIN stage s USING (place)
"""
ADD_INDEX = """
    INSERT INTO kb_index (org_id, chunk_id, knowledge_base_id, generation_id, revision_id, document_id, dimensions,
                          embedding, terms, lexical, lexeme_count)
    SELECT %(org)s, m.chunk_id, %(base)s, %(generation)s, m.revision_id, m.document_id, vector_dims(s.embedding),
           s.embedding, l.terms, l.lexical, l.lexeme_count
      FROM mine m JOIN stage s USING (place),
           lexical_row(%(generation)s, to_tsvector('english', s.content), %(average)s::real) l
     WHERE m.place >= %(from)s AND m.place < %(to)s
"""
# The same rows in another base differ in their scope only.
COPY_INDEX = """
    INSERT INTO kb_index (org_id, chunk_id, knowledge_base_id, generation_id, revision_id, document_id, dimensions,
                          embedding, terms, lexical, lexeme_count)
    SELECT %(org)s, m.chunk_id, %(base)s, %(generation)s, m.revision_id, m.document_id, i.dimensions,
           i.embedding, generation_scope(%(generation)s) || i.terms[2:], i.lexical, i.lexeme_count
      FROM mine m
      JOIN kb_index i ON i.org_id = %(from_org)s AND i.chunk_id = md5(%(from_base)s::text || 'chunk' || m.place)::uuid
"""
COUNT_TERMS = """
    INSERT INTO kb_terms (org_id, generation_id, term, document_frequency)
    SELECT %(org)s, %(generation)s, t.term, count(*)
      FROM kb_index i, unnest(i.terms) AS t (term)
     WHERE i.org_id = %(org)s AND i.generation_id = %(generation)s AND t.term > 0 GROUP BY t.term
"""


@dataclass(frozen=True)
class Base:
    """A filled knowledge base; `places` are the rows of the stage that its chunks are, by chunk."""

    org: UUID
    base: UUID
    generation: UUID
    places: dict[UUID, int]

    def keys(self) -> dict[str, Any]:
        """What every statement about it takes."""
        return {"org": self.org, "base": self.base, "generation": self.generation}


def stage(owner: psycopg.Connection[Any], corpus: Corpus, chunks: int) -> NDArray[np.float32]:
    """Write texts and vectors beside the product's tables, topic after topic in turn; the vectors in that order."""
    topics = np.arange(chunks) % corpus.topics
    vectors = corpus.vectors(topics)
    owner.execute(STAGE)
    with owner.cursor().copy("COPY stage FROM STDIN WITH (FORMAT BINARY)") as copy:
        copy.set_types(["integer", "integer", "text", "vector"])
        for place in range(chunks):
            copy.write_row((place, int(topics[place]), corpus.text(int(topics[place])), vectors[place]))
    owner.execute("VACUUM ANALYZE stage")
    return vectors


def add_organization(owner: psycopg.Connection[Any]) -> UUID:
    """An organization without anything."""
    org = uuid4()
    owner.execute("INSERT INTO organizations (id, name) VALUES (%s, %s)", [org, str(org)])
    return org


def fill(
    owner: psycopg.Connection[Any],
    org: UUID,
    *,
    chunks: int,
    topic: int | None = None,
    copied: Base | None = None,
    timed: int = 0,
) -> tuple[Base, float]:
    """Make a base of the first `chunks` rows of the stage, or of those of one topic.

    Args:
        owner: a superuser's connection.
        org: whose.
        chunks: rows of the stage.
        topic: only its rows.
        copied: a base whose index rows hold these chunks too; without it they are made from the text.
        timed: so many of the last chunks are written as ingestion does, 32 a transaction.

    Returns:
        The base, and the chunks per second of the timed part.
    """
    base, generation = uuid4(), uuid4()
    row = {"org": org, "base": base, "generation": generation, "name": f"base-{base.hex}", "chunks": chunks}
    row |= {"topic": topic, "dimensions": DIMENSIONS, "average": AVERAGE_LENGTH, "per_document": CHUNKS_PER_DOCUMENT}
    owner.execute(MINE, row)
    owner.execute("CREATE UNIQUE INDEX ON mine (place)")
    owner.execute("ANALYZE mine")
    found = owner.execute("SELECT chunk_id, place FROM mine").fetchall()
    row |= {"chunks": len(found)}
    for statement in (ADD_BASE, ADD_GENERATION, SERVE, ADD_DOCUMENTS, ADD_REVISIONS, ADD_CHUNKS):
        owner.execute(statement, row)
    rate = 0.0
    if copied is not None:
        owner.execute(COPY_INDEX, row | {"from_org": copied.org, "from_base": copied.base})
    else:
        owner.execute(ADD_INDEX, row | {"from": 0, "to": chunks - timed})
        owner.execute("VACUUM ANALYZE kb_index")
        started = time.perf_counter()
        for begin in range(chunks - timed, chunks, BATCH):
            owner.execute(ADD_INDEX, row | {"from": begin, "to": min(begin + BATCH, chunks)})
        rate = timed / (time.perf_counter() - started)
    owner.execute(COUNT_TERMS, row)
    owner.execute("DROP TABLE mine")
    return Base(org, base, generation, dict(found)), rate
