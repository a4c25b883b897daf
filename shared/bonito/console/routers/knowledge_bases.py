"""/api/knowledge-bases: create, list, show, change, delete and count."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Path
from pydantic import BaseModel, Field

from bonito.clouds.base import StoreType
from bonito.console.pagination import DEFAULT_LIMIT, Limit, Page, TextCursor, page_of, text_cursor_of, text_of
from bonito.console.permissions import Call, requires
from bonito.console.problems import responses
from bonito.console.routing import api_router
from bonito.database.pool import Connection
from bonito.knowledge import bases, configuration, generations, uploads
from bonito.knowledge.bases import BaseStatus, Counts
from bonito.knowledge.configuration import KnowledgeBaseChange, NewKnowledgeBase
from bonito.knowledge.generations import Generation
from bonito.knowledge.requested import request_sync
from bonito.knowledge.sources import SourcePolicy
from bonito.tenancy.permissions import Permission

router = api_router("/knowledge-bases", "knowledge bases")

NameOrId = Annotated[
    str,
    Path(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9._-]+$", description="The knowledge base's name or id."),
]


class InForce(BaseModel):
    """What a generation was built with; an asked-for `auto` has been decided here."""

    embedding_model: str
    dimensions: int | None = Field(description="Of every vector; null until the first one tells.")
    chunk_size: int = Field(description="Tokens per chunk at most: what was asked for, or what the model reads.")
    chunk_overlap: int
    language: str | None = Field(description="A text search configuration; null until the first text tells.")


class Rebuild(InForce):
    """A generation that is built beside the one that answers, and replaces it once it is complete."""

    documents_missing: int | None = Field(description="Served documents that it lacks; null while nothing is served.")
    started_at: datetime


class KnowledgeBase(BaseModel):
    """A knowledge base: what was asked for, what is in force, and how much it serves."""

    id: UUID
    name: str
    description: str
    source: dict[str, Any] = Field(description="As it was given; it never holds a credential.")
    source_type: StoreType
    connection: UUID | None
    embedding_model: str
    chunk_size: int
    chunk_overlap: int
    language: str
    sync_schedule: str | None
    sync_timezone: str
    metadata: dict[str, Any]
    status: BaseStatus
    error: str | None
    document_count: int = Field(description="Documents that are served.")
    chunk_count: int
    total_tokens: int
    in_force: InForce | None = Field(description="Of the generation that answers, or of the first one in the making.")
    rebuild: Rebuild | None = Field(description="In the making beside the one that answers; null where there is none.")
    last_synced_at: datetime | None
    created_at: datetime
    updated_at: datetime


class Stats(BaseModel):
    """What is in a knowledge base, counted."""

    document_count: int = Field(description="Documents of the source, whatever their status.")
    documents: dict[str, int] = Field(description="The same by status: pending, processing, ready, …")
    served_document_count: int
    chunk_count: int = Field(description="Chunks that are served.")
    total_tokens: int
    source_bytes: int = Field(description="Bytes of the documents in the source.")
    vector_bytes: int = Field(description="Bytes of the vectors that are served.")
    last_synced_at: datetime | None


@router.post("", status_code=201, responses=responses(400, 409))
async def create_knowledge_base(
    body: NewKnowledgeBase,
    call: Annotated[Call, requires(Permission.KNOWLEDGE_BASES_WRITE, audit="knowledge_base.create")],
) -> KnowledgeBase:
    """Create a knowledge base over a source; its first sync begins at once."""
    services = call.services
    base = await configuration.create_base(
        services.pool, services.models, org_id=call.org_id, new=body, sources=SourcePolicy.of(services.settings)
    )
    call.note(f"knowledge_base:{base.id}", name=base.name, source=dict(base.source_config))
    if base.source_type == "upload":
        await uploads.prepare(uploads.root_of(services.settings), org_id=call.org_id, knowledge_base_id=base.id)
    await _sync(call, base.id)
    async with call.transaction() as conn:
        return await _shown_one(conn, call.org_id, base)


@router.get("")
async def list_knowledge_bases(
    call: Annotated[Call, requires(Permission.KNOWLEDGE_BASES_READ)],
    limit: Limit = DEFAULT_LIMIT,
    cursor: TextCursor = None,
) -> Page[KnowledgeBase]:
    """All knowledge bases, by name."""
    async with call.transaction() as conn:
        rows = await bases.list_page(conn, org_id=call.org_id, limit=limit + 1, after_name=text_of(cursor))
        shown = await _shown(conn, call.org_id, rows)
    return page_of(shown, limit=limit, show=lambda base: base, cursor=lambda base: text_cursor_of(base.name))


@router.get("/{name_or_id}")
async def get_knowledge_base(
    name_or_id: NameOrId, call: Annotated[Call, requires(Permission.KNOWLEDGE_BASES_READ)]
) -> KnowledgeBase:
    """One knowledge base."""
    async with call.transaction() as conn:
        base = await bases.get(conn, org_id=call.org_id, name_or_id=name_or_id)
        return await _shown_one(conn, call.org_id, base)


@router.put("/{name_or_id}", responses=responses(400, 409))
async def change_knowledge_base(
    name_or_id: NameOrId,
    body: KnowledgeBaseChange,
    call: Annotated[Call, requires(Permission.KNOWLEDGE_BASES_WRITE, audit="knowledge_base.update")],
) -> KnowledgeBase:
    """Change what is sent. Another chunking, model or language is built beside what answers, and then switched to."""
    services = call.services
    base, building = await configuration.change_base(
        services.pool,
        services.models,
        org_id=call.org_id,
        name_or_id=name_or_id,
        change=body,
        sources=SourcePolicy.of(services.settings),
    )
    changed = body.model_dump(mode="json", exclude_unset=True)
    call.note(f"knowledge_base:{base.id}", changed=changed, is_rebuilding=building is not None)
    if building is not None:
        await _sync(call, base.id)
    async with call.transaction() as conn:
        return await _shown_one(conn, call.org_id, base)


@router.delete("/{name_or_id}", status_code=204)
async def delete_knowledge_base(
    name_or_id: NameOrId,
    call: Annotated[Call, requires(Permission.KNOWLEDGE_BASES_DELETE, audit="knowledge_base.delete")],
) -> None:
    """Delete a knowledge base with its documents and chunks; the files of its source stay, uploads go."""
    async with call.transaction() as conn:
        base = await bases.get(conn, org_id=call.org_id, name_or_id=name_or_id)
        await bases.delete(conn, org_id=call.org_id, knowledge_base_id=base.id)
    call.note(f"knowledge_base:{base.id}", name=base.name)


@router.get("/{name_or_id}/stats")
async def get_knowledge_base_stats(
    name_or_id: NameOrId, call: Annotated[Call, requires(Permission.KNOWLEDGE_BASES_READ)]
) -> Stats:
    """Documents by status, chunks, tokens and bytes."""
    async with call.transaction() as conn:
        base = await bases.get(conn, org_id=call.org_id, name_or_id=name_or_id)
        counted = await bases.counts(conn, org_id=call.org_id, knowledge_base_id=base.id)
        served = None
        if base.served_generation is not None:
            served = await generations.get(conn, org_id=call.org_id, generation_id=base.served_generation)
    return _stats(base, counted, served)


async def _sync(call: Call, knowledge_base_id: UUID) -> None:
    services = call.services
    await request_sync(services.pool, services.queue, org_id=call.org_id, knowledge_base_id=knowledge_base_id)


async def _shown_one(conn: Connection, org_id: UUID, base: bases.KnowledgeBase) -> KnowledgeBase:
    (shown,) = await _shown(conn, org_id, [base])
    return shown


async def _shown(conn: Connection, org_id: UUID, rows: list[bases.KnowledgeBase]) -> list[KnowledgeBase]:
    found = await generations.open_of_bases(conn, org_id=org_id, knowledge_base_ids=[row.id for row in rows])
    shown = []
    for row in rows:
        present = found.get(row.id, ())
        served = next((generation for generation in present if generation.status == "served"), None)
        building = next((generation for generation in present if generation.status == "building"), None)
        missing = None
        if served is not None and building is not None:
            missing = await generations.missing(conn, org_id=org_id, knowledge_base_id=row.id)
        shown.append(_view(row, served, building, missing))
    return shown


def _view(
    base: bases.KnowledgeBase, served: Generation | None, building: Generation | None, missing: int | None
) -> KnowledgeBase:
    answering = served or building
    is_beside = served is not None and building is not None
    return KnowledgeBase(
        **_columns(base),
        document_count=served.document_count if served else 0,
        chunk_count=served.chunk_count if served else 0,
        total_tokens=served.token_count if served else 0,
        in_force=InForce.model_validate(answering, from_attributes=True) if answering else None,
        rebuild=_rebuild(building, missing) if is_beside and building is not None else None,
    )


def _rebuild(building: Generation, missing: int | None) -> Rebuild:
    built_with = InForce.model_validate(building, from_attributes=True)
    return Rebuild(**built_with.model_dump(), documents_missing=missing, started_at=building.created_at)


def _columns(base: bases.KnowledgeBase) -> Mapping[str, Any]:
    row = dict(vars(base))
    renamed = {"source_config": "source", "connection_id": "connection", "error_message": "error"}
    shown = {renamed.get(name, name): value for name, value in row.items()}
    return {name: value for name, value in shown.items() if name in KnowledgeBase.model_fields}


def _stats(base: bases.KnowledgeBase, counted: Counts, served: Generation | None) -> Stats:
    by_status = {name: value for name, value in vars(counted).items() if name != "source_bytes"}
    chunk_count = served.chunk_count if served else 0
    dimensions = (served.dimensions or 0) if served else 0
    return Stats(
        document_count=sum(by_status.values()),
        documents=by_status,
        served_document_count=served.document_count if served else 0,
        chunk_count=chunk_count,
        total_tokens=served.token_count if served else 0,
        source_bytes=counted.source_bytes,
        vector_bytes=chunk_count * (8 + 4 * dimensions),  # pgvector: 4 bytes a number and 8 for the vector
        last_synced_at=base.last_synced_at,
    )
