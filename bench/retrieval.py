"""Search in the database: latency and recall at 100,000 chunks, in one base and over 50; rows written per second.

Everything runs as in the product: the migrated schema, the runtime role under row-level security, one call of
`search_knowledge_base` per question, the indexes that maintenance builds, on the embedded Postgres as it comes (128 MB
of shared buffers). Latency is what a caller on the same machine sees of that call, without the embedding of the
question. Recall compares the ten best of vector search with all chunks in numpy. Writing is the statement that
ingestion runs per batch of 32 chunks: tsvector, BM25 weights, every index but HNSW; in one connection.

The figures stand in docs/benchmarks.md.

    .venv/bin/python -m bench.retrieval [--json]
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
from pgvector.psycopg import register_vector

import bench
from bench import server
from bench.filling import Base, add_organization, fill, stage
from bench.synthetic import Corpus
from bonito.knowledge import indexes

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHUNKS = 100_000
BASES = 50
PARTS = {"1 %": 1_000, "10 %": 10_000}
TIMED_WRITES = 20_000
QUESTIONS = 60
REPEATS = 3

# Of some words, three whose share of the base's chunks lies between two limits.
WORDS = """
    SELECT w.word
      FROM (SELECT DISTINCT word FROM unnest(%(words)s::text[]) AS word) w,
           LATERAL (SELECT coalesce(sum(t.document_frequency), 0) AS chunks
                      FROM unnest(to_tsvector('english', w.word)) AS v CROSS JOIN generate_series(0, 3) AS list
                      JOIN kb_terms t ON t.org_id = %(org)s AND t.generation_id = %(generation)s
                       AND t.term = 4 * term_dimension(v.lexeme) + list) s
     WHERE s.chunks > %(low)s * %(chunks)s::float AND s.chunks <= %(high)s * %(chunks)s::float
     ORDER BY md5(w.word) LIMIT 3
"""
SET_TENANT = (
    "SELECT set_config('app.org_id', %(org)s::text, true), set_config('plan_cache_mode', 'force_custom_plan', true)"
)
SEARCH = """
    SELECT * FROM search_knowledge_base(%(org)s, %(base)s, %(generation)s, %(mode)s, %(query)s, %(embedding)s, '{}', 0,
                                        10)
