"""Searches knowledge bases: finds them by name, embeds the question once per model, merges what they answer."""

from __future__ import annotations

import asyncio
from array import array
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, LiteralString, get_args
from uuid import UUID

import psycopg
from pgvector import Vector
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from bonito.database.pool import Pool, tenant
from bonito.errors import (
    BonitoError,
    InvalidRequest,
    KnowledgeBaseNotFound,
    KnowledgeBaseNotReady,
    KnowledgeBaseUnavailable,
)
from bonito.knowledge.bases import NAME, UUID_SHAPE
from bonito.knowledge.embedding import QueryEmbedding, QueryEmbeddings
from bonito.knowledge.fusion import fuse
from bonito.knowledge.metadata import check_metadata
from bonito.providers.base import EmbeddingModels, Usage

SearchMode = Literal["hybrid", "vector", "keyword"]

MAX_TOP_K = 100
# Of a longer query the beginning and the end count, where questions stand.
MAX_QUERY_CHARACTERS = 4_000
# Some models refuse what is longer than they read, instead of cutting it; prose has more characters per token.
CHARACTERS_PER_TOKEN = 3
# A generation that was switched between the embedding and the search is looked up again.
ATTEMPTS = 3

RESOLVE: LiteralString = """
    SELECT b.id, b.name, g.id AS generation_id, g.embedding_model, g.embedding_fingerprint, g.dimensions
      FROM knowledge_bases b
      LEFT JOIN kb_generations g ON g.org_id = b.org_id AND g.id = b.served_generation
     WHERE b.org_id = %(org_id)s AND b.deleted_at IS NULL
       AND (%(is_all)s OR b.id = ANY(%(ids)s) OR b.name = ANY(%(names)s))
       AND (%(readable)s::uuid[] IS NULL OR b.id = ANY(%(readable)s::uuid[]))
     ORDER BY b.name COLLATE "C"
"""

# One statement and so one snapshot for all bases, content included.
SEARCH: LiteralString = """
    SELECT s.chunk_id, s.content, s.score, s.document_id, s.document_name, s.document_path, s.page, s.section,
           s.metadata, b.id AS knowledge_base_id, b.name AS knowledge_base_name
      FROM unnest(%(ids)s::uuid[], %(names)s::text[], %(generations)s::uuid[], %(places)s::integer[])
               AS b (id, name, generation_id, place),
           LATERAL search_knowledge_base(%(org_id)s, b.id, b.generation_id, %(mode)s, %(query)s,
                                         (%(embeddings)b::vector[])[b.place], %(filter)s, %(min_score)s, %(top_k)s) s
     ORDER BY s.score DESC, s.chunk_id
"""


@dataclass(frozen=True)
class SearchRequest:
    """What to look for; InvalidRequest, with `param`, where a value is out of its range.

    Attributes:
        query: any text that is not blank; of a very long one the beginning and the end count.
        top_k: most results, 1 … 100.
        min_score: results below it are left out, 0 … 1; a score means the same for every query.
        filter: what a document's metadata must contain, as `jsonb @>` understands it; {} is no filter.
        mode: `hybrid` is half cosine and half keywords; `vector` or `keyword` is one of them.
    """

    query: str
    top_k: int = 5
    min_score: float = 0.0
    filter: Mapping[str, Any] = field(default_factory=dict)
    mode: SearchMode = "hybrid"

    def __post_init__(self) -> None:
        if not self.query.strip():
            raise InvalidRequest("The query is empty.", param="query")
        if "\0" in self.query or _has_surrogates(self.query):
            raise InvalidRequest("The query holds NUL or half of a surrogate pair, which no text has.", param="query")
        if not 1 <= self.top_k <= MAX_TOP_K:
            raise InvalidRequest(f"top_k is 1 to {MAX_TOP_K}.", param="top_k")
        if not 0 <= self.min_score <= 1:
            raise InvalidRequest("min_score is 0 to 1.", param="min_score")
        if self.mode not in get_args(SearchMode):
            raise InvalidRequest(f"mode is one of {', '.join(get_args(SearchMode))}.", param="mode")
        try:
            check_metadata(dict(self.filter))
        except InvalidRequest as error:
            raise InvalidRequest(f"The filter cannot be used. {error.message}", param="filter") from error

    def excerpt(self, max_characters: int = MAX_QUERY_CHARACTERS) -> str:
        """The query as it is searched with: the beginning and the end of a longer one."""
        query = self.query.strip()
        if len(query) <= max_characters:
            return query
        half = max_characters // 2
        return f"{query[:half]}\n{query[-half:]}"


@dataclass(frozen=True)
class SearchResult:
    """A chunk and where it comes from.

    Attributes:
        score: absolute, 0 … 1, in the request's mode.
        page: from 1 on; None where the type has none.
        section: headings joined by ` > `.
        metadata: the document's.
    """

    chunk_id: UUID
    content: str
    score: float
    document_id: UUID
    document_name: str
    document_path: str
    page: int | None
    section: str | None
    metadata: Mapping[str, Any]
    knowledge_base_id: UUID
    knowledge_base_name: str


