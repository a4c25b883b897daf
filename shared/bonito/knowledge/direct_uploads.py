"""Uploads in three steps: addresses are asked for, files are put there, and then they become documents.

So no file passes a function, and clients have one way for every deployment. A file lies in its place before it is
announced; what was never announced goes, or is read where a document has its name: the store decides (see `sweep`).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString, Protocol
from uuid import UUID, uuid4

from psycopg.types.json import Jsonb

from bonito.clouds.base import ObjectInfo, SignedUpload
from bonito.clouds.local import clean_key
from bonito.database.pool import Pool, lookup, tenant
from bonito.errors import DocumentTooLarge, InvalidRequest, NotFound, PayloadTooLarge, StateConflict, UpstreamError
from bonito.knowledge import documents
from bonito.knowledge.bases import KnowledgeBase
from bonito.knowledge.context import Ingestion
from bonito.knowledge.documents import Document
from bonito.knowledge.messages import IngestMessage
from bonito.knowledge.uploads import Kept, Uploads, UploadStores, check_source

logger = logging.getLogger(__name__)

OPEN_FOR = timedelta(hours=1)
# After that: a file that began to come at the last moment is still let in.
GRACE = timedelta(hours=1)
ITEMS = 100

INSERT: LiteralString = """
    INSERT INTO kb_uploads (org_id, id, knowledge_base_id, files, expires_at)
    VALUES (%(org_id)s, %(id)s, %(knowledge_base_id)s, %(files)s, %(expires_at)s)
"""
GET: LiteralString = """
    SELECT knowledge_base_id, files, expires_at FROM kb_uploads WHERE org_id = %(org_id)s AND id = %(id)s
"""
SET_FILES: LiteralString = "UPDATE kb_uploads SET files = %(files)s WHERE org_id = %(org_id)s AND id = %(id)s"
FIND_EXPIRED: LiteralString = "SELECT org_id, id FROM find_expired_uploads(%(limit)s, %(grace)s)"
DELETE: LiteralString = "DELETE FROM kb_uploads WHERE org_id = %(org_id)s AND id = %(id)s"
FIND_DOCUMENT: LiteralString = """
    SELECT id FROM kb_documents
     WHERE org_id = %(org_id)s AND knowledge_base_id = %(knowledge_base_id)s AND file_path = %(path)s
       AND deleted_at IS NULL
