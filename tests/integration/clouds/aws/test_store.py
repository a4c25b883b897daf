"""S3 stores against moto's S3: the contract of every store, and what only S3 has."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bonito.clouds.aws.store import S3Store, S3Uploads
from bonito.clouds.base import ObjectStore
from bonito.errors import AccessDenied, DocumentTooLarge, NotFound
from tests.contracts.stores import ObjectStoreContract, UploadStoreContract, keys, pieces
from tests.emulators.moto import REGION, StaticAccess

FIFTY_MIB = 50 * 2**20


@dataclass
class Written:
    """A store over a bucket that its owner writes to."""

    store: ObjectStore
    s3: Any
    bucket: str
    prefix: str = ""

    async def write(self, key: str, content: bytes = b"x") -> None:
        await self.s3.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=content)


@pytest.fixture
def place(s3: Any, bucket: str, aws_url: str) -> Written:
    return Written(store_of(bucket, aws_url), s3, bucket)


def store_of(bucket: str, url: str) -> S3Store:
    return S3Store(bucket, access=StaticAccess(), region=REGION, endpoint_url=url)


class TestS3Store(ObjectStoreContract):
    """With the fixture `place` of this module."""


class TestS3Uploads(ObjectStoreContract, UploadStoreContract):
    @pytest.fixture
    async def uploads(self, s3: Any, bucket: str, aws_url: str) -> S3Uploads:
        for neighbour in ("uploads/org/base", "uploads/org/base2/a.txt", "a.txt"):
            await s3.put_object(Bucket=bucket, Key=neighbour, Body=b"x")
        return S3Uploads(bucket, "uploads/org/base/", region=REGION, endpoint_url=aws_url)

    @pytest.fixture
    def place(self, uploads: S3Uploads, s3: Any, bucket: str) -> Written:
        return Written(uploads, s3, bucket, "uploads/org/base/")

    async def test_discarding_takes_nothing_of_others(self, uploads: S3Uploads, bucket: str, aws_url: str) -> None:
        await uploads.put("a.txt", pieces(b"x"), max_bytes=1)

        await uploads.discard()

        assert await keys(store_of(bucket, aws_url)) == ["a.txt", "uploads/org/base", "uploads/org/base2/a.txt"]

    async def test_more_files_are_discarded_than_one_request_deletes(self, uploads: S3Uploads, place: Written) -> None:
        for begin in range(0, 1001, 91):
            await asyncio.gather(*(place.write(f"{number:04}.txt") for number in range(begin, min(begin + 91, 1001))))
        assert len(await keys(uploads)) == 1001

        await uploads.discard()

        assert await keys(uploads) == []

    async def test_a_signed_address_takes_a_file_from_somebody_without_credentials(
        self, uploads: S3Uploads, tmp_path: Path
    ) -> None:
        content = b"signed content"
        signed = await uploads.signed_upload(
            "sub/a b+%é😀.txt",
            size=len(content),
            sha256=hashlib.sha256(content).digest(),
            expires=timedelta(minutes=5),
        )

        putting = aiohttp.request("PUT", signed.address, data=content, headers=signed.headers)
        async with putting as answer:
            assert answer.status == 200

        info = await uploads.fetch("sub/a b+%é😀.txt", tmp_path / "into", max_bytes=100)
        assert (info.size, (tmp_path / "into").read_bytes()) == (len(content), content)

    async def test_a_signed_address_holds_size_and_checksum(self, uploads: S3Uploads) -> None:
        signed = await uploads.signed_upload("a.txt", size=5, sha256=bytes(32), expires=timedelta(minutes=5))

        assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in signed.address
        assert "X-Amz-Expires=300" in signed.address
        assert "X-Amz-SignedHeaders=content-length%3Bhost" in signed.address
        assert "x-amz-checksum-sha256" in signed.address.lower()
        assert signed.headers["content-length"] == "5"
        assert signed.address not in repr(signed)


@pytest.mark.parametrize(
    "key", ["a/../b", "./a", "a//b", ".", "..", "/a", "a b+%41é😀?#&=.txt", "a\x01b", "ä" * 512, "~user/*'()!"]
)
async def test_every_key_that_s3_takes_is_read_as_it_is(place: Written, tmp_path: Path, key: str) -> None:
    await place.write(key, key.encode())

    info = await place.store.fetch(key, tmp_path / "into", max_bytes=2000)

    assert (tmp_path / "into").read_bytes() == key.encode()
    assert [info] == [each async for each in place.store.list("")]


async def test_the_largest_document_is_fetched_and_one_a_byte_above_is_refused_unread(
    place: Written, tmp_path: Path
) -> None:
    into = tmp_path / "into"
    await place.write("largest.bin", bytes(FIFTY_MIB))
    await place.write("above.bin", bytes(FIFTY_MIB + 1))

    info = await place.store.fetch("largest.bin", into, max_bytes=FIFTY_MIB)
    assert info.size == into.stat().st_size == FIFTY_MIB
    into.unlink()
    with pytest.raises(DocumentTooLarge, match=r"has 50\.0 MiB; at most 50\.0 MiB"):
        await place.store.fetch("above.bin", into, max_bytes=FIFTY_MIB)
    assert not into.exists()


async def test_the_present_version_is_what_a_bucket_with_versions_holds(place: Written, tmp_path: Path) -> None:
    versioning = {"Status": "Enabled"}
    await place.s3.put_bucket_versioning(Bucket=place.bucket, VersioningConfiguration=versioning)
    await place.write("a.txt", b"one")
    await place.write("a.txt", b"two")
    await place.store.fetch("a.txt", tmp_path / "into", max_bytes=10)
    assert (tmp_path / "into").read_bytes() == b"two"

    await place.s3.delete_object(Bucket=place.bucket, Key="a.txt")  # leaves a delete marker

    with pytest.raises(NotFound):
        await place.store.head("a.txt")
    with pytest.raises(NotFound):
        await place.store.fetch("a.txt", tmp_path / "into", max_bytes=10)
    assert await keys(place.store) == []


async def test_a_key_with_a_nul_is_left_out_of_listings(place: Written) -> None:
    await place.write("a\0b.txt")
    await place.write("c.txt")

    assert await keys(place.store) == ["c.txt"]


async def test_a_missing_bucket_is_no_missing_object(aws_url: str, tmp_path: Path) -> None:
    store = store_of("nobody-has-it", aws_url)

    for call in (store.head("a"), store.fetch("a", tmp_path / "into", max_bytes=1), keys(store)):
        with pytest.raises(AccessDenied, match="bucket nobody-has-it does not exist"):
            await call


async def test_what_cannot_be_a_buckets_name_is_said(aws_url: str) -> None:
    with pytest.raises(AccessDenied, match="cannot be the name of a bucket"):
        await keys(store_of("Not A Bucket!", aws_url))