@dataclass(frozen=True)
class SearchedBase:
    """A knowledge base that was searched."""

    id: UUID
    name: str


@dataclass(frozen=True)
class SearchOutcome:
    """The best chunks, best first.

    Attributes:
        knowledge_bases: those that were searched.
        usage: per embedding model, what this search itself paid for; no tokens for a question that was cached.
        cost_nano_usd: of embedding the question; None where a price is unknown.
    """

    results: tuple[SearchResult, ...]
    knowledge_bases: tuple[SearchedBase, ...]
    usage: Mapping[str, Usage]
    cost_nano_usd: int | None


@dataclass
class SearchTrace:
    """What a search found and paid on its way, filled in as it goes: also one that fails has paid.

    Attributes:
        knowledge_base_ids: of those that are searched, once they are found.
        usage: per embedding model; without tokens while its answer is awaited, and after a failure.
        costs: likewise; None where it is not known, also because a price is not.
    """

    knowledge_base_ids: tuple[UUID, ...] = ()
    usage: dict[str, Usage] = field(default_factory=dict)
    costs: dict[str, int | None] = field(default_factory=dict)

    @property
    def cost_nano_usd(self) -> int | None:
        """Of all models together; None where that of one is not known."""
        known = [cost for cost in self.costs.values() if cost is not None]
        return sum(known) if len(known) == len(self.costs) else None


@dataclass(frozen=True)
class Target:
    """A base and its served generation; None and None before the first; no dimensions while it has no vector."""

    id: UUID
    name: str
    generation_id: UUID | None
    embedding_model: str | None
    embedding_fingerprint: str | None
    dimensions: int | None

    @property
    def model(self) -> ModelKey:
        """What its vectors can be compared by."""
        return self.embedding_model or "", self.embedding_fingerprint or ""


ModelKey = tuple[str, str]  # an embedding model's name and fingerprint


class Searcher:
    """Searches an organization's knowledge bases; one for a process and its event loop."""

    def __init__(self, pool: Pool, models: EmbeddingModels, *, embeddings: QueryEmbeddings | None = None) -> None:
        """Search over `pool` with the organizations' own `models`; `embeddings` remembers questions."""
        self._pool, self._models = pool, models
        self._embeddings = QueryEmbeddings() if embeddings is None else embeddings

    async def search(
        self,
        org_id: UUID,
        *,
        names: Sequence[str] | Literal["*"],
        readable: frozenset[UUID] | None,
        request: SearchRequest,
        trace: SearchTrace | None = None,
    ) -> SearchOutcome:
        """The best chunks of one base, of several, or of all.

        Scores are absolute, so results of bases with the same embedding model are merged by them; across different
        models reciprocal rank fusion orders, and each result keeps its own score. Nothing is embedded in keyword mode,
        nor for bases that hold nothing.

        Args:
            org_id: whose bases.
            names: names or ids; `*` is every base that is ready.
            readable: the bases that the caller may read; None is all of the organization.
            request: what to look for.
            trace: a new one, for callers that want to know what a failed search has paid.

        Raises:
            KnowledgeBaseNotFound: it names the first one that is unknown or not readable.
            KnowledgeBaseNotReady: one that was named serves nothing yet; for `*`, none does.
            KnowledgeBaseUnavailable: the embedding model or the database did not answer.
            Overloaded: no connection became free.
        """
        trace = SearchTrace() if trace is None else trace
        try:
            for _ in range(ATTEMPTS):
                targets = await self._resolve(org_id, names, readable)
                trace.knowledge_base_ids = tuple(target.id for target in targets)
                embedded = await self._embed(org_id, targets, request, trace)
                try:
                    found = await self._find(org_id, targets, embedded, request)
                except psycopg.errors.NoDataFound:
                    continue
                searched = tuple(SearchedBase(target.id, target.name) for target in targets)
                return SearchOutcome(_merge(targets, found, request), searched, trace.usage, trace.cost_nano_usd)
        except psycopg.OperationalError as error:
            raise KnowledgeBaseUnavailable("The knowledge base cannot be searched right now.") from error
        raise KnowledgeBaseUnavailable("The knowledge base is being switched to a new build; try again.")

    async def _resolve(
        self, org_id: UUID, names: Sequence[str] | Literal["*"], readable: frozenset[UUID] | None
    ) -> list[Target]:
        """The bases in the order asked for, each once."""
        is_all = names == "*"
        row = {
            "org_id": org_id,
            "is_all": is_all,
            "ids": [UUID(name) for name in names if UUID_SHAPE.fullmatch(name)],
            "names": [name for name in names if NAME.fullmatch(name)],
            "readable": None if readable is None else list(readable),
        }
        async with tenant(self._pool, org_id) as conn, conn.cursor(row_factory=class_row(Target)) as cursor:
            await cursor.execute(RESOLVE, row)
            found = await cursor.fetchall()
        return _ready(found) if is_all else _named(found, names)

    async def _embed(
        self, org_id: UUID, targets: Sequence[Target], request: SearchRequest, trace: SearchTrace
    ) -> dict[ModelKey, QueryEmbedding]:
        """The question's vector per embedding model that is needed."""
        if request.mode == "keyword":
            return {}
        needed = {target.model: target for target in targets if target.dimensions is not None}
        vectors = await asyncio.gather(*(self._embed_for(org_id, target, request, trace) for target in needed.values()))
        return dict(zip(needed, vectors, strict=True))

    async def _embed_for(
        self, org_id: UUID, target: Target, request: SearchRequest, trace: SearchTrace
    ) -> QueryEmbedding:
        name, fingerprint = target.model
        try:
            model = await self._models.embedding_model(org_id, name)
            if model.fingerprint == fingerprint:
                text = request.excerpt(min(MAX_QUERY_CHARACTERS, CHARACTERS_PER_TOKEN * model.max_input_tokens))
                paid_before = trace.usage.get(name, Usage(input_tokens=0))
                cost_before = trace.costs.get(name, 0)
                trace.usage[name], trace.costs[name] = Usage(), 0 if model.price_nano_usd == 0 else None
                embedded = await self._embeddings.embed(model, text, org_id=org_id, dimensions=target.dimensions)
                trace.usage[name] = _sum(paid_before, embedded.usage)
                if cost_before is not None and embedded.cost_nano_usd is not None:
                    trace.costs[name] = cost_before + embedded.cost_nano_usd
                return embedded
        except BonitoError as error:
            raise KnowledgeBaseUnavailable(
                f"The question could not be embedded with {name}. {error.message}", retry_after_s=error.retry_after_s
            ) from error
        raise KnowledgeBaseUnavailable(
            f"The embedding model {name} is no longer the one that {target.name} was built with. Set its embedding "
            "model again to build it anew."
        )

    async def _find(
        self,
        org_id: UUID,
        targets: Sequence[Target],
        embedded: Mapping[ModelKey, QueryEmbedding],
        request: SearchRequest,
    ) -> list[SearchResult]:
        """The results of every base that holds anything, by score; psycopg's NoDataFound when one was switched."""
        filled = [target for target in targets if target.dimensions is not None]
        if not filled:
            return []
        places = {model: place for place, model in enumerate(embedded, start=1)}
        row = {
            "org_id": org_id,
            "ids": [target.id for target in filled],
            "names": [target.name for target in filled],
            "generations": [target.generation_id for target in filled],
            "places": [places.get(target.model) for target in filled],
            "embeddings": [_as_parameter(embedding.vector) for embedding in embedded.values()] or None,
            "mode": request.mode,
            "query": request.excerpt(),
            "filter": Jsonb(dict(request.filter)),
            "min_score": float(request.min_score),
            "top_k": request.top_k,
        }
        async with tenant(self._pool, org_id) as conn, conn.cursor(row_factory=class_row(SearchResult)) as cursor:
            await cursor.execute(SEARCH, row, binary=True)
            return await cursor.fetchall()


