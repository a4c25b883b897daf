"""Uploaded files: staged whole and hashed, then kept, announced as documents and sent to ingestion."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
import time
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any, Literal, LiteralString, Protocol
from uuid import UUID, uuid4

from bonito.clouds.base import MessageQueue, UploadStore
from bonito.clouds.copying import MIB, copy_capped
from bonito.clouds.local import UploadFolder, clean_key
from bonito.database.pool import Pool, tenant
from bonito.errors import (
    DocumentTooLarge,
    InvalidRequest,
    KnowledgeBaseNotFound,
    PayloadTooLarge,
    StateConflict,
    UpstreamError,
)
from bonito.knowledge import claims, documents, revisions
from bonito.knowledge.bases import KnowledgeBase
from bonito.knowledge.documents import Document
from bonito.knowledge.messages import IngestMessage
from bonito.settings import Settings

Outcome = Literal["created", "replaced", "unchanged"]

# A claim for the moment of a deletion; it ends in the same transaction.
DELETION_LEASE = timedelta(minutes=1)

# Beside the organizations' folders. What a lost process left there goes after a day: no upload takes as long.
STAGING = ".staging"
LEFTOVER_S = 24 * 3600

# Paths that would make a folder of a document, or a document of a folder that has others; by the order of paths, in
# which `a/` and `a0` enclose whatever lies below `a`.
CONFLICTS: LiteralString = """
    SELECT d.file_path FROM unnest(%(paths)s::text[]) AS p (path), kb_documents d
     WHERE d.org_id = %(org_id)s AND d.knowledge_base_id = %(knowledge_base_id)s AND d.deleted_at IS NULL
       AND d.file_path >= p.path || '/' AND d.file_path < p.path || '0'
     UNION ALL
    SELECT d.file_path FROM kb_documents d
     WHERE d.org_id = %(org_id)s AND d.knowledge_base_id = %(knowledge_base_id)s AND d.deleted_at IS NULL
       AND d.file_path = ANY(%(folders)s::text[])
     LIMIT 1
"""


@dataclass(frozen=True)
class Staged:
    """A received file that is not kept yet; `path` is its cleaned name, below which it will lie."""

    path: str
    file: Path
    size: int
    file_hash: bytes


@dataclass(frozen=True)
class Kept:
    """What became of an upload: `unchanged` where a document of this content was there already."""

    document: Document
    outcome: Outcome


class UploadStores(Protocol):
    """Where uploads lie."""

    def uploads(self, org_id: UUID, knowledge_base_id: UUID) -> UploadStore:
        """The store of one knowledge base's uploads."""
        ...


