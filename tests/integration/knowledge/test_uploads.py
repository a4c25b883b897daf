"""Uploads below the HTTP layer: whatever comes in between, a file without a document is nowhere served."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from bonito.clouds.base import MessageQueue
from bonito.database.pool import Pool, tenant
from bonito.errors import InvalidRequest, KnowledgeBaseNotFound, PayloadTooLarge, StateConflict, UpstreamError
from bonito.knowledge import bases, documents, uploads
from bonito.knowledge.bases import KnowledgeBase
from bonito.knowledge.upload_places import UploadFolders
from bonito.knowledge.uploads import Staged, Uploads
from bonito.tenancy.secrets import SecretBox
from tests.integration.knowledge.ingesting import MemoryQueue
from tests.integration.knowledge.served import create_base


class BrokenQueue:
    """A queue whose database is away."""

    async def send(self, queue: str, message: Mapping[str, object], *, delay: timedelta = timedelta()) -> None:
        raise UpstreamError("The message could not be queued.")


@pytest.fixture
async def base(pool: Pool, org_id: UUID, tmp_path: Path) -> KnowledgeBase:
    created = await create_base(pool, org_id, f"kb-{uuid4().hex[:8]}")
    await uploads.prepare(tmp_path, org_id=org_id, knowledge_base_id=created.id)
    return created


def taking_files(pool: Pool, queue: MessageQueue, root: Path) -> Uploads:
    return Uploads(pool, queue, UploadFolders(root, SecretBox([bytes(32)])), staging=root / uploads.STAGING)


async def pieces(*contents: bytes) -> AsyncIterator[bytes]:
    for content in contents:
        yield content


async def staged(folder: Path, name: str, content: bytes) -> Staged:
    return await uploads.stage(name, pieces(content), folder=folder, max_bytes=1000)


def files(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


async def test_a_base_that_is_deleted_meanwhile_keeps_no_file(
    pool: Pool, org_id: UUID, base: KnowledgeBase, tmp_path: Path
) -> None:
    taking = taking_files(pool, MemoryQueue(), tmp_path)
    async with taking.staging() as folder:
        file = await staged(folder, "a.md", b"text")
        async with tenant(pool, org_id) as conn:
            await bases.delete(conn, org_id=org_id, knowledge_base_id=base.id)
        with pytest.raises(KnowledgeBaseNotFound):
            [kept async for kept in taking.keep(org_id, base, [file], None)]

    assert files(tmp_path) == []


async def test_a_lost_message_leaves_a_document_that_the_sweeper_finds(
    pool: Pool, org_id: UUID, base: KnowledgeBase, tmp_path: Path
) -> None:
    taking = taking_files(pool, BrokenQueue(), tmp_path)
    async with taking.staging() as folder:
        with pytest.raises(UpstreamError):
            [kept async for kept in taking.keep(org_id, base, [await staged(folder, "a.md", b"text")], None)]

    async with tenant(pool, org_id) as conn:
        (document,) = await documents.list_page(conn, org_id=org_id, knowledge_base_id=base.id, limit=9)
        lease = await (await conn.execute("SELECT lease_until > now() FROM kb_documents")).fetchone()
    assert (document.status, lease) == ("pending", (True,))
    assert files(tmp_path) == ["a.md"]


async def test_an_upload_is_not_written_beside_a_disk_that_is_not_mounted(
    pool: Pool, org_id: UUID, base: KnowledgeBase, tmp_path: Path
) -> None:
    taking = taking_files(pool, MemoryQueue(), tmp_path / "mount")

    async with taking.staging() as folder:
        with pytest.raises(UpstreamError, match="BONITO_DATA_DIR"):
            [kept async for kept in taking.keep(org_id, base, [await staged(folder, "a.md", b"text")], None)]

    assert files(tmp_path) == []
    async with tenant(pool, org_id) as conn:
        assert await documents.list_page(conn, org_id=org_id, knowledge_base_id=base.id, limit=9) == []


async def test_only_a_base_for_uploads_takes_and_gives_up_documents(pool: Pool, org_id: UUID, tmp_path: Path) -> None:
    folder_base = await create_base(pool, org_id, "folder", source_type="local")
    taking = taking_files(pool, MemoryQueue(), tmp_path)

    async with taking.staging() as folder:
        with pytest.raises(StateConflict, match="its source"):
            [kept async for kept in taking.keep(org_id, folder_base, [await staged(folder, "a.md", b"text")], None)]
    assert files(tmp_path) == []


async def test_what_a_lost_process_left_in_staging_goes_after_a_day(pool: Pool, tmp_path: Path) -> None:
    taking = taking_files(pool, MemoryQueue(), tmp_path)
    for name, age_s in [("old", 2 * uploads.LEFTOVER_S), ("young", 60)]:
        left = tmp_path / uploads.STAGING / name
        left.mkdir(parents=True)
        (left / f"{name}-file").write_bytes(b"x")
        os.utime(left, (time.time() - age_s,) * 2)

    async with taking.staging() as folder:
        assert folder.is_dir()
    assert not folder.exists()
    assert files(tmp_path) == ["young-file"]


async def test_a_file_is_staged_with_its_hash_and_never_above_the_limit(tmp_path: Path) -> None:
    whole = await uploads.stage("a.md", pieces(b"a" * 500, b"", b"b" * 500), folder=tmp_path, max_bytes=1000)
    assert (whole.path, whole.size, whole.file.read_bytes()) == ("a.md", 1000, b"a" * 500 + b"b" * 500)

    with pytest.raises(PayloadTooLarge, match=r"b\.md has more than 1000 bytes"):
        await uploads.stage("b.md", pieces(b"a" * 500, b"b" * 501), folder=tmp_path, max_bytes=1000)
    with pytest.raises(InvalidRequest, match="upwards"):
        await uploads.stage("../c.md", pieces(b"a"), folder=tmp_path, max_bytes=1000)


async def test_documents_and_folders_of_documents_do_not_mix(
    pool: Pool, org_id: UUID, base: KnowledgeBase, tmp_path: Path
) -> None:
    taking = taking_files(pool, MemoryQueue(), tmp_path)
    async with taking.staging() as folder:
        for name in ("a/b.md", "c", "d_e", "d/e.md"):
            [kept async for kept in taking.keep(org_id, base, [await staged(folder, name, name.encode())], None)]
        for name in ("a", "a/b.md/c", "c/d", "d"):
            with pytest.raises(StateConflict, match="at once"):
                [kept async for kept in taking.keep(org_id, base, [await staged(folder, name, b"new")], None)]
        for name in ("a0", "a-b", "a/c", "d_", "D"):
            [kept async for kept in taking.keep(org_id, base, [await staged(folder, name, name.encode())], None)]


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs a file that not even root may delete")
async def test_a_document_whose_file_cannot_be_deleted_stays(
    pool: Pool, org_id: UUID, base: KnowledgeBase, tmp_path: Path
) -> None:
    queue = MemoryQueue()
    taking = taking_files(pool, queue, tmp_path)
    async with taking.staging() as folder:
        (kept,) = [item async for item in taking.keep(org_id, base, [await staged(folder, "version", b"text")], None)]
    place = tmp_path / str(org_id) / str(base.id)
    place.rename(tmp_path / "moved")
    place.symlink_to("/proc")
    queue.waiting.clear()

    with pytest.raises(UpstreamError, match="cannot be deleted"):
        await taking.delete(org_id, base, kept.document)

    async with tenant(pool, org_id) as conn:
        (document,) = await documents.list_page(conn, org_id=org_id, knowledge_base_id=base.id, limit=9)
    assert document == kept.document
    assert queue.waiting == []
