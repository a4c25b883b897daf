"""/api/knowledge-bases/…/documents, and the export of them all."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Request
from pydantic import BaseModel, Field, StringConstraints
from starlette.responses import StreamingResponse

from bonito.console.fields import Body
from bonito.console.multipart import Part, parts
from bonito.console.pagination import (
    DEFAULT_LIMIT,
    Limit,
    NumberCursor,
    Page,
    TextCursor,
    page_of,
    text_cursor_of,
    text_of,
)
from bonito.console.permissions import Call, requires
from bonito.console.problems import responses
from bonito.console.routers.knowledge_bases import NameOrId
from bonito.console.routing import api_router
from bonito.console.services import Services
from bonito.errors import InvalidRequest, PayloadTooLarge
from bonito.knowledge import bases, documents, export, uploads
from bonito.knowledge.documents import DocumentStatus
from bonito.knowledge.metadata import MAX_BYTES, Metadata, check_metadata
from bonito.knowledge.uploads import Outcome, Staged, Uploads
from bonito.tenancy.permissions import Permission

router = api_router("/knowledge-bases/{name_or_id}", "documents")

MAX_FILES = 100
MAX_UPLOAD_BYTES = 1024 * 2**20  # of one request; a file's own limit is a setting

UPLOAD_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "additionalProperties": False,
                    "properties": {
                        "files": {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": MAX_FILES,
                            "items": {"type": "string", "format": "binary"},
                            "description": "Each with a file name, which may have folders: `policies/leave.md`.",
                        },
                        "metadata": {
                            "type": "string",
                            "contentMediaType": "application/json",
                            "description": "A JSON object for each of the documents; absent: known ones keep theirs.",
                        },
                    },
                }
            }
        },
    }
}


class Document(BaseModel):
    """A document of the source, and what became of it."""

    id: UUID
    name: str = Field(description="Its path below the source's prefix.")
    path: str = Field(description="Its path in the source.")
    type: str | None = Field(description="pdf, docx, txt, md, html, csv, json or jsonl; null until it is read.")
    size: int | None = Field(description="Bytes.")
    sha256: str | None = Field(description="Of the content that is served, or that failed.")
    status: DocumentStatus
    error: str | None = Field(description="Why it failed, for a person.")
    warnings: list[str]
    chunk_count: int = Field(description="Chunks that are served.")
    page_count: int | None
    metadata: dict[str, Any]
    source_version: str | None
    created_at: datetime
    updated_at: datetime


class UploadedDocument(Document):
    """A document that was uploaded."""

    outcome: Outcome = Field(description="`unchanged`: a document of this content was there, and this is it.")


class Uploaded(BaseModel):
    """What became of each file, in their order."""

    items: list[UploadedDocument]


class DocumentChange(Body):
    """What may be changed of a document."""

    metadata: Metadata


class Chunk(BaseModel):
    """A part of a document's text."""

    id: UUID
    index: int
    content: str
    token_count: int
    page: int | None = Field(description="From 1; null where the type has no pages.")
    section: str | None = Field(description="Headings, joined by ` > `.")
    char_start: int
    char_end: int
    metadata: dict[str, Any]


Prefix = Annotated[
    str,
    StringConstraints(max_length=1024, pattern=r"^[^\x00]*$"),
    Query(description="Only documents whose name begins so."),
]


@router.post("/documents", status_code=202, openapi_extra=UPLOAD_BODY, responses=responses(400, 409, 413, 415))
async def upload_documents(
    name_or_id: NameOrId,
    request: Request,
    call: Annotated[
        Call, requires(Permission.DOCUMENTS_WRITE, audit="document.upload", max_body_bytes=MAX_UPLOAD_BYTES)
    ],
) -> Uploaded:
    """Upload files into a knowledge base of the source `upload`: all are received and checked before one is kept."""
    async with call.transaction() as conn:
        base = await bases.get(conn, org_id=call.org_id, name_or_id=name_or_id)
    uploads.check_source(base)
    taking, items = uploads_of(call.services), list[UploadedDocument]()
    try:
        async with taking.staging() as folder:
            staged, metadata = await _receive(request, folder=folder, max_bytes=call.services.settings.max_object_bytes)
            async for kept in taking.keep(call.org_id, base, staged, metadata):
                items.append(UploadedDocument(**view(base, kept.document), outcome=kept.outcome))
    finally:
        if items:  # a call that fails half-way has changed something too
            call.note(f"knowledge_base:{base.id}", documents=[str(item.id) for item in items])
    return Uploaded(items=items)