class Uploads:
    """Takes files for knowledge bases of the source `upload`."""

    def __init__(self, pool: Pool, queue: MessageQueue, stores: UploadStores, *, staging: Path) -> None:
        """Put the parts together; in `staging` files lie until all of a request are there."""
        self._pool, self._queue, self._stores, self._staging = pool, queue, stores, staging

    @asynccontextmanager
    async def staging(self) -> AsyncIterator[Path]:
        """A folder for one request's files; gone with all that is in it when the request is done."""
        folder = await asyncio.to_thread(_make_folder, self._staging)
        try:
            yield folder
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def keep(
        self, org_id: UUID, base: KnowledgeBase, staged: Sequence[Staged], metadata: Mapping[str, Any] | None
    ) -> AsyncIterator[Kept]:
        """Make documents of staged files, in their order; each is told of as soon as it is one, whatever comes after.

        All are checked before the first one is kept. After that only what nobody can foresee ends it early: a full
        disk, a database that is away, a base that is deleted at this moment.

        Args:
            org_id: the organization.
            base: of the source `upload`.
            staged: files; none of them twice.
            metadata: for each of the documents, also one of the same content under another name, which is answered
                instead of a second one; None leaves what known ones have.

        Raises:
            StateConflict: another source; or one of the paths is a folder of other documents. Nothing is kept.
        """
        check_source(base)
        paths = [file.path for file in staged]
        await self.check_paths(org_id, base, paths)
        await self._stores.uploads(org_id, base.id).check(paths)
        for file in staged:
            kept = await self._keep(org_id, base, file, metadata)
            yield kept
            if kept.outcome != "unchanged":
                await self.send(org_id, base, file.path)

    async def delete(self, org_id: UUID, base: KnowledgeBase, document: Document) -> None:
        """Remove a document and its file; nothing of it is served from then on.

        The claim takes the document out of the hands of whoever reads it just now. Should the same name be uploaded at
        this moment, the message has it looked at again.

        Raises:
            StateConflict: the base has another source, and a sync would bring the document back.
            UpstreamError: the file cannot be deleted; the document stays as it is.
        """
        check_source(base)
        await self._stores.uploads(org_id, base.id).delete(document.file_path)
        ids = {"org_id": org_id, "knowledge_base_id": base.id}
        async with tenant(self._pool, org_id) as conn:
            await claims.lock_base(conn, **ids)
            claimed = await claims.claim(conn, **ids, path=document.file_path, lease=DELETION_LEASE)
            await revisions.withdraw(conn, org_id=org_id, document_id=claimed.id)
        await self.send(org_id, base, document.file_path)

    async def check_paths(self, org_id: UUID, base: KnowledgeBase, paths: Sequence[str]) -> None:
        """Refuse paths of which one would be a document and a folder of documents at once; StateConflict."""
        folders = sorted({str(folder) for path in paths for folder in PurePosixPath(path).parents} - {"."})
        row = {"org_id": org_id, "knowledge_base_id": base.id, "paths": list(paths), "folders": folders}
        async with tenant(self._pool, org_id) as conn:
            found = await (await conn.execute(CONFLICTS, row)).fetchone()
        conflicting = found[0] if found is not None else next((path for path in paths if path in folders), None)
        if conflicting is not None:
            raise StateConflict(f"{conflicting} would be a document and a folder of documents at once.", param="files")

    async def same(
        self, org_id: UUID, base: KnowledgeBase, path: str, file_hash: bytes, metadata: Mapping[str, Any] | None
    ) -> Document | None:
        """A document that has this content already, under whatever path; it gets the metadata, where there is some."""
        ids = {"org_id": org_id, "knowledge_base_id": base.id}
        async with tenant(self._pool, org_id) as conn:
            same = await documents.find_by_hash(conn, **ids, file_hash=file_hash, path=path)
            if same is not None and metadata is not None:
                same = await documents.set_metadata(conn, **ids, document_id=same.id, metadata=metadata)
        return same

    async def announce(
        self,
        org_id: UUID,
        base: KnowledgeBase,
        path: str,
        size: int,
        file_hash: bytes,
        metadata: Mapping[str, Any] | None,
    ) -> Kept:
        """Make a document of a file that lies in its place; KnowledgeBaseNotFound."""
        ids = {"org_id": org_id, "knowledge_base_id": base.id}
        new_id = uuid4()
        try:
            async with tenant(self._pool, org_id) as conn:
                await claims.lock_base(conn, **ids)
                document = await documents.announce(
                    conn,
                    **ids,
                    document_id=new_id,
                    path=path,
                    size=size,
                    file_hash=file_hash,
                    metadata=metadata,
                )
        except KnowledgeBaseNotFound:  # deleted meanwhile, and perhaps swept
            await self._stores.uploads(org_id, base.id).discard()
            raise
        return Kept(document, "created" if document.id == new_id else "replaced")

    async def _keep(
        self, org_id: UUID, base: KnowledgeBase, staged: Staged, metadata: Mapping[str, Any] | None
    ) -> Kept:
        same = await self.same(org_id, base, staged.path, staged.file_hash, metadata)
        if same is not None:
            return Kept(same, "unchanged")
        store = self._stores.uploads(org_id, base.id)
        await store.put(staged.path, _pieces(staged.file), max_bytes=staged.size)
        return await self.announce(org_id, base, staged.path, staged.size, staged.file_hash, metadata)

    async def send(self, org_id: UUID, base: KnowledgeBase, path: str) -> None:
        """Have a path looked at."""
        message = IngestMessage(org_id=org_id, knowledge_base_id=base.id, path=path)
        await self._queue.send(message.queue, message.to_json())


