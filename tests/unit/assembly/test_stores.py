"""Stores of this machine: only what the operator allowed is ever read (T9)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from bonito.assembly.stores import LocalStores
from bonito.clouds.local import FolderStore, UploadFolder
from bonito.errors import InvalidRequest, UpstreamError
from bonito.knowledge.bases import KnowledgeBase
from bonito.settings import Settings

ORG = uuid4()


def base_over(folder: Path) -> KnowledgeBase:
    now = datetime.now(UTC)
    return KnowledgeBase(
        id=uuid4(),
        name="docs",
        description="",
        source_type="local",
        source_config={"type": "local", "path": str(folder)},
        source_bucket=str(folder),
        source_prefix="",
        connection_id=None,
        embedding_model="auto",
        chunk_size=512,
        chunk_overlap=50,
        language="auto",
        sync_schedule=None,
        sync_timezone="UTC",
        metadata={},
        status="ready",
        error_message=None,
        served_generation=None,
        last_synced_at=None,
        created_at=now,
        updated_at=now,
    )


def settings(tmp_path: Path, **values: object) -> Settings:
    (tmp_path / "root" / "docs").mkdir(parents=True, exist_ok=True)
    return Settings(data_dir=tmp_path / "data", local_roots=str(tmp_path / "root"), **values)  # type: ignore[arg-type]


async def test_a_folder_below_a_root_is_read(tmp_path: Path) -> None:
    stores = LocalStores(settings(tmp_path))
    (tmp_path / "root" / "docs" / "a.txt").write_text("x")

    store = await stores.store(ORG, base_over(tmp_path / "root" / "docs"))

    assert isinstance(store, FolderStore)
    assert [info.key async for info in store.list("")] == ["a.txt"]


@pytest.mark.parametrize("folder", ["elsewhere", "data", "root/../elsewhere", "rootless"])
async def test_another_folder_is_not_read_even_if_it_once_was_allowed(tmp_path: Path, folder: str) -> None:
    stores = LocalStores(settings(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "rootless").mkdir()

    with pytest.raises(InvalidRequest, match="BONITO_LOCAL_ROOTS"):
        await stores.store(ORG, base_over(tmp_path / folder))


async def test_a_link_put_in_a_folders_place_is_not_followed(tmp_path: Path) -> None:
    stores = LocalStores(settings(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root" / "docs").rmdir()
    (tmp_path / "root" / "docs").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(InvalidRequest, match="any more"):
        await stores.store(ORG, base_over(tmp_path / "root" / "docs"))


async def test_a_folder_that_is_away_is_no_refusal(tmp_path: Path) -> None:
    stores = LocalStores(settings(tmp_path))
    (tmp_path / "root" / "docs").rmdir()

    with pytest.raises(UpstreamError):
        await (await stores.store(ORG, base_over(tmp_path / "root" / "docs"))).head("a.txt")


async def test_no_folder_is_read_in_a_cloud(tmp_path: Path) -> None:
    stores = LocalStores(settings(tmp_path, cloud="aws"))

    with pytest.raises(InvalidRequest):
        await stores.store(ORG, base_over(tmp_path / "root" / "docs"))


async def test_a_bucket_of_a_cloud_is_not_read_here(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="s3"):
        await LocalStores(settings(tmp_path)).store(ORG, replace(base_over(tmp_path), source_type="s3"))


async def test_uploads_lie_below_their_organization_and_go_with_their_base(tmp_path: Path) -> None:
    stores = LocalStores(settings(tmp_path))
    base = replace(base_over(tmp_path), source_type="upload")
    folder = tmp_path / "data" / "uploads" / str(ORG) / str(base.id)
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("x")

    store = await stores.store(ORG, base)

    assert isinstance(store, UploadFolder)
    assert (await store.head("a.txt")).size == 1
    await stores.discard(ORG, base.id)
    assert not folder.exists()
    assert folder.parent.exists()
    await stores.discard(ORG, base.id)


async def test_uploads_of_a_disk_that_is_not_mounted_are_not_taken_for_gone(tmp_path: Path) -> None:
    base = replace(base_over(tmp_path), source_type="upload")

    with pytest.raises(UpstreamError, match="BONITO_DATA_DIR"):
        await LocalStores(settings(tmp_path)).store(ORG, base)

    assert not (tmp_path / "data").exists()
