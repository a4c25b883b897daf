"""What goes wrong at a storage account ends in a sentence that says what, or is borne."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bonito.clouds.azure.credentials import AccountKey
from bonito.clouds.azure.failures import DENIED, DOCUMENT
from bonito.clouds.azure.store import BlobStore
from bonito.errors import AccessDenied, DocumentError, NotFound, UpstreamError
from tests.integration.clouds.azure import blob_service
from tests.integration.clouds.azure.blob_service import BlobService

MIB = 2**20
KEY = AccountKey("customer", "a2V5")


@pytest.fixture
async def service() -> AsyncIterator[BlobService]:
    async with blob_service.serving() as started:
        yield started


@pytest.fixture
def store(service: BlobService) -> BlobStore:
    return BlobStore("customer", "docs", access=KEY, endpoint_url=service.url)


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (403, "AuthorizationPermissionMismatch", "Storage Blob Data Reader"),
        (403, "AuthorizationFailure", "network rules"),
        (403, "AuthenticationFailed", "does not accept the credential"),
        (401, "InvalidAuthenticationInfo", "another tenant"),
        (401, "NoAuthenticationInformation", "without a credential"),
        (403, "KeyBasedAuthenticationNotPermitted", "does not allow access by its key"),
        (403, "AccountIsDisabled", "disabled"),
        (404, "ContainerNotFound", "no container docs"),
        (403, "KeyVaultEncryptionKeyNotFound", "not in the key vault"),
        (403, "KeyVaultAccessTokenCannotBeAcquired", "let into the key vault"),
        (403, "KeyVaultVaultNotFound", "key vault is not there"),
        (403, "SomethingNew", r"refuses access to docs \(SomethingNew\)"),
    ],
)
async def test_a_refusal_says_what_is_missing_in_the_account(
    service: BlobService, store: BlobStore, tmp_path: Path, status: int, code: str, says: str
) -> None:
    service.refusal = (status, code, {})

    with pytest.raises(AccessDenied, match=says):
        await store.fetch("a.txt", tmp_path / "a", max_bytes=1)
    with pytest.raises(AccessDenied, match=says):
        _ = [info async for info in store.list("")]


def test_each_refusal_has_a_sentence_of_its_own() -> None:
    assert len(set(DENIED.values()) | set(DOCUMENT.values())) == len(DENIED) + len(DOCUMENT)
    assert all("customer" in sentence.format(account="customer", container="docs") for sentence in DENIED.values())


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("BlobArchived", "archive tier"),
        ("BlobBeingRehydrated", "takes hours"),
        ("BlobUsesCustomerSpecifiedEncryption", "only its writer"),
    ],
)
async def test_a_blob_that_cannot_be_read_is_the_documents_own_trouble(
    service: BlobService, store: BlobStore, tmp_path: Path, code: str, says: str
) -> None:
    service.refusal = (409, code, {})

    with pytest.raises(DocumentError, match=says):
        await store.fetch("a.txt", tmp_path / "a", max_bytes=1)


async def test_a_busy_account_says_when_to_come_back(service: BlobService, store: BlobStore) -> None:
    service.refusal = (503, "ServerBusy", {"Retry-After": "7"})

    with pytest.raises(UpstreamError, match="too much") as caught:
        await store.head("a.txt")

    assert caught.value.retry_after_s == 7
    assert not isinstance(caught.value, AccessDenied)
    assert len(service.asked) == 3


async def test_an_unforeseen_answer_is_retryable(service: BlobService, store: BlobStore) -> None:
    service.refusal = (400, "InvalidHeaderValue", {})

    with pytest.raises(UpstreamError, match="status 400") as caught:
        await store.head("a.txt")

    assert caught.value.retryable


async def test_an_account_that_nobody_answers_for_is_unreachable(service: BlobService) -> None:
    store = BlobStore("customer", "docs", access=KEY, endpoint_url="http://127.0.0.1:1")

    with pytest.raises(UpstreamError, match="cannot be reached"):
        await store.head("a.txt")


async def test_a_body_that_breaks_off_is_resumed_where_it_broke(
    service: BlobService, store: BlobStore, tmp_path: Path
) -> None:
    service.content = os.urandom(9 * MIB)
    service.breaks = 2

    await store.fetch("a.bin", tmp_path / "a", max_bytes=10 * MIB)

    assert (tmp_path / "a").read_bytes() == service.content
    ranges = [asked for _, _, asked in service.asked if asked]
    assert ranges.count(f"bytes=0-{4 * MIB - 1}") == 3
    assert len(ranges) == 5


async def test_a_body_that_always_breaks_off_is_the_stores_failure(
    service: BlobService, store: BlobStore, tmp_path: Path
) -> None:
    service.content, service.breaks = b"text" * 1000, 1000

    with pytest.raises(UpstreamError, match="broke off") as caught:
        await store.fetch("a.bin", tmp_path / "a", max_bytes=MIB)

    assert caught.value.retryable


async def test_a_blob_that_is_replaced_under_the_copy_is_read_anew(
    service: BlobService, store: BlobStore, tmp_path: Path
) -> None:
    old, new = os.urandom(6 * MIB), os.urandom(5 * MIB)
    service.content = old

    def replace() -> None:
        if len([1 for _, _, asked in service.asked if asked]) == 2:
            service.content, service.version = new, "0x2"

    service.before_read = replace

    info = await store.fetch("a.bin", tmp_path / "a", max_bytes=10 * MIB)

    assert (info.version, info.size) == ("0x2", 5 * MIB)
    assert (tmp_path / "a").read_bytes() == new


async def test_a_blob_that_never_rests_is_put_back(service: BlobService, store: BlobStore, tmp_path: Path) -> None:
    numbers = itertools.count(2)
    service.content = b"text"

    def replace() -> None:
        service.version = f"0x{next(numbers)}"

    service.before_read = replace

    with pytest.raises(UpstreamError, match="keeps changing"):
        await store.fetch("a.bin", tmp_path / "a", max_bytes=10)


async def test_a_blob_that_vanishes_under_the_copy_is_gone(
    service: BlobService, store: BlobStore, tmp_path: Path
) -> None:
    service.content = bytes(6 * MIB)

    def vanish() -> None:
        service.refusal = (404, "BlobNotFound", {})

    service.before_read = vanish

    with pytest.raises(NotFound):
        await store.fetch("a.bin", tmp_path / "a", max_bytes=10 * MIB)


PATHS = ["a.txt", "d-e.txt", "d.txt", "d/", "d/1.txt", "d/e/", "d/e-/", "d/e-/x.txt", "d/e/2.txt", "d/e.txt", "z.txt"]
FILES = sorted((path for path in PATHS if not path.endswith("/")), key=str.encode)


async def test_a_hierarchical_account_is_listed_in_the_order_of_bytes(service: BlobService, store: BlobStore) -> None:
    service.paths = PATHS

    assert [info.key async for info in store.list("")] == FILES
    assert [info.key async for info in store.list("d/")] == [file for file in FILES if file.startswith("d/")]
    assert [info.key async for info in store.list("d/e")] == [file for file in FILES if file.startswith("d/e")]


@pytest.mark.parametrize("after", FILES)
async def test_a_listing_goes_on_behind_any_file_of_a_hierarchical_account(
    service: BlobService, store: BlobStore, after: str
) -> None:
    service.paths = PATHS

    assert [info.key async for info in store.list("", after=after)] == FILES[FILES.index(after) + 1 :]


@pytest.mark.parametrize(
    ("prefix", "after", "begin"),
    [
        ("", "b.txt", "b"),
        ("", "report", "report"),
        ("", "2026/11/a.txt", "2026"),
        ("", "-", None),
        ("b", "b.txt", None),
        ("a", "b/c.txt", "b"),
        ("", "", None),
    ],
)
async def test_a_listing_begins_at_the_service_as_near_as_is_safe(
    service: BlobService, store: BlobStore, prefix: str, after: str, begin: str | None
) -> None:
    _ = [info async for info in store.list(prefix, after=after)]

    assert service.queries[-1].get("startFrom") == begin