"""


@dataclass(frozen=True)
class Announced:
    """A file that somebody wants to bring.

    Attributes:
        path: its cleaned name in the knowledge base.
        size: bytes.
        file_hash: SHA-256 of them, as the client says.
        metadata: None leaves what a known document has.
        document_id: of the document that it became, or that had its content already.
    """

    path: str
    size: int
    file_hash: bytes
    metadata: Mapping[str, Any] | None = None
    document_id: UUID | None = None


@dataclass(frozen=True)
class Addressed:
    """Where a file is to be put; None where it need not be brought."""

    file: Announced
    address: SignedUpload | None


@dataclass(frozen=True)
class Begun:
    """An upload that waits for its files."""

    id: UUID
    expires_at: datetime
    files: list[Addressed]


@dataclass(frozen=True)
class Upload:
    """A row of kb_uploads."""

    id: UUID
    knowledge_base_id: UUID
    files: list[Announced]
    expires_at: datetime


class UploadPlaces(UploadStores, Protocol):
    """Where uploads lie, and the addresses that lead there."""

    async def address(self, org_id: UUID, upload: Upload, number: int, *, expires: timedelta) -> SignedUpload:
        """Where the file of that number may be put; UpstreamError, AccessDenied.

        An address that begins with a slash is one of this API.
        """
        ...


class DirectUploads:
    """Takes files for knowledge bases of the source `upload` that do not pass this process, or only their bytes do."""

    def __init__(
        self, pool: Pool, uploads: Uploads, places: UploadPlaces, *, clock: Callable[[], datetime] | None = None
    ) -> None:
        """Put the parts together; `clock` says this moment (aware)."""
        self._pool, self._uploads, self._places = pool, uploads, places
        self._clock = clock or (lambda: datetime.now(UTC))

    async def begin(self, org_id: UUID, base: KnowledgeBase, files: Sequence[Announced]) -> Begun:
        """Give an address for each file that is not there by its hash already.

        Raises:
            StateConflict: another source, or one of the paths is a folder of documents.
            UpstreamError: the store gives no addresses.
        """
        check_source(base)
        await self._uploads.check_paths(org_id, base, [file.path for file in files])
        known = [await self._known(org_id, base, file) for file in files]
        upload = Upload(uuid4(), base.id, known, self._clock() + OPEN_FOR)
        addresses = [
            None
            if file.document_id is not None
            else await self._places.address(org_id, upload, number, expires=OPEN_FOR)
            for number, file in enumerate(known)
        ]
        row = {"org_id": org_id, "id": upload.id, "knowledge_base_id": base.id, "expires_at": upload.expires_at}
        async with tenant(self._pool, org_id) as conn:
            await conn.execute(INSERT, row | {"files": _json(known)})
        addressed = [Addressed(file, address) for file, address in zip(known, addresses, strict=True)]
        return Begun(upload.id, upload.expires_at, addressed)

    async def receive(self, org_id: UUID, upload_id: UUID, number: int, content: AsyncIterator[bytes]) -> str:
        """Put a file in its place, if it is the one that was announced; its path.

        Raises:
            NotFound: there is no such upload any more.
            InvalidRequest: the content is another.
            PayloadTooLarge: it has more bytes.
        """
        upload = await self._get(org_id, upload_id)
        if number >= len(upload.files):
            raise NotFound("The upload has no such file.")
        file = upload.files[number]
        store = self._places.uploads(org_id, upload.knowledge_base_id)
        try:
            await store.put(file.path, _checked(content, file), max_bytes=file.size)
        except DocumentTooLarge as error:
            raise PayloadTooLarge(f"{file.path} has more than the {file.size} bytes that were announced.") from error
        return file.path

    async def complete(self, org_id: UUID, base: KnowledgeBase, upload_id: UUID) -> list[Kept]:
        """Make documents of the files, in their order; again as often as it is asked for.

        Raises:
            NotFound: there is no such upload of this base any more.
            StateConflict: a file was not brought, or has another size.
        """
        upload = await self._get(org_id, upload_id)
        if upload.knowledge_base_id != base.id:
            raise NotFound("There is no such upload.")
        await self._check_brought(org_id, upload)
        kept = [await self._keep(org_id, base, file) for file in upload.files]
        done = [replace(file, document_id=each.document.id) for file, each in zip(upload.files, kept, strict=True)]
        async with tenant(self._pool, org_id) as conn:
            await conn.execute(SET_FILES, {"org_id": org_id, "id": upload_id, "files": _json(done)})
        return kept

    async def _known(self, org_id: UUID, base: KnowledgeBase, file: Announced) -> Announced:
        same = await self._uploads.same(org_id, base, file.path, file.file_hash, file.metadata)
        return replace(file, document_id=same.id if same is not None else None)

    async def _check_brought(self, org_id: UUID, upload: Upload) -> None:
        store = self._places.uploads(org_id, upload.knowledge_base_id)
        for file in upload.files:
            if file.document_id is not None:
                continue
            try:
                size = (await store.head(file.path)).size
            except NotFound:
                raise StateConflict(f"{file.path} was not brought to its address.", param="files") from None
            if size != file.size:
                raise StateConflict(f"{file.path} has {size} bytes, {file.size} were announced.", param="files")

    async def _keep(self, org_id: UUID, base: KnowledgeBase, file: Announced) -> Kept:
        if file.document_id is not None:
            return Kept(await self._document(org_id, base, file.document_id), "unchanged")
        kept = await self._uploads.announce(org_id, base, file.path, file.size, file.file_hash, file.metadata)
        await self._uploads.send(org_id, base, file.path)
        return kept

    async def _document(self, org_id: UUID, base: KnowledgeBase, document_id: UUID) -> Document:
        async with tenant(self._pool, org_id) as conn:
            return await documents.get(conn, org_id=org_id, knowledge_base_id=base.id, document_id=document_id)

    async def _get(self, org_id: UUID, upload_id: UUID) -> Upload:
        async with tenant(self._pool, org_id) as conn:
            row = await (await conn.execute(GET, {"org_id": org_id, "id": upload_id})).fetchone()
        if row is None:
            raise NotFound("There is no such upload.")
        knowledge_base_id, files, expires_at = row
        return Upload(upload_id, knowledge_base_id, [_file(each) for each in files], expires_at)


def announced(name: str, *, size: int, sha256: str, metadata: Mapping[str, Any] | None, max_bytes: int) -> Announced:
    """A file that a caller wants to bring.

    Raises:
        InvalidRequest: the name cannot be a document's, or it has more bytes than a document may have.
    """
    try:
        path = clean_key(name)
    except InvalidRequest as error:
        raise InvalidRequest(f"{name[:200]!r}: {error.message}", param="files") from error
    if size > max_bytes:
        raise InvalidRequest(f"{path} has {size} bytes; a document has {max_bytes} at most.", param="files")
    return Announced(path, size, bytes.fromhex(sha256), metadata)


async def sweep(context: Ingestion, *, grace: timedelta = GRACE) -> int:
    """Forget uploads that expired, with what was brought and never announced; how many.

    Where a document has the name, this upload may have replaced its file: the path is looked at again, and what the
    store holds is served.
    """
    async with lookup(context.pool) as conn:
        found = await (await conn.execute(FIND_EXPIRED, {"limit": ITEMS, "grace": grace})).fetchall()
    swept = 0
    for org_id, upload_id in found:
        try:
            swept += await _forget(context, org_id, upload_id)
        except UpstreamError as error:  # one store that is away keeps no other upload
            logger.warning("An upload that expired stays until its store answers: %s", error.message)
    return swept


async def _forget(context: Ingestion, org_id: UUID, upload_id: UUID) -> int:
    ids = {"org_id": org_id, "id": upload_id}
    async with tenant(context.pool, org_id) as conn:
        row = await (await conn.execute(GET, ids)).fetchone()
    if row is None:
        return 0  # another sweeper was here, or the base is gone
    upload = Upload(upload_id, row[0], [_file(each) for each in row[1]], row[2])
    for file in upload.files:
        if file.document_id is None:
            await _abandon(context, org_id, upload, file.path)
    async with tenant(context.pool, org_id) as conn:
        return (await conn.execute(DELETE, ids)).rowcount


async def _abandon(context: Ingestion, org_id: UUID, upload: Upload, path: str) -> None:
    row = {"org_id": org_id, "knowledge_base_id": upload.knowledge_base_id, "path": path}
    async with tenant(context.pool, org_id) as conn:
        has_document = await (await conn.execute(FIND_DOCUMENT, row)).fetchone() is not None
    if has_document:
        message = IngestMessage(org_id, upload.knowledge_base_id, path, is_bulk=True)
        await context.queue.send(message.queue, message.to_json())
        return
    store = context.stores.uploads(org_id, upload.knowledge_base_id)
    try:
        info = await store.head(path)
    except NotFound:
        return
    if _was_brought_by(info, upload):
        await store.delete(path)


def _was_brought_by(info: ObjectInfo, upload: Upload) -> bool:
    """Whether the file came while this upload was open; a later one is another's, and perhaps about to be announced."""
    return info.modified_at <= upload.expires_at


async def _checked(content: AsyncIterator[bytes], file: Announced) -> AsyncIterator[bytes]:
    """The content; at its end an error unless it is what was announced, so that the store keeps nothing of it."""
    digest, size = hashlib.sha256(), 0
    async for piece in content:
        digest.update(piece)
        size += len(piece)
        yield piece
    if size != file.size or digest.digest() != file.file_hash:
        raise InvalidRequest(f"The content is not the one that was announced for {file.path}.")


def _json(files: Sequence[Announced]) -> Jsonb:
    return Jsonb(
        [
            {
                "path": file.path,
                "size": file.size,
                "sha256": file.file_hash.hex(),
                "metadata": None if file.metadata is None else dict(file.metadata),
                "document_id": None if file.document_id is None else str(file.document_id),
            }
            for file in files
        ]
    )


def _file(stored: Mapping[str, Any]) -> Announced:
    document_id = stored["document_id"]
    return Announced(
        path=stored["path"],
        size=stored["size"],
        file_hash=bytes.fromhex(stored["sha256"]),
        metadata=stored["metadata"],
        document_id=None if document_id is None else UUID(document_id),
    )