def root_of(settings: Settings) -> Path:
    """Where uploads lie in this deployment."""
    return settings.data_dir / "uploads"


async def prepare(root: Path, *, org_id: UUID, knowledge_base_id: UUID) -> None:
    """Make the folder of a new base's uploads; wherever it is missing later, the wrong disk is looked at."""
    folder = _folder_of(root, org_id, knowledge_base_id)
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)


def store_of(root: Path, *, org_id: UUID, knowledge_base_id: UUID) -> UploadFolder:
    """The store of one knowledge base's uploads, below its organization's folder.

    Raises:
        UpstreamError: the folder is not there, so that what it holds is neither gone nor to be written elsewhere.
    """
    folder = _folder_of(root, org_id, knowledge_base_id)
    if not folder.is_dir():
        raise UpstreamError(
            "The folder of this knowledge base's uploads is not there: all processes of a deployment need the same "
            "uploads in BONITO_DATA_DIR, and their disk mounted."
        )
    return UploadFolder(folder)


async def discard(root: Path, *, org_id: UUID, knowledge_base_id: UUID) -> None:
    """Remove what was uploaded to a deleted base, where that is still there."""
    await UploadFolder(_folder_of(root, org_id, knowledge_base_id)).discard()


async def stage(name: str, content: AsyncIterable[bytes], *, folder: Path, max_bytes: int) -> Staged:
    """Receive a file into a folder of the caller's, hashing it on the way.

    Args:
        name: as the caller gave it; it is cleaned (`clouds.local.clean_key`).
        content: its bytes, in pieces of any size.
        folder: for as long as the file is staged.
        max_bytes: as many are allowed.

    Raises:
        InvalidRequest: the name cannot be a document's.
        PayloadTooLarge: more than `max_bytes` came.
    """
    try:
        path = clean_key(name)
    except InvalidRequest as error:
        raise InvalidRequest(f"{name[:200]!r}: {error.message}", param="files") from error
    digest = hashlib.sha256()

    async def hashed() -> AsyncIterator[bytes]:
        async for piece in content:
            digest.update(piece)
            yield piece

    file = folder / uuid4().hex
    try:
        size = await copy_capped(hashed(), file, max_bytes=max_bytes)
    except DocumentTooLarge as error:
        limit = f"{max_bytes / MIB:,.0f} MiB" if max_bytes >= MIB else f"{max_bytes} bytes"
        raise PayloadTooLarge(f"{path} has more than {limit}, the most that a document may have.") from error
    return Staged(path=path, file=file, size=size, file_hash=digest.digest())


def check_source(base: KnowledgeBase) -> None:
    """Refuse what only uploaded documents can take; StateConflict says who decides instead."""
    if base.source_type != "upload":
        raise StateConflict(
            f"The documents of {base.name} are those of its source ({base.source_type}): put and remove files there, "
            "and the knowledge base follows."
        )


def _folder_of(root: Path, org_id: UUID, knowledge_base_id: UUID) -> Path:
    return root / str(org_id) / str(knowledge_base_id)


async def _pieces(file: Path) -> AsyncIterator[bytes]:
    opened = await asyncio.to_thread(file.open, "rb")
    try:
        while piece := await asyncio.to_thread(opened.read, MIB):
            yield piece
    finally:
        await asyncio.to_thread(opened.close)


def _make_folder(parent: Path) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    oldest = time.time() - LEFTOVER_S
    for entry in parent.iterdir():
        with suppress(FileNotFoundError):
            if entry.stat().st_mtime < oldest:
                shutil.rmtree(entry, ignore_errors=True)
    return Path(tempfile.mkdtemp(dir=parent))
