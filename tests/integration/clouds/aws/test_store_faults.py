"""What S3 refuses and breaks, told to a person in a sentence, and what is resumed without one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bonito.clouds.aws import clients
from bonito.clouds.aws.store import S3Store
from bonito.errors import (
    AccessDenied,
    BonitoError,
    DocumentError,
    DocumentTooLarge,
    NotFound,
    Overloaded,
    UpstreamError,
)
from tests.contracts.stores import keys
from tests.emulators.moto import REGION, StaticAccess
from tests.integration.clouds.aws.faulty_s3 import FaultyS3, hangs, refuses, serving

KMS = (
    "User: arn:aws:sts::123456789012:assumed-role/bonito/x is not authorized to perform: kms:Decrypt on resource: "
    "arn:aws:kms:us-east-1:123456789012:key/1 because no identity-based policy allows the kms:Decrypt action"
)

FOR_A_KEY = "User: arn:aws:sts::1:x is not authorized to perform: s3:GetObject on resource: arn:aws:s3:::docs/kms:x"


@pytest.fixture
async def faulty() -> AsyncIterator[FaultyS3]:
    async with serving() as running:
        yield running


@pytest.fixture
def store(faulty: FaultyS3) -> S3Store:
    return S3Store("docs", access=StaticAccess(), region=REGION, endpoint_url=faulty.url)


@pytest.mark.parametrize(
    ("status", "code", "message", "error", "says"),
    [
        (404, "NoSuchKey", "", NotFound, "no object a.txt in the bucket docs"),
        (404, "NoSuchBucket", "", AccessDenied, "bucket docs does not exist"),
        (403, "AccessDenied", "Access Denied", AccessDenied, "needs s3:GetObject"),
        (403, "AccessDenied", KMS, AccessDenied, "kms:Decrypt"),
        (403, "AccessDenied", FOR_A_KEY, AccessDenied, "needs s3:GetObject"),
        (400, "KMS.DisabledException", "arn:aws:kms:key/1 is disabled.", AccessDenied, "KMS key"),
        (400, "KMS.NotFoundException", "Invalid arn", AccessDenied, "KMS key"),
        (403, "InvalidObjectState", "The operation is not valid", DocumentError, "until somebody restores it"),
        (
            400,
            "InvalidRequest",
            "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to "
            "retrieve the object.",
            DocumentError,
            "SSE-C",
        ),
        (403, "InvalidAccessKeyId", "", AccessDenied, "does not accept the credentials"),
        (400, "ExpiredToken", "", AccessDenied, "does not accept the credentials"),
        (403, "SignatureDoesNotMatch", "", AccessDenied, "does not accept the credentials"),
        (503, "SlowDown", "Please reduce your request rate.", Overloaded, "fewer requests"),
        (500, "InternalError", "We encountered an internal error.", UpstreamError, "answered 500"),
        (400, "SomethingNew", "", UpstreamError, "answered 400"),
    ],
)
async def test_each_refusal_is_told_for_what_it_is(
    faulty: FaultyS3,
    store: S3Store,
    tmp_path: Path,
    status: int,
    code: str,
    message: str,
    error: type[BonitoError],
    says: str,
) -> None:
    faulty.always = refuses(status, code, message)

    for call in (store.fetch("a.txt", tmp_path / "into", max_bytes=10), store.head("a.txt")):
        with pytest.raises(error, match=says) as raised:
            await call
        assert raised.value.retryable is not issubclass(error, NotFound | DocumentError)
    assert not (tmp_path / "into").exists()


async def test_a_listing_names_the_right_that_it_needs(faulty: FaultyS3, store: S3Store) -> None:
    faulty.always = refuses(403, "AccessDenied", "Access Denied")

    with pytest.raises(AccessDenied, match="needs s3:ListBucket"):
        await keys(store)


@pytest.mark.parametrize("code", ["PermanentRedirect", "AuthorizationHeaderMalformed"])
async def test_a_wrong_region_is_told_with_the_right_one(
    faulty: FaultyS3, store: S3Store, tmp_path: Path, code: str
) -> None:
    status = 301 if code == "PermanentRedirect" else 400
    faulty.always = refuses(status, code, "wrong", **{"x-amz-bucket-region": "eu-west-3"})

    with pytest.raises(AccessDenied, match="lies in the region eu-west-3"):
        await store.fetch("a.txt", tmp_path / "into", max_bytes=10)
    with pytest.raises(AccessDenied, match="lies in the region eu-west-3"):
        await keys(store)


async def test_throttling_tells_when_to_come_back(faulty: FaultyS3, store: S3Store, tmp_path: Path) -> None:
    faulty.always = refuses(503, "SlowDown", "", **{"Retry-After": "7"})

    with pytest.raises(Overloaded) as raised:
        await store.fetch("a.txt", tmp_path / "into", max_bytes=10)
    assert raised.value.retry_after_s == 7


async def test_a_single_failure_is_not_noticed(faulty: FaultyS3, store: S3Store, tmp_path: Path) -> None:
    faulty.faults = [refuses(500, "InternalError")]

    await store.fetch("a.txt", tmp_path / "into", max_bytes=10)

    assert (tmp_path / "into").read_bytes() == b"content"


async def test_nobody_at_the_address_is_an_upstream_failure(tmp_path: Path) -> None:
    store = S3Store("docs", access=StaticAccess(), region=REGION, endpoint_url="http://127.0.0.1:9")

    for call in (store.fetch("a.txt", tmp_path / "into", max_bytes=10), store.head("a.txt"), keys(store)):
        with pytest.raises(UpstreamError, match="S3 did not answer"):
            await call


async def test_a_region_that_there_is_none_of_is_told(faulty: FaultyS3) -> None:
    store = S3Store("docs", access=StaticAccess(), region="no region!", endpoint_url=faulty.url)

    with pytest.raises(UpstreamError, match="could not be asked"):
        await keys(store)


async def test_a_body_that_breaks_off_is_resumed_where_it_broke(
    faulty: FaultyS3, store: S3Store, tmp_path: Path
) -> None:
    faulty.content = bytes(range(256)) * 4000
    faulty.faults = [faulty.cut_after(300_000), faulty.cut_after(0), faulty.cut_after(400_000)]

    info = await store.fetch("a.txt", tmp_path / "into", max_bytes=2_000_000)

    assert (tmp_path / "into").read_bytes() == faulty.content
    assert (info.size, info.version) == (1_024_000, "one")
    begins = [int((asked or "bytes=0-").removeprefix("bytes=").removesuffix("-")) for _, asked in faulty.received]
    assert len(begins) == 4
    assert begins == sorted(begins)
    assert begins[1] > 0


async def test_an_object_that_is_replaced_under_the_download_is_read_anew(
    faulty: FaultyS3, store: S3Store, tmp_path: Path
) -> None:
    faulty.content = b"a" * 200_000
    faulty.faults = [faulty.cut_after(100_000, then=b"b" * 300_000)]

    info = await store.fetch("a.txt", tmp_path / "into", max_bytes=400_000)

    assert (tmp_path / "into").read_bytes() == b"b" * 300_000
    assert (info.size, info.version) == (300_000, "two")


async def test_what_replaces_an_object_may_be_too_large(faulty: FaultyS3, store: S3Store, tmp_path: Path) -> None:
    faulty.content = b"a" * 200_000
    faulty.faults = [faulty.cut_after(100_000, then=b"b" * 300_000)]

    with pytest.raises(DocumentTooLarge):
        await store.fetch("a.txt", tmp_path / "into", max_bytes=250_000)


async def test_a_connection_that_always_breaks_is_tried_later(faulty: FaultyS3, store: S3Store, tmp_path: Path) -> None:
    faulty.content = b"a" * 200_000
    faulty.always = faulty.cut_after(0)

    with pytest.raises(UpstreamError, match="broke the connection") as raised:
        await store.fetch("a.txt", tmp_path / "into", max_bytes=250_000)
    assert raised.value.retryable


async def test_an_object_that_never_rests_is_tried_later(faulty: FaultyS3, store: S3Store, tmp_path: Path) -> None:
    faulty.content = b"a" * 200_000
    versions = [faulty.cut_after(1000, then=b"b" * 200_000), refuses(412, "PreconditionFailed")]
    faulty.faults = versions * 10

    with pytest.raises(UpstreamError, match="keeps changing"):
        await store.fetch("a.txt", tmp_path / "into", max_bytes=250_000)


async def test_a_body_that_stops_is_asked_for_again(
    faulty: FaultyS3, store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "READ_TIMEOUT_S", 0.3)
    clients._config.cache_clear()
    faulty.faults = [hangs]

    await store.fetch("a.txt", tmp_path / "into", max_bytes=10)

    clients._config.cache_clear()
    assert (tmp_path / "into").read_bytes() == b"content"
    assert faulty.received == [("GET", None), ("GET", "bytes=3-")]


async def test_a_listing_that_breaks_off_ends_in_an_error(faulty: FaultyS3, store: S3Store) -> None:
    faulty.content = b"<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a</Key>"
    with pytest.raises(UpstreamError):
        await keys(store)
    faulty.always = faulty.cut_after(20)
    with pytest.raises(UpstreamError):
        await keys(store)
