"""Cloud Storage as it answers: against fake-gcs-server, filled by Google's own client."""

from __future__ import annotations

import gzip
import hashlib
import os
import random
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import aiohttp
import pytest
from yarl import URL

from bonito.clouds.gcp.addresses import KeySigner
from bonito.clouds.gcp.store import READ, GcsStore, GcsUploads
from bonito.errors import AccessDenied, AlreadyExists, DocumentError, DocumentTooLarge, InvalidRequest, NotFound
from tests.emulators.gcs import CloudStorage
from tests.emulators.google import StaticAccess
from tests.emulators.keys import service_account_key

if TYPE_CHECKING:
    from google.cloud.storage import Bucket

ODD_NAMES = [
    "a/b c+%é😀.txt",
    "100%25.md",
    "a+b&c=d?e#f.md",
    "日本/資料 (1).md",
    "a//b/../c.md",
    "'\"<>\\|.md",
    ".hidden",
    "tab\tin.md",
    "x" * 1024,
]


@pytest.fixture
def bucket(storage: CloudStorage) -> Bucket:
    return storage.bucket(f"docs-{uuid4().hex[:8]}")


@pytest.fixture
def store(storage: CloudStorage, bucket: Bucket) -> GcsStore:
    return GcsStore(bucket.name, access=StaticAccess(), endpoint_url=storage.url)


@pytest.fixture
def uploads(storage: CloudStorage, bucket: Bucket) -> GcsUploads:
    signer = KeySigner(service_account_key())
    return GcsUploads(bucket.name, "org/base/", access=StaticAccess(), signer=signer, endpoint_url=storage.url)


async def pieces(*content: bytes) -> AsyncIterator[bytes]:
    for piece in content:
        yield piece


async def test_a_fetched_object_is_the_one_that_head_and_listing_tell_of(
    store: GcsStore, bucket: Bucket, tmp_path: Path
) -> None:
    bucket.blob("a/b c+%é😀.txt").upload_from_string(b"content")

    fetched = await store.fetch("a/b c+%é😀.txt", tmp_path / "into", max_bytes=7)

    assert (tmp_path / "into").read_bytes() == b"content"
    assert fetched.size == 7
    assert fetched == await store.head("a/b c+%é😀.txt")
    assert [fetched] == [info async for info in store.list("")]
    assert fetched.modified_at.utcoffset() == timedelta()


@pytest.mark.parametrize("name", ODD_NAMES)
async def test_every_name_is_found_as_it_is(store: GcsStore, bucket: Bucket, tmp_path: Path, name: str) -> None:
    bucket.blob(name).upload_from_string(name.encode())

    info = await store.fetch(name, tmp_path / "into", max_bytes=4096)

    assert info.key == name
    assert (tmp_path / "into").read_bytes() == name.encode()
    assert [found.key async for found in store.list(name)] == [name]


@pytest.mark.parametrize("after", ["", "a", "a/", "a/b.txt", "a/c", "a/c/d.txt", "a0.txt", "b.txt", "z"])
async def test_a_listing_goes_on_behind_any_key(store: GcsStore, bucket: Bucket, after: str) -> None:
    written = ["a/b.txt", "a/c/d.txt", "a/c/e.txt", "a0.txt", "b.txt", "é.txt"]
    for key in written:
        bucket.blob(key).upload_from_string(b"x")

    assert [info.key async for info in store.list("", after=after)] == [key for key in written if key > after]
    assert [info.key async for info in store.list("a/", after=after)] == [
        key for key in written if key > after and key.startswith("a/")
    ]


