"""Blob Storage as Azurite plays it: whatever is in the container is found, and read as it was at one moment."""

from __future__ import annotations

import asyncio
import hashlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from azure.storage.blob import ContainerSasPermissions, generate_container_sas
from azure.storage.blob.aio import ContainerClient

from bonito.clouds.azure.credentials import AccountKey, storage_access
from bonito.clouds.azure.store import BlobStore
from bonito.errors import AccessDenied, DocumentError, DocumentTooLarge, InvalidRequest, NotFound
from tests.emulators.azurite import ACCOUNT, KEY, Azurite

MIB = 2**20
ODD_KEYS = [
    "a b.txt",
    "größe/日本語 + 1.md",
    "a//b.md",
    "100%.txt",
    "a%20b.txt",
    "what?#.md",
    "gem💎.md",
    "plus+and&amp=.md",
    "'quoted' \"twice\".md",
    "~tilde^caret.md",
    "é.md",
    "e\u0301.md",
]


async def put(container: ContainerClient, *keys: str, content: bytes = b"text") -> None:
    await asyncio.gather(*(container.upload_blob(key, content, overwrite=True) for key in keys))


async def keys_of(store: BlobStore, prefix: str = "", *, after: str = "") -> list[str]:
    return [info.key async for info in store.list(prefix, after=after)]


async def test_a_blob_is_read_whole_with_the_version_that_the_listing_tells(
    store: BlobStore, container: ContainerClient, tmp_path: Path
) -> None:
    await put(container, "hr/a.txt", content=b"hello")

    info = await store.fetch("hr/a.txt", tmp_path / "a", max_bytes=5)

    assert (tmp_path / "a").read_bytes() == b"hello"
    assert [listed async for listed in store.list("")] == [info] == [await store.head("hr/a.txt")]
    assert (info.key, info.size) == ("hr/a.txt", 5)
    assert info.modified_at.tzinfo is UTC


async def test_the_version_changes_with_the_content(store: BlobStore, container: ContainerClient) -> None:
    await put(container, "a.txt", content=b"one")
    before = await store.head("a.txt")
    await put(container, "a.txt", content=b"two")

    assert (await store.head("a.txt")).version != before.version


@pytest.mark.parametrize("key", ODD_KEYS)
async def test_an_odd_key_is_listed_and_read_as_itself(
    store: BlobStore, container: ContainerClient, tmp_path: Path, key: str
) -> None:
    await put(container, key, content=key.encode())

    assert await keys_of(store) == [key]
    await store.fetch(key, tmp_path / "a", max_bytes=100)
    assert (tmp_path / "a").read_text() == key


async def test_a_listing_is_complete_and_in_the_order_of_bytes(store: BlobStore, container: ContainerClient) -> None:
    keys = [f"f{number:04}.md" for number in range(1000)] + [f"z/late/{number}.md" for number in range(5)]
    keys += ["a.txt", "a/b.txt", "a-b.txt", "A.txt", "é.txt", "日.txt"]
    for begin in range(0, len(keys), 100):
        await put(container, *keys[begin : begin + 100])

    assert await keys_of(store) == sorted(keys, key=str.encode)
    assert await keys_of(store, "z/") == [f"z/late/{number}.md" for number in range(5)]
    assert await keys_of(store, "f", after="f0997.md") == ["f0998.md", "f0999.md"]
    assert await keys_of(store, "z/", after="a") == [f"z/late/{number}.md" for number in range(5)]
    assert await keys_of(store, "nothing/") == []


async def test_a_directorys_mark_is_no_document_and_what_follows_it_stays_in_order(
    store: BlobStore, container: ContainerClient
) -> None:
    """As Hadoop leaves them on an account without a hierarchical namespace."""
    files = ["a.txt", "d-e.txt", "d.txt", "d/1.txt", "d/e/2.txt", "d/e0.txt", "d0.txt", "z.txt"]
    await put(container, *files)
    for folder in ("d", "d/e"):
        await container.upload_blob(folder, b"", metadata={"hdi_isfolder": "true"})

    assert await keys_of(store) == sorted(files, key=str.encode)
    assert await keys_of(store, after="d/1.txt") == ["d/e/2.txt", "d/e0.txt", "d0.txt", "z.txt"]
    assert await keys_of(store, "d/") == ["d/1.txt", "d/e/2.txt", "d/e0.txt"]
    with pytest.raises(NotFound):
        await store.head("d")