@router.get("/documents")
async def list_documents(
    name_or_id: NameOrId,
    call: Annotated[Call, requires(Permission.KNOWLEDGE_BASES_READ)],
    limit: Limit = DEFAULT_LIMIT,
    cursor: TextCursor = None,
    status: Annotated[DocumentStatus | None, Query(description="Only documents in it.")] = None,
    prefix: Prefix = "",
) -> Page[Document]:
    """The documents of a knowledge base, by name."""
    async with call.transaction() as conn:
        base = await bases.get(conn, org_id=call.org_id, name_or_id=name_or_id)
        rows = await documents.list_page(
            conn,
            org_id=call.org_id,
            knowledge_base_id=base.id,
            limit=limit + 1,
            after_path=text_of(cursor),
            status=status,
            prefix=prefix,
        )
    return page_of(
        rows,
        limit=limit,
        show=lambda row: Document(**view(base, row)),
        cursor=lambda row: text_cursor_of(row.file_path),
    )


@router.get("/documents/{document_id}")
async def get_document(
    name_or_id: NameOrId, document_id: UUID, call: Annotated[Call, requires(Permission.KNOWLEDGE_BASES_READ)]
) -> Document:
    """One document."""
    base, found = await _find(call, name_or_id, document_id)
    return Document(**view(base, found))


@router.patch("/documents/{document_id}", responses=responses(400))
async def change_document(
    name_or_id: NameOrId,
    document_id: UUID,
    body: DocumentChange,
    call: Annotated[Call, requires(Permission.DOCUMENTS_WRITE, audit="document.update")],
) -> Document:
    """Replace a document's metadata; searches filter by it from then on."""
    async with call.transaction() as conn:
        base = await bases.get(conn, org_id=call.org_id, name_or_id=name_or_id)
        changed = await documents.set_metadata(
            conn, org_id=call.org_id, knowledge_base_id=base.id, document_id=document_id, metadata=body.metadata
        )
    call.note(f"document:{document_id}", knowledge_base=str(base.id), metadata_keys=sorted(body.metadata))
    return Document(**view(base, changed))


@router.delete("/documents/{document_id}", status_code=204, responses=responses(409))
async def delete_document(
    name_or_id: NameOrId,
    document_id: UUID,
    call: Annotated[Call, requires(Permission.DOCUMENTS_WRITE, audit="document.delete")],
) -> None:
    """Delete an uploaded document. Those of another source are removed there: a sync would bring them back."""
    base, found = await _find(call, name_or_id, document_id)
    await uploads_of(call.services).delete(call.org_id, base, found)
    call.note(f"document:{document_id}", knowledge_base=str(base.id), name=found.file_path)


@router.get("/documents/{document_id}/chunks")
async def list_chunks(
    name_or_id: NameOrId,
    document_id: UUID,
    call: Annotated[Call, requires(Permission.KNOWLEDGE_BASES_READ)],
    limit: Limit = DEFAULT_LIMIT,
    cursor: NumberCursor = None,
) -> Page[Chunk]:
    """The chunks that are served of a document, in their order."""
    async with call.transaction() as conn:
        base = await bases.get(conn, org_id=call.org_id, name_or_id=name_or_id)
        ids = {"org_id": call.org_id, "knowledge_base_id": base.id, "document_id": document_id}
        await documents.get(conn, **ids)
        rows = await documents.chunks(conn, **ids, limit=limit + 1, from_index=int(cursor or 0))
    return page_of(rows, limit=limit, show=_chunk, cursor=lambda row: str(row.chunk_index + 1))


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses={**responses(409), 200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
)
async def export_knowledge_base(
    name_or_id: NameOrId, call: Annotated[Call, requires(Permission.KNOWLEDGE_BASES_EXPORT)]
) -> StreamingResponse:
    """Documents, chunks and vectors as JSON Lines; the last line, of the type `end`, tells that nothing is missing."""
    pool = call.services.pool
    base, generation = await export.begin(pool, org_id=call.org_id, name_or_id=name_or_id)
    lines = export.lines(pool, org_id=call.org_id, base=base, generation=generation)
    headers = {"content-disposition": f'attachment; filename="{base.name}.jsonl"'}
    return StreamingResponse(lines, media_type="application/x-ndjson", headers=headers)


