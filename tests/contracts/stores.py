"""What every ObjectStore and every UploadStore does, whatever it lies on: one contract, run by each store's own tests.

A test module has a class of its own that inherits from a contract, and fixtures that make the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest

from bonito.clouds.base import ObjectStore, UploadStore
from bonito.errors import AlreadyExists, DocumentTooLarge, InvalidRequest, NotFound

WRITTEN_AT_ONCE = 16


class Place(Protocol):
    """A store, and the way in which its owner writes to it."""

    @property
    def store(self) -> ObjectStore: ...

    async def write(self, key: str, content: bytes = b"x") -> None: ...


class ObjectStoreContract:
    """For a class with a fixture `place`, a Place that is empty at first."""

    async def test_a_fetched_object_is_the_one_that_head_and_listing_tell_of(
        self, place: Place, tmp_path: Path
    ) -> None:
        into = tmp_path / "into"
        await place.write("a/b c+%é😀.txt", b"content")

        fetched = await place.store.fetch("a/b c+%é😀.txt", into, max_bytes=7)

        assert into.read_bytes() == b"content"
        assert (fetched.key, fetched.size) == ("a/b c+%é😀.txt", 7)
        assert fetched == await place.store.head("a/b c+%é😀.txt")
        assert [fetched] == [info async for info in place.store.list("")]
        assert fetched.modified_at.utcoffset() is not None

    async def test_a_listing_goes_on_behind_any_key(self, place: Place) -> None:
        written = ["a/b.txt", "a/c/d.txt", "a/c/e.txt", "a0.txt", "b.txt", "é.txt"]
        await write_all(place, written)

        for after in ("", "a", "a/", "a/b.txt", "a/c", "a/c/d.txt", "a0.txt", "b.txt", "z"):
            assert await keys(place.store, after=after) == [key for key in written if key > after]
            below = [key for key in written if key > after and key.startswith("a/")]
            assert await keys(place.store, "a/", after=after) == below

    @pytest.mark.parametrize(
        "key", ["b.txt", "folder", "folder/", "folder/b.txt", "folder/a.txt/c", "", ".", "a\0b", "x" * 5000, "\ud83d"]
    )
    async def test_an_absent_object_is_not_found(self, place: Place, tmp_path: Path, key: str) -> None:
        await place.write("folder/a.txt")

        with pytest.raises(NotFound):
            await place.store.head(key)
        with pytest.raises(NotFound):
            await place.store.fetch(key, tmp_path / "into", max_bytes=10)

    async def test_an_object_above_the_cap_is_refused(self, place: Place, tmp_path: Path) -> None:
        into = tmp_path / "into"
        await place.write("a.txt", b"12345678")

        with pytest.raises(DocumentTooLarge, match="at most"):
            await place.store.fetch("a.txt", into, max_bytes=7)
        assert not into.exists() or into.stat().st_size <= 7

    async def test_an_empty_object_is_an_object(self, place: Place, tmp_path: Path) -> None:
        await place.write("a.txt", b"")

        info = await place.store.fetch("a.txt", tmp_path / "into", max_bytes=0)

        assert (info.size, (tmp_path / "into").read_bytes()) == (0, b"")

    async def test_a_version_changes_with_the_content(self, place: Place) -> None:
        await place.write("a.txt", b"one")
        before = await place.store.head("a.txt")
        await place.write("a.txt", b"two")

        assert (await place.store.head("a.txt")).version != before.version

    async def test_a_listing_is_whole_and_in_the_order_of_bytes(self, place: Place) -> None:
        names = ["a.txt", "a/b.txt", "a-b.txt", "a/c/d.txt", "z.txt", "é.txt", "😀/x.txt", "B.txt", "a/b/c.txt"]
        names += ["zz/late/x.txt", *(f"many/{number:04}.txt" for number in range(1005))]
        await write_all(place, names)

        assert await keys(place.store) == sorted(names, key=str.encode)
        assert await keys(place.store, "many/") == sorted(name for name in names if name.startswith("many/"))

    async def test_a_prefix_is_a_beginning_of_keys_and_no_folder(self, place: Place) -> None:
        await write_all(place, ["docs/a.txt", "docs2/b.txt", "do.txt", "other/docs/c.txt", "docs/deep/d.txt"])

        assert await keys(place.store, "docs") == ["docs/a.txt", "docs/deep/d.txt", "docs2/b.txt"]
        assert await keys(place.store, "docs/") == ["docs/a.txt", "docs/deep/d.txt"]
        assert await keys(place.store, "docs/d") == ["docs/deep/d.txt"]
        assert await keys(place.store, "nothing") == []


class UploadStoreContract:
    """For a class with a fixture `uploads`, an UploadStore that is empty at first."""

    async def test_an_upload_appears_whole_and_replaces(self, uploads: UploadStore, tmp_path: Path) -> None:
        first = await uploads.put("sub\\dir/./a.txt", pieces(b"one ", b"two"), max_bytes=7)
        second = await uploads.put("sub/dir/a.txt", pieces(b"three"), max_bytes=7)

        assert first.key == second.key == "sub/dir/a.txt"
        assert first.version != second.version
        assert [info async for info in uploads.list("")] == [second]
        assert await uploads.fetch("sub/dir/a.txt", tmp_path / "into", max_bytes=7) == second
        assert (tmp_path / "into").read_bytes() == b"three"

    async def test_an_upload_above_the_cap_leaves_nothing(self, uploads: UploadStore) -> None:
        with pytest.raises(DocumentTooLarge):
            await uploads.put("a.txt", pieces(b"1234", b"5678"), max_bytes=7)

        assert await keys(uploads) == []

    async def test_a_broken_upload_leaves_what_was_there(self, uploads: UploadStore, tmp_path: Path) -> None:
        await uploads.put("a.txt", pieces(b"old"), max_bytes=10)

        async def broken() -> AsyncIterator[bytes]:
            yield b"new"
            raise ConnectionResetError

        with pytest.raises(ConnectionResetError):
            await uploads.put("a.txt", broken(), max_bytes=10)

        await uploads.fetch("a.txt", tmp_path / "into", max_bytes=10)
        assert (tmp_path / "into").read_bytes() == b"old"
        assert await keys(uploads) == ["a.txt"]

    async def test_a_name_is_a_file_or_a_folder(self, uploads: UploadStore) -> None:
        await uploads.put("a", pieces(b"x"), max_bytes=10)
        await uploads.put("b/c", pieces(b"x"), max_bytes=10)

        with pytest.raises(AlreadyExists):
            await uploads.put("a/b", pieces(b"x"), max_bytes=10)
        with pytest.raises(AlreadyExists):
            await uploads.put("b", pieces(b"x"), max_bytes=10)
        for name in ("a/b", "b"):
            with pytest.raises(AlreadyExists):
                await uploads.check(["new", name])
        await uploads.check(["a", "b/d", "new/e"])
        assert await keys(uploads) == ["a", "b/c"]

    async def test_an_upload_is_deleted_once(self, uploads: UploadStore) -> None:
        await uploads.put("a/b/c.txt", pieces(b"x"), max_bytes=10)
        await uploads.put("a/d.txt", pieces(b"x"), max_bytes=10)

        assert await uploads.delete("a/b/c.txt")
        assert not await uploads.delete("a/b/c.txt")
        assert not await uploads.delete("a")
        assert await keys(uploads) == ["a/d.txt"]

    async def test_nothing_is_left_of_what_is_discarded(self, uploads: UploadStore) -> None:
        await uploads.put("a/b/c.txt", pieces(b"x"), max_bytes=10)
        await uploads.put("d.txt", pieces(b"x"), max_bytes=10)

        await uploads.discard()

        assert await keys(uploads) == []
        await uploads.discard()

    @pytest.mark.parametrize("name", ["", "..", "a/../b.txt", "a\0b", "a\nb.txt", ".env", "x" * 256, "\ud800.txt"])
    async def test_a_name_that_cannot_be_a_documents_is_refused(self, uploads: UploadStore, name: str) -> None:
        with pytest.raises(InvalidRequest):
            await uploads.put(name, pieces(b"x"), max_bytes=10)


async def write_all(place: Place, names: list[str]) -> None:
    for begin in range(0, len(names), WRITTEN_AT_ONCE):
        await asyncio.gather(*(place.write(name) for name in names[begin : begin + WRITTEN_AT_ONCE]))


async def keys(store: ObjectStore, prefix: str = "", *, after: str = "") -> list[str]:
    return [info.key async for info in store.list(prefix, after=after)]


async def pieces(*content: bytes) -> AsyncIterator[bytes]:
    for piece in content:
        yield piece