@pytest.mark.parametrize("size", [0, 1, 4 * MIB, 4 * MIB + 1, 9 * MIB + 7])
async def test_a_blob_of_any_size_comes_in_ranges_without_a_gap(
    store: BlobStore, container: ContainerClient, tmp_path: Path, size: int
) -> None:
    content = os.urandom(size)
    await put(container, "a.bin", content=content)

    info = await store.fetch("a.bin", tmp_path / "a", max_bytes=10 * MIB)

    assert info.size == size
    assert hashlib.sha256((tmp_path / "a").read_bytes()).digest() == hashlib.sha256(content).digest()


async def test_a_blob_one_byte_above_the_limit_is_not_read_at_all(
    store: BlobStore, container: ContainerClient, tmp_path: Path
) -> None:
    await put(container, "a.bin", content=bytes(MIB + 1))

    with pytest.raises(DocumentTooLarge, match="at most 1"):
        await store.fetch("a.bin", tmp_path / "a", max_bytes=MIB)

    assert not (tmp_path / "a").exists()


async def test_a_compressed_blob_is_read_as_it_lies_there(
    store: BlobStore, container: ContainerClient, tmp_path: Path
) -> None:
    from azure.storage.blob import ContentSettings

    await container.upload_blob("a.gz", b"\x1f\x8b no gzip", content_settings=ContentSettings(content_encoding="gzip"))

    await store.fetch("a.gz", tmp_path / "a", max_bytes=100)

    assert (tmp_path / "a").read_bytes() == b"\x1f\x8b no gzip"


async def test_what_is_not_there_is_not_found(store: BlobStore, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"nothing\.txt"):
        await store.head("nothing.txt")
    with pytest.raises(NotFound):
        await store.fetch("nothing.txt", tmp_path / "a", max_bytes=1)


@pytest.mark.parametrize("key", ["../other/a.txt", "a/../../b", "./a", "a/."])
async def test_a_key_that_climbs_is_never_asked_for(store: BlobStore, tmp_path: Path, key: str) -> None:
    with pytest.raises(DocumentError):
        await store.head(key)
    with pytest.raises(DocumentError):
        await store.fetch(key, tmp_path / "a", max_bytes=1)


async def test_a_container_that_is_gone_is_told_apart(emulator: Azurite, tmp_path: Path) -> None:
    store = BlobStore(ACCOUNT, "nowhere", access=emulator.access, endpoint_url=emulator.blob_url)

    for call in (store.head("a"), store.fetch("a", tmp_path / "a", max_bytes=1), keys_of(store)):
        with pytest.raises(AccessDenied, match="no container nowhere in the storage account devstoreaccount1"):
            await call


async def test_a_wrong_key_is_refused(emulator: Azurite, container: ContainerClient) -> None:
    access = AccountKey(ACCOUNT, "d3Jvbmc=")
    store = BlobStore(ACCOUNT, container.container_name, access=access, endpoint_url=emulator.blob_url)

    with pytest.raises(AccessDenied, match="refuses us"):
        await keys_of(store)


async def test_a_signature_reads_what_it_allows_and_says_what_it_does_not(
    emulator: Azurite, container: ContainerClient, tmp_path: Path
) -> None:
    await put(container, "a.txt")
    query = generate_container_sas(
        ACCOUNT,
        container.container_name,
        account_key=KEY,
        permission=ContainerSasPermissions(read=True),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )
    access = storage_access(ACCOUNT, f"?{query}\n")
    store = BlobStore(ACCOUNT, container.container_name, access=access, endpoint_url=emulator.blob_url)

    assert (await store.fetch("a.txt", tmp_path / "a", max_bytes=10)).size == 4
    with pytest.raises(AccessDenied):
        await keys_of(store)


def test_a_secret_is_a_signature_or_else_a_key() -> None:
    assert storage_access("a", " c2VjcmV0 ") == AccountKey("a", "c2VjcmV0")
    assert "c2VjcmV0" not in repr(storage_access("a", "c2VjcmV0"))
    assert "sig" not in repr(storage_access("a", "sv=1&sig=abc"))


@pytest.mark.parametrize("account", ["", "ab", "UPPER", "evil.example/", "a" * 25, "under_score"])
def test_a_name_that_is_no_accounts_is_refused(account: str) -> None:
    with pytest.raises(InvalidRequest):
        BlobStore(account, "docs", access=AccountKey(account, ""))