def uploads_of(services: Services) -> Uploads:
    """What takes files for knowledge bases."""
    staging = uploads.root_of(services.settings) / uploads.STAGING
    return Uploads(services.pool, services.queue, services.uploads, staging=staging)


async def _receive(request: Request, *, folder: Path, max_bytes: int) -> tuple[list[Staged], dict[str, Any] | None]:
    """Every file of the form, and the metadata for all of them."""
    staged: list[Staged] = []
    metadata: dict[str, Any] | None = None
    async for part in parts(request):
        if part.name == "files":
            if len(staged) == MAX_FILES:
                raise InvalidRequest(f"One request brings {MAX_FILES} files at most.", param="files")
            if not part.filename:
                raise InvalidRequest("Every file needs a file name.", param="files")
            staged.append(await uploads.stage(part.filename, part.content, folder=folder, max_bytes=max_bytes))
        elif part.name == "metadata" and metadata is None:
            metadata = _metadata(await _text(part))
        else:
            raise InvalidRequest(f"There is no field {part.name[:100]}, or it comes twice.", param=part.name[:100])
    if not staged:
        raise InvalidRequest("Send at least one file in the field `files`.", param="files")
    paths = [file.path for file in staged]
    if len(set(paths)) != len(paths):
        raise InvalidRequest("Two files of one request have the same name.", param="files")
    return staged, metadata


async def _text(part: Part) -> bytes:
    text = b""
    async for piece in part.content:
        text += piece
        if len(text) > 2 * MAX_BYTES:  # escapes may take twice the room
            raise PayloadTooLarge(f"The field {part.name} is too large.", param=part.name)
    return text


def _metadata(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # also bytes that are not UTF-8
        raise InvalidRequest("The metadata is not JSON.", param="metadata") from error
    if not isinstance(value, dict):
        raise InvalidRequest("The metadata is a JSON object.", param="metadata")
    return check_metadata(value)


async def _find(call: Call, name_or_id: str, document_id: UUID) -> tuple[bases.KnowledgeBase, documents.Document]:
    async with call.transaction() as conn:
        base = await bases.get(conn, org_id=call.org_id, name_or_id=name_or_id)
        found = await documents.get(conn, org_id=call.org_id, knowledge_base_id=base.id, document_id=document_id)
    return base, found


def view(base: bases.KnowledgeBase, document: documents.Document) -> dict[str, Any]:
    """The members of `Document`."""
    return {
        "id": document.id,
        "name": document.file_path,
        "path": base.source_prefix + document.file_path,
        "type": document.file_type,
        "size": document.file_size,
        "sha256": document.file_hash.hex() if document.file_hash else None,
        "status": document.status,
        "error": document.error_message,
        "warnings": document.warnings,
        "chunk_count": document.chunk_count,
        "page_count": document.page_count,
        "metadata": document.metadata,
        "source_version": document.source_version,
        "created_at": document.created_at,
        "updated_at": document.updated_at,
    }


def _chunk(chunk: documents.Chunk) -> Chunk:
    return Chunk(
        id=chunk.id,
        index=chunk.chunk_index,
        content=chunk.content,
        token_count=chunk.token_count,
        page=chunk.source_page,
        section=chunk.source_section,
        char_start=chunk.char_start,
        char_end=chunk.char_end,
        metadata=dict(chunk.metadata),
    )