"""


def run() -> dict[str, object]:
    """Load, index, ask."""
    with (
        server.running() as started,
        psycopg.connect(started.urls.owner, autocommit=True) as owner,
        psycopg.connect(started.urls.runtime) as runtime,
    ):
        register_vector(owner)
        register_vector(runtime)
        return measure(started.urls.owner, owner, runtime)


def measure(url: str, owner: psycopg.Connection[Any], runtime: psycopg.Connection[Any]) -> dict[str, object]:
    """All figures, over two organizations: one base of everything and two parts of it; 50 bases of a topic each."""
    corpus = Corpus(BASES)
    vectors = stage(owner, corpus, CHUNKS)
    one, many = add_organization(owner), add_organization(owner)
    whole, rate = fill(owner, one, chunks=CHUNKS, timed=TIMED_WRITES)
    parts = {name: fill(owner, one, chunks=size, copied=whole)[0] for name, size in PARTS.items()}
    bases = [fill(owner, many, chunks=CHUNKS, topic=topic, copied=whole)[0] for topic in range(BASES)]
    owner.execute("VACUUM ANALYZE")
    started = time.perf_counter()
    asyncio.run(indexes.maintain(url))
    figures: dict[str, object] = {
        "written, chunks/s": round(rate),
        "HNSW of 100,000 and of 10,000 chunks, s": round(time.perf_counter() - started, 1),
    }
    asking = Asking(owner, runtime, corpus, vectors)
    for name, base in {**parts, "all": whole}.items():
        figures |= asking.recall(f"a base of {name}", base)
    figures |= asking.latencies("one base of 100,000", [whole])
    figures |= asking.latencies("50 bases of 2,000", bases)
    return figures


class Asking:
    """Asks as the runtime role does, one transaction a question."""

    def __init__(
        self,
        owner: psycopg.Connection[Any],
        runtime: psycopg.Connection[Any],
        corpus: Corpus,
        vectors: NDArray[np.float32],
    ) -> None:
        """Prepare questions of each kind; topics come in turn."""
        self._owner, self._runtime, self._vectors = owner, runtime, vectors
        self._topics = [place % BASES for place in range(QUESTIONS)]
        self._random = np.random.default_rng(11)
        self._places = {
            "on topic": corpus.questions_on(np.array(self._topics)),
            "off topic": corpus.questions_off(QUESTIONS),
        }

    def recall(self, name: str, base: Base) -> dict[str, object]:
        """The share of the ten nearest chunks that vector search finds, on and off topic."""
        places = np.array(sorted(base.places.values()))
        figures: dict[str, object] = {}
        for kind, questions in self._places.items():
            similarities = questions @ self._vectors[places].T
            nearest = places[np.argsort(-similarities, axis=1)[:, :10]]
            shares = []
            for question, expected in zip(questions, nearest, strict=True):
                _, rows = self._ask(base, "vector", "any", question)
                shares.append(len({base.places[row[0]] for row in rows} & set(expected.tolist())) / 10)
            figures[f"recall@10, {name}, {kind}"] = round(statistics.mean(shares), 3)
        return figures

    def latencies(self, name: str, bases: Sequence[Base]) -> dict[str, object]:
        """Milliseconds of vector, hybrid and keyword search, p50 and p95, by kind of question."""
        figures: dict[str, object] = {}
        for kind, questions in self._places.items():
            figures |= self._timed(f"{name}, vector, {kind}", "vector", bases, ["any"] * QUESTIONS, questions)
            for words in ("common", "rare", "mixed"):
                texts = [self._text(words, bases[topic % len(bases)]) for topic in self._topics]
                figures |= self._timed(f"{name}, hybrid, {kind}, {words} words", "hybrid", bases, texts, questions)
        return figures

    def _timed(
        self, name: str, mode: str, bases: Sequence[Base], texts: Sequence[str], questions: NDArray[np.float32]
    ) -> dict[str, object]:
        times = []
        for topic, text, question in zip(self._topics, texts, questions, strict=True):
            base = bases[topic % len(bases)]
            times += [self._ask(base, mode, text, question)[0] for _ in range(REPEATS)]
        p50, p95 = np.percentile(times, [50, 95])
        return {f"{name}, ms p50/p95": f"{p50:.1f} / {p95:.1f}"}

    def _ask(self, base: Base, mode: str, query: str, embedding: NDArray[np.float32]) -> tuple[float, list[Any]]:
        row = base.keys() | {"mode": mode, "query": query, "embedding": embedding}
        with self._runtime.transaction():
            self._runtime.execute(SET_TENANT, row)
            started = time.perf_counter()
            rows = self._runtime.execute(SEARCH, row, binary=True).fetchall()
            return (time.perf_counter() - started) * 1000, rows

    def _text(self, words: str, base: Base) -> str:
        """A question: three words of more than a tenth of the chunks, or of less than a hundredth, or ten of a text."""
        place = int(self._random.choice(list(base.places.values())))
        row = self._owner.execute("SELECT content FROM stage WHERE place = %s", [place]).fetchone()
        own = row[0].split() if row else []
        if words == "mixed":
            return " ".join(own[20:30])
        limits = (0.1, 1.0) if words == "common" else (0.0, 0.01)
        row = {"words": own, "low": limits[0], "high": limits[1], "chunks": len(base.places)}
        found = self._owner.execute(WORDS, base.keys() | row).fetchall()
        return " ".join(word for (word,) in found)


if __name__ == "__main__":
    bench.show(run, __doc__)