async def test_a_listing_comes_to_its_end_in_the_order_of_bytes(
    store: GcsStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bonito.clouds.gcp.store.PAGE", 4)
    names = [f"{folder}/{number:02}.md" for folder in ("a", "Z", "zz", "ü", "😀", "\uffee") for number in range(5)]
    for name in random.Random(0).sample(names, len(names)):
        bucket.blob(name).upload_from_string(b"x")

    assert [info.key async for info in store.list("")] == sorted(names, key=str.encode)


@pytest.mark.parametrize("key", ["b.txt", "folder", "folder/", "folder/b.txt", "", ".", "..", "a\0b", "x" * 5000])
async def test_an_absent_object_is_not_found(store: GcsStore, bucket: Bucket, tmp_path: Path, key: str) -> None:
    bucket.blob("folder/a.txt").upload_from_string(b"x")

    with pytest.raises(NotFound):
        await store.head(key)
    with pytest.raises(NotFound):
        await store.fetch(key, tmp_path / "into", max_bytes=10)


async def test_a_bucket_that_is_gone_does_not_look_like_an_object_that_is(
    storage: CloudStorage, tmp_path: Path
) -> None:
    store = GcsStore("no-such-bucket", access=StaticAccess(), endpoint_url=storage.url)

    for attempt in (store.head("a.txt"), store.fetch("a.txt", tmp_path / "into", max_bytes=10)):
        with pytest.raises(AccessDenied, match="no bucket no-such-bucket"):
            await attempt
    with pytest.raises(AccessDenied, match="no bucket no-such-bucket"):
        [info async for info in store.list("")]


async def test_one_byte_above_the_cap_is_too_large_and_nothing_is_written(
    store: GcsStore, bucket: Bucket, tmp_path: Path
) -> None:
    content = os.urandom(3 * 2**20)
    bucket.blob("big.bin").upload_from_string(content)

    with pytest.raises(DocumentTooLarge):
        await store.fetch("big.bin", tmp_path / "into", max_bytes=len(content) - 1)
    assert (tmp_path / "into").stat().st_size == 0
    assert (await store.fetch("big.bin", tmp_path / "into", max_bytes=len(content))).size == len(content)
    assert (tmp_path / "into").read_bytes() == content


async def test_an_empty_object_is_fetched(store: GcsStore, bucket: Bucket, tmp_path: Path) -> None:
    bucket.blob("empty").upload_from_string(b"")

    assert (await store.fetch("empty", tmp_path / "into", max_bytes=10)).size == 0
    assert (tmp_path / "into").read_bytes() == b""


async def test_what_was_stored_packed_is_unpacked_within_the_cap(
    store: GcsStore, bucket: Bucket, tmp_path: Path
) -> None:
    text = b"The leave policy. " * 100_000
    blob = bucket.blob("policy.txt")
    blob.content_encoding = "gzip"
    blob.upload_from_string(gzip.compress(text[:1000]) + gzip.compress(text[1000:]))

    info = await store.fetch("policy.txt", tmp_path / "into", max_bytes=len(text))

    assert (tmp_path / "into").read_bytes() == text
    assert info.size == len(text)
    with pytest.raises(DocumentTooLarge):
        await store.fetch("policy.txt", tmp_path / "into", max_bytes=len(text) - 1)


async def test_a_new_content_is_a_new_version(store: GcsStore, bucket: Bucket) -> None:
    bucket.blob("a.txt").upload_from_string(b"one")
    before = await store.head("a.txt")
    bucket.blob("a.txt").upload_from_string(b"two")

    assert (await store.head("a.txt")).version != before.version


async def test_a_customers_bucket_is_read_with_a_token_that_cannot_write(storage: CloudStorage, bucket: Bucket) -> None:
    access = StaticAccess()
    store = GcsStore(bucket.name, access=access, endpoint_url=storage.url)

    assert [info async for info in store.list("")] == []
    assert set(access.scopes) == {READ}


# uploads


async def test_an_upload_is_stored_whole_below_its_prefix(uploads: GcsUploads, bucket: Bucket, tmp_path: Path) -> None:
    stored = await uploads.put("hr\\größe+1%.md", pieces(b"abc", b"def"), max_bytes=6)

    assert stored.key == "hr/größe+1%.md"
    assert bucket.blob("org/base/hr/größe+1%.md").download_as_bytes() == b"abcdef"
    assert stored == await uploads.head(stored.key) == await uploads.fetch(stored.key, tmp_path / "i", max_bytes=6)
    assert [stored] == [info async for info in uploads.list("hr/")]
    assert [info async for info in uploads.list("", after=stored.key)] == []


async def test_an_upload_above_the_cap_leaves_what_was_there(uploads: GcsUploads, bucket: Bucket) -> None:
    await uploads.put("a.md", pieces(b"old"), max_bytes=3)

    with pytest.raises(DocumentTooLarge):
        await uploads.put("a.md", pieces(b"x" * 2**20, b"y"), max_bytes=2**20)
    with pytest.raises(DocumentTooLarge):
        await uploads.put("b.md", pieces(b"1234"), max_bytes=3)
    assert [blob.name for blob in bucket.list_blobs()] == ["org/base/a.md"]
    assert bucket.blob("org/base/a.md").download_as_bytes() == b"old"


async def test_an_upload_that_breaks_off_leaves_nothing_and_says_why(uploads: GcsUploads, bucket: Bucket) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        raise ConnectionResetError("the caller left")

    with pytest.raises(ConnectionResetError, match="the caller left"):
        await uploads.put("a.md", breaking(), max_bytes=2**20)
    assert list(bucket.list_blobs()) == []


@pytest.mark.parametrize("name", ["", "../a.md", ".hidden", "a\nb"])
async def test_a_name_that_cannot_be_a_documents_is_refused(uploads: GcsUploads, name: str) -> None:
    with pytest.raises(InvalidRequest):
        await uploads.put(name, pieces(b"x"), max_bytes=10)


async def test_deleting_tells_whether_there_was_a_file(uploads: GcsUploads, bucket: Bucket) -> None:
    await uploads.put("a.md", pieces(b"x"), max_bytes=10)

    assert await uploads.delete("a.md") is True
    assert await uploads.delete("a.md") is False
    assert list(bucket.list_blobs()) == []


async def test_discarding_removes_everything_of_one_base_alone(uploads: GcsUploads, bucket: Bucket) -> None:
    for number in range(25):
        await uploads.put(f"{number}.md", pieces(b"x"), max_bytes=10)
    bucket.blob("org/base2/kept.md").upload_from_string(b"x")

    await uploads.discard()

    assert [blob.name for blob in bucket.list_blobs()] == ["org/base2/kept.md"]


async def test_whoever_has_a_signed_address_may_put_that_file(uploads: GcsUploads, bucket: Bucket) -> None:
    signed = await uploads.signed_upload(
        "hr/größe 1.md", size=5, sha256=hashlib.sha256(b"hello").digest(), expires=timedelta(minutes=10)
    )

    address = URL(signed.address, encoded=True)
    async with aiohttp.ClientSession() as http, http.put(address, data=b"hello", headers=signed.headers) as response:
        assert response.status == 200
    assert bucket.blob("org/base/hr/größe 1.md").download_as_bytes() == b"hello"


async def test_what_only_claims_to_be_packed_is_an_error_of_the_document(
    store: GcsStore, bucket: Bucket, tmp_path: Path
) -> None:
    blob = bucket.blob("cut.txt")
    blob.content_encoding = "gzip"
    blob.upload_from_string(gzip.compress(os.urandom(1000))[:-20])

    with pytest.raises(DocumentError, match="ends too early"):
        await store.fetch("cut.txt", tmp_path / "into", max_bytes=10_000)


async def test_a_name_is_a_file_or_a_folder(uploads: GcsUploads) -> None:
    await uploads.put("a", pieces(b"x"), max_bytes=10)
    await uploads.put("b/c", pieces(b"x"), max_bytes=10)

    with pytest.raises(AlreadyExists):
        await uploads.put("a/b/c", pieces(b"x"), max_bytes=10)
    with pytest.raises(AlreadyExists):
        await uploads.put("b", pieces(b"x"), max_bytes=10)
    assert [info.key async for info in uploads.list("")] == ["a", "b/c"]
