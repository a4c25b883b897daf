"""Stores on disk: one contract for all of them, and what only folders and only uploads must do."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bonito.clouds.base import ObjectInfo, ObjectStore
from bonito.clouds.copying import copy_capped
from bonito.clouds.local import FolderStore, UploadFolder, clean_key, is_ignored
from bonito.errors import DocumentError, DocumentTooLarge, InvalidRequest, NotFound, UpstreamError
from tests.contracts.stores import ObjectStoreContract, UploadStoreContract, keys, pieces

IS_ROOT = os.geteuid() == 0


def write(root: Path, key: str, content: bytes = b"x") -> None:
    path = root / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


# the contract


@dataclass
class Written:
    """A store over a folder that its owner writes to."""

    store: ObjectStore
    root: Path

    async def write(self, key: str, content: bytes = b"x") -> None:
        write(self.root, key, content)


class TestFolderStore(ObjectStoreContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Written:
        (tmp_path / "root").mkdir()
        return Written(FolderStore(tmp_path / "root"), tmp_path / "root")


class TestUploadFolder(ObjectStoreContract, UploadStoreContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Written:
        return Written(UploadFolder(tmp_path / "root"), tmp_path / "root")

    @pytest.fixture
    def uploads(self, tmp_path: Path) -> UploadFolder:
        return UploadFolder(tmp_path / "root")


async def test_a_version_tells_a_file_that_took_anothers_place_with_its_size_and_time(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", b"four")
    before = await FolderStore(tmp_path).head("a.txt")
    (tmp_path / "b.txt").write_bytes(b"five")
    os.utime(tmp_path / "b.txt", ns=(1, (tmp_path / "a.txt").stat().st_mtime_ns))
    (tmp_path / "b.txt").replace(tmp_path / "a.txt")

    assert (await FolderStore(tmp_path).head("a.txt")).version != before.version


# folders


@pytest.mark.parametrize(
    "key",
    ["../secret.txt", "a/../../secret.txt", "/etc/hostname", "a//b.txt", "./a.txt", "a/./b.txt", "..", "a/.."],
)
async def test_no_key_leads_out_of_the_folder(key: str, tmp_path: Path) -> None:
    write(tmp_path, "secret.txt")
    write(tmp_path / "root", "a/b.txt")

    with pytest.raises(NotFound):
        await FolderStore(tmp_path / "root").head(key)


async def test_no_link_leads_out_of_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(tmp_path, "outside/secret.txt")
    write(root, "real/a.txt", b"inside")
    (root / "file.txt").symlink_to(tmp_path / "outside" / "secret.txt")
    (root / "folder").symlink_to(tmp_path / "outside")
    (root / "loop").symlink_to(root)
    (root / "endless.txt").symlink_to(root / "endless.txt")
    (root / "within.txt").symlink_to(root / "real" / "a.txt")
    store = FolderStore(root)

    assert await keys(store) == ["real/a.txt", "within.txt"]
    await store.fetch("within.txt", tmp_path / "into", max_bytes=10)
    assert (tmp_path / "into").read_bytes() == b"inside"
    for key in ("file.txt", "folder/secret.txt", "loop/real/a.txt", "endless.txt"):
        with pytest.raises(NotFound):
            await store.fetch(key, tmp_path / "into", max_bytes=10)


async def test_what_is_no_file_is_no_document(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    write(tmp_path, "a.txt")

    assert await keys(FolderStore(tmp_path)) == ["a.txt"]
    with pytest.raises(NotFound):
        await FolderStore(tmp_path).head("pipe.txt")


async def test_names_of_other_programs_are_ignored(tmp_path: Path) -> None:
    ignored = [
        ".x",
        ".git/a.txt",
        "~$a.docx",
        "a.txt~",
        ".a.swp",
        "a.swx",
        "b.CRDOWNLOAD",
        "c.part",
        "Thumbs.db",
        "#a#",
    ]
    for name in [*ignored, "a.txt", "x~y.txt", "part.txt"]:
        write(tmp_path, name)
    store = FolderStore(tmp_path)

    assert await keys(store) == ["a.txt", "part.txt", "x~y.txt"]
    for name in ignored:
        assert is_ignored(name)
        with pytest.raises(NotFound):
            await store.head(name)


async def test_names_that_cannot_be_stored_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, "a.txt")
    (tmp_path / os.fsdecode(b"broken-\xff.txt")).write_bytes(b"x")
    deep = Path(*["d" * 200] * 6)
    write(tmp_path, str(deep / "far.txt"))

    assert await keys(FolderStore(tmp_path)) == ["a.txt"]


async def test_a_missing_folder_is_no_empty_one(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "unmounted")

    with pytest.raises(UpstreamError, match="folder is not there"):
        await store.head("a.txt")
    with pytest.raises(UpstreamError, match="folder is not there"):
        await keys(store)


@pytest.mark.skipif(IS_ROOT, reason="root may read everything")
async def test_what_may_not_be_read_is_said(tmp_path: Path) -> None:
    write(tmp_path, "a.txt")
    write(tmp_path, "closed/b.txt")
    (tmp_path / "a.txt").chmod(0)
    store = FolderStore(tmp_path)

    with pytest.raises(DocumentError, match="Permission denied"):
        await store.head("a.txt")
    assert await keys(store) == ["a.txt", "closed/b.txt"], "one that cannot be read is there all the same"
    (tmp_path / "closed").chmod(0)
    with pytest.raises(UpstreamError, match="closed"):
        await keys(store)
    (tmp_path / "closed").chmod(0o700)


async def test_a_file_that_changes_under_the_copy_is_read_again(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root, "a.txt", b"a" * 3_000_000)

    class Busy(FolderStore):
        changes = 2

        async def head(self, key: str) -> ObjectInfo:
            if self.changes:
                self.changes -= 1
                write(root, "a.txt", bytes([ord("b") + self.changes]) * 3_000_000)
            return await super().head(key)

    info = await Busy(root).fetch("a.txt", tmp_path / "into", max_bytes=10_000_000)

    assert (tmp_path / "into").read_bytes() == b"b" * 3_000_000
    assert info == await FolderStore(root).head("a.txt")


async def test_a_file_that_never_rests_is_tried_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bonito.clouds.local.READ_PAUSE_S", 0.001)
    root = tmp_path / "root"
    write(root, "a.txt", b"a")

    class Restless(FolderStore):
        async def head(self, key: str) -> ObjectInfo:
            with (root / "a.txt").open("ab") as file:
                file.write(b"a")
            return await super().head(key)

    with pytest.raises(UpstreamError, match="keeps changing") as raised:
        await Restless(root).fetch("a.txt", tmp_path / "into", max_bytes=10_000)
    assert raised.value.retryable


async def test_a_cancelled_copy_leaves_no_descriptor_open(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", b"x" * 20_000_000)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for pause in (0, 0, 0.001, 0.003):
        task = asyncio.create_task(FolderStore(tmp_path).fetch("a.txt", tmp_path / "into", max_bytes=30_000_000))
        await asyncio.sleep(pause)
        task.cancel()
        await asyncio.wait([task])
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + 1


# uploads


async def test_an_upload_lies_below_its_folder_and_nothing_beside_it(tmp_path: Path) -> None:
    store = UploadFolder(tmp_path)
    await store.put("sub/a.txt", pieces(b"three"), max_bytes=7)

    async def broken() -> AsyncIterator[bytes]:
        yield b"new"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await store.put("b.txt", broken(), max_bytes=10)
    with pytest.raises(DocumentTooLarge):
        await store.put("c.txt", pieces(b"1234", b"5678"), max_bytes=7)

    assert (tmp_path / "sub/a.txt").read_bytes() == b"three"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.txt"]


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs a file that not even root may delete")
async def test_a_file_that_stays_is_not_called_deleted(tmp_path: Path) -> None:
    (tmp_path / "uploads").symlink_to("/proc")

    with pytest.raises(UpstreamError, match="cannot be deleted: Operation not permitted"):
        await UploadFolder(tmp_path / "uploads").delete("version")


async def test_a_folder_and_what_is_not_there_are_no_upload_to_delete(tmp_path: Path) -> None:
    write(tmp_path, "a/b.txt")
    store = UploadFolder(tmp_path)

    assert [await store.delete(name) for name in ("a", "a/b.txt/c", "z")] == [False] * 3
    assert await store.delete("a/b.txt")


async def test_a_deleted_upload_takes_its_empty_folders_along(tmp_path: Path) -> None:
    store = UploadFolder(tmp_path / "base")
    await store.put("a/b/c.txt", pieces(b"x"), max_bytes=10)
    await store.put("a/d.txt", pieces(b"x"), max_bytes=10)

    assert await store.delete("a/b/c.txt")
    assert not (tmp_path / "base" / "a" / "b").exists()
    await store.discard()
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "..",
        "../a.txt",
        "a/../b.txt",
        "a\\..\\b.txt",
        "a\0b",
        "a\nb.txt",
        "\x7f.txt",
        ".env",
        "a/.git/config",
        "~$a.docx",
        "x" * 256,
        "/".join(["x" * 200] * 6),
        "\ud800.txt",
    ],
)
async def test_a_name_that_cannot_be_a_documents_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        clean_key(name)
    with pytest.raises(InvalidRequest):
        await UploadFolder(tmp_path).put(name, pieces(b"x"), max_bytes=10)


@pytest.mark.parametrize(
    ("name", "key"),
    [("C:\\docs\\a.txt", "C:/docs/a.txt"), ("/abs/a.txt", "abs/a.txt"), ("cafe\u0301.txt", "café.txt"), ("a b", "a b")],
)
def test_a_name_is_cleaned(name: str, key: str) -> None:
    assert clean_key(name) == key


@given(st.text(max_size=60))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_cleaned_name_is_clean_and_stays_below_the_root(tmp_path: Path, name: str) -> None:
    try:
        key = clean_key(name)
    except InvalidRequest:
        return
    assert clean_key(key) == key
    assert (tmp_path / key).resolve().is_relative_to(tmp_path)
    assert not key.startswith("/")


# the rule of sizes


@given(st.lists(st.binary(max_size=20), max_size=10), st.integers(0, 60))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_never_more_than_the_cap_is_written(tmp_path: Path, content: list[bytes], max_bytes: int) -> None:
    into, whole = tmp_path / "into", b"".join(content)

    async def copy() -> int:
        return await copy_capped(pieces(*content), into, max_bytes=max_bytes)

    if len(whole) > max_bytes:
        with pytest.raises(DocumentTooLarge):
            asyncio.run(copy())
        assert whole.startswith(into.read_bytes())
        assert into.stat().st_size <= max_bytes
    else:
        assert asyncio.run(copy()) == len(whole)
        assert into.read_bytes() == whole
    assert threading.active_count() < 50