def _sum(before: Usage, now: Usage) -> Usage:
    counts = (before.input_tokens, now.input_tokens)
    return Usage(input_tokens=None if None in counts else sum(count or 0 for count in counts))


def _named(found: Sequence[Target], names: Sequence[str]) -> list[Target]:
    """Those asked for, in that order; the first that is missing or serves nothing is an error."""
    if not names:
        raise InvalidRequest("Name at least one knowledge base.", param="knowledge_base")
    by_name = {target.name: target for target in found} | {str(target.id): target for target in found}
    chosen: dict[UUID, Target] = {}
    for name in names:
        target = by_name.get(name) or by_name.get(name.lower())
        if target is None:
            raise KnowledgeBaseNotFound(f"There is no knowledge base {name[:100]}.", param="knowledge_base")
        if target.generation_id is None:
            raise KnowledgeBaseNotReady(f"The knowledge base {target.name} is not ready: it serves nothing yet.")
        chosen[target.id] = target
    return list(chosen.values())


def _ready(found: Sequence[Target]) -> list[Target]:
    if not found:
        raise KnowledgeBaseNotFound("There is no knowledge base that may be read.", param="knowledge_base")
    ready = [target for target in found if target.generation_id is not None]
    if not ready:
        raise KnowledgeBaseNotReady("No knowledge base is ready: none serves anything yet.")
    return ready


def _merge(
    targets: Sequence[Target], found: Sequence[SearchResult], request: SearchRequest
) -> tuple[SearchResult, ...]:
    """The best of all bases; `found` is ordered by score."""
    models = {target.id: target.model for target in targets if target.dimensions is not None}
    if request.mode == "keyword" or len(set(models.values())) < 2:
        return tuple(found[: request.top_k])
    rankings: dict[ModelKey, list[UUID]] = defaultdict(list)
    for result in found:
        rankings[models[result.knowledge_base_id]].append(result.chunk_id)
    by_id = {result.chunk_id: result for result in found}
    return tuple(by_id[chunk_id] for chunk_id, _ in fuse(list(rankings.values()), limit=request.top_k))


def _as_parameter(vector: array[float]) -> Vector:
    return Vector(vector.tolist())


def _has_surrogates(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)
