"""Uploads in three steps: ask for addresses, put the files there, have them made documents.

On the clouds an address leads to the store itself, so that no file passes a function; on servers and laptops to
`PUT /api/uploads`, which the ticket in it opens for one file.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field, StringConstraints

from bonito.clouds.base import SignedUpload
from bonito.console.fields import Body, Whole
from bonito.console.permissions import Call, OpenCall, open_to_all, requires
from bonito.console.problems import responses
from bonito.console.routers.documents import MAX_FILES, MAX_UPLOAD_BYTES, Uploaded, UploadedDocument, uploads_of, view
from bonito.console.routers.knowledge_bases import NameOrId
from bonito.console.routing import ApiRoute, api_router
from bonito.console.services import Services
from bonito.errors import InvalidRequest, NotFound
from bonito.knowledge import bases, direct_uploads, upload_tickets, uploads
from bonito.knowledge.direct_uploads import Addressed, Announced, DirectUploads
from bonito.knowledge.metadata import Metadata
from bonito.knowledge.upload_places import PATH
from bonito.tenancy.permissions import Permission

router = api_router("/knowledge-bases/{name_or_id}/uploads", "documents")
receiving = APIRouter(tags=["documents"], route_class=ApiRoute, redirect_slashes=False)

# With metadata of 16 KiB for each file.
MAX_BODY_BYTES = 4 * 2**20

CONTENT_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}

Ticket = Annotated[
    str,
    Query(pattern=r"^[A-Za-z0-9_-]{56}\.[A-Za-z0-9_-]{43}$", description="Out of the address that the file has."),
]


class NewFile(Body):
    """A file that is to be brought."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f\x7f]+$")] = Field(
        description="Its name in the knowledge base, with folders: `policies/leave.md`."
    )
    size: Whole = Field(ge=0, le=2**40, description="Bytes.")
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] = Field(description="Of the content.")
    metadata: Metadata | None = Field(default=None, description="Absent: a known document keeps what it has.")


class UploadBody(Body):
    """Files that are to be brought."""

    files: Annotated[list[NewFile], Field(min_length=1, max_length=MAX_FILES)]


class FileAddress(BaseModel):
    """Where a file is to be put."""

    name: str = Field(description="As it was cleaned.")
    method: Literal["PUT"] = "PUT"
    url: str | None = Field(description="null: a document has this content already, and nothing is to be brought.")
    headers: dict[str, str] = Field(description="To be sent exactly so.")
    document_id: UUID | None = Field(description="Of the document that has this content already.")


class Upload(BaseModel):
    """An upload that waits for its files."""

    id: UUID
    expires_at: datetime = Field(description="Until then the addresses hold.")
    files: list[FileAddress] = Field(description="In the order in which they were asked for.")


@router.post("", status_code=201, responses=responses(409, 502))
async def begin_upload(
    name_or_id: NameOrId,
    request: Request,
    body: UploadBody,
    call: Annotated[Call, requires(Permission.DOCUMENTS_WRITE, audit="upload.begin", max_body_bytes=MAX_BODY_BYTES)],
) -> Upload:
    """Ask for an address for each file; what a document has already needs none."""
    files = [_announced(file, max_bytes=call.services.settings.max_object_bytes) for file in body.files]
    if len({file.path for file in files}) != len(files):
        raise InvalidRequest("Two files of one request have the same name.", param="files")
    async with call.transaction() as conn:
        base = await bases.get(conn, org_id=call.org_id, name_or_id=name_or_id)
    begun = await _direct(call.services).begin(call.org_id, base, files)
    call.note(f"knowledge_base:{base.id}", upload=str(begun.id), files=len(files))
    origin = call.services.settings.public_url or str(request.base_url).rstrip("/")
    shown = [_shown(addressed, origin=origin) for addressed in begun.files]
    return Upload(id=begun.id, expires_at=begun.expires_at, files=shown)


@router.post("/{upload_id}/complete", status_code=202, responses=responses(409, 502))
async def complete_upload(
    name_or_id: NameOrId,
    upload_id: UUID,
    call: Annotated[Call, requires(Permission.DOCUMENTS_WRITE, audit="upload.complete")],
) -> Uploaded:
    """Make documents of the files that were brought: all of them must be there."""
    async with call.transaction() as conn:
        base = await bases.get(conn, org_id=call.org_id, name_or_id=name_or_id)
    uploads.check_source(base)
    kept = await _direct(call.services).complete(call.org_id, base, upload_id)
    items = [UploadedDocument(**view(base, item.document), outcome=item.outcome) for item in kept]
    call.note(f"knowledge_base:{base.id}", upload=str(upload_id), documents=[str(item.id) for item in items])
    return Uploaded(items=items)


@receiving.put(
    PATH,
    status_code=204,
    operation_id="receive_file",
    openapi_extra=CONTENT_BODY,
    responses=responses(400, 404, 409, 413),
)
async def receive_file(
    ticket: Ticket,
    request: Request,
    call: Annotated[OpenCall, open_to_all(audit="upload.receive", max_body_bytes=MAX_UPLOAD_BYTES)],
) -> None:
    """Take one file at the address that was signed for it."""
    if call.services.settings.cloud != "local":
        raise NotFound("Files of this deployment go to its store, not here.")
    opened = upload_tickets.read(call.services.secret_box, ticket, now=datetime.now(UTC))
    call.identify(opened.org_id, f"upload:{opened.upload_id}")
    path = await _direct(call.services).receive(opened.org_id, opened.upload_id, opened.number, aiter(request.stream()))
    call.note(f"upload:{opened.upload_id}", name=path)


def _direct(services: Services) -> DirectUploads:
    return DirectUploads(services.pool, uploads_of(services), services.uploads)


def _announced(file: NewFile, *, max_bytes: int) -> Announced:
    return direct_uploads.announced(
        file.name, size=file.size, sha256=file.sha256, metadata=file.metadata, max_bytes=max_bytes
    )


def _shown(addressed: Addressed, *, origin: str) -> FileAddress:
    signed = addressed.address or SignedUpload("", {})
    url = origin + signed.address if signed.address.startswith("/") else signed.address
    return FileAddress(
        name=addressed.file.path,
        url=url if addressed.address is not None else None,
        headers=dict(signed.headers),
        document_id=addressed.file.document_id,
    )
