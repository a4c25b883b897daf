"""The deployment's own container: each knowledge base's uploads below a prefix of its own, whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
from azure.storage.blob.aio import ContainerClient

from bonito.clouds.azure.store import AzureUploads
from bonito.errors import AlreadyExists, DocumentTooLarge, InvalidRequest, NotFound, UpstreamError
from tests.emulators.azurite import ACCOUNT, Azurite

MIB = 2**20


@pytest.fixture
def uploads(emulator: Azurite, container: ContainerClient) -> AzureUploads:
    return below("org/kb/", emulator, container)


def below(prefix: str, emulator: Azurite, container: ContainerClient) -> AzureUploads:
    bucket = f"{ACCOUNT}/{container.container_name}"
    return AzureUploads(bucket, prefix, access=emulator.access, endpoint_url=emulator.blob_url)


async def pieces(*content: bytes) -> AsyncIterator[bytes]:
    for piece in content:
        yield piece


async def keys_of(uploads: AzureUploads) -> list[str]:
    return [info.key async for info in uploads.list("")]


async def test_an_upload_is_read_back_under_its_cleaned_name(uploads: AzureUploads, tmp_path: Path) -> None:
    stored = await uploads.put("hr\\./Plan e\u0301.md", pieces(b"he", b"llo"), max_bytes=5)

    assert (stored.key, stored.size) == ("hr/Plan é.md", 5)
    assert stored == await uploads.head("hr/Plan é.md") == await uploads.fetch(stored.key, tmp_path / "a", max_bytes=5)
    assert (tmp_path / "a").read_bytes() == b"hello"
    assert [info async for info in uploads.list("hr/")] == [stored]
    assert [info async for info in uploads.list("", after="hr/Plan é.md")] == []


async def test_an_upload_replaces_the_one_before_it(uploads: AzureUploads, tmp_path: Path) -> None:
    first = await uploads.put("a.md", pieces(b"one"), max_bytes=5)
    second = await uploads.put("a.md", pieces(bytes(3 * MIB), b"x"), max_bytes=4 * MIB)

    assert first.version != second.version
    assert await uploads.head("a.md") == second
    assert second.size == 3 * MIB + 1


async def test_nothing_stays_of_an_upload_above_the_limit(uploads: AzureUploads) -> None:
    with pytest.raises(DocumentTooLarge):
        await uploads.put("a.md", pieces(bytes(2 * MIB), b"x"), max_bytes=2 * MIB)

    assert await keys_of(uploads) == []


async def test_nothing_stays_of_an_upload_that_breaks_off(uploads: AzureUploads) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield bytes(2 * MIB)
        raise ConnectionError("the caller left")

    with pytest.raises(ConnectionError):
        await uploads.put("a.md", broken(), max_bytes=9 * MIB)

    assert await keys_of(uploads) == []


@pytest.mark.parametrize(("there", "name"), [("a/b.md", "a"), ("a", "a/b.md"), ("a", "a/b/c.md")])
async def test_a_name_is_not_a_file_and_a_folder_at_once(uploads: AzureUploads, there: str, name: str) -> None:
    await uploads.put(there, pieces(b"x"), max_bytes=5)

    with pytest.raises(AlreadyExists):
        await uploads.put(name, pieces(b"x"), max_bytes=5)

    assert await keys_of(uploads) == [there]


@pytest.mark.parametrize("name", ["../a.md", "", ".hidden"])
async def test_a_name_that_cannot_be_a_documents_is_refused(uploads: AzureUploads, name: str) -> None:
    with pytest.raises(InvalidRequest):
        await uploads.put(name, pieces(b"x"), max_bytes=5)


async def test_one_bases_uploads_are_none_of_anothers(emulator: Azurite, container: ContainerClient) -> None:
    mine, other = below("org/kb/", emulator, container), below("org/kb2/", emulator, container)
    for each in (mine, other):
        await each.put("a.md", pieces(b"x"), max_bytes=5)

    await mine.discard()

    assert await keys_of(mine) == []
    assert await keys_of(other) == ["a.md"]


async def test_more_files_than_one_call_removes_are_discarded(
    uploads: AzureUploads, container: ContainerClient
) -> None:
    for number in range(300):
        await container.upload_blob(f"org/kb/{number}", b"")

    await uploads.discard()

    assert await keys_of(uploads) == []


async def test_a_removed_file_is_gone_and_tells_whether_it_was_there(uploads: AzureUploads) -> None:
    await uploads.put("a.md", pieces(b"x"), max_bytes=5)

    assert await uploads.delete("a.md")
    assert not await uploads.delete("a.md")
    with pytest.raises(NotFound):
        await uploads.head("a.md")


async def test_a_signed_address_takes_that_one_file_and_nothing_else(uploads: AzureUploads) -> None:
    content = b"uploaded without a key"
    signed = await uploads.signed_upload(
        "hr/Plan é.md", size=len(content), sha256=hashlib.sha256(content).digest(), expires=timedelta(minutes=10)
    )

    async with aiohttp.ClientSession() as session:
        async with session.put(signed.address, data=content, headers=signed.headers) as response:
            assert response.status == 201, await response.text()
        other = signed.address.replace("Plan", "Plot")
        async with session.put(other, data=content, headers=signed.headers) as response:
            assert response.status == 403
        async with session.get(signed.address) as response:
            assert response.status == 403

    assert (await uploads.head("hr/Plan é.md")).size == len(content)
    assert "sig" not in repr(signed)


async def test_a_signed_address_ends(uploads: AzureUploads) -> None:
    signed = await uploads.signed_upload("a.md", size=1, sha256=bytes(32), expires=timedelta(minutes=-1))

    async with (
        aiohttp.ClientSession() as session,
        session.put(signed.address, data=b"x", headers=signed.headers) as response,
    ):
        assert response.status == 403


async def test_what_is_not_removed_is_not_called_removed(emulator: Azurite, container: ContainerClient) -> None:
    await container.upload_blob("org/kb/held.md", b"x")
    lease = await container.get_blob_client("org/kb/held.md").acquire_lease()

    with pytest.raises(UpstreamError, match="could not be removed"):
        await below("org/kb/", emulator, container).discard()

    await lease.release()
