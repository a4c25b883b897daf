"""What Cloud Storage refuses and how it fails: each a sentence of its own, and whatever may pass is tried again."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import google_crc32c
import pytest
from aiohttp import web

from bonito.clouds.gcp.addresses import KeySigner
from bonito.clouds.gcp.store import GcsStore, GcsUploads
from bonito.errors import AccessDenied, DocumentError, NotFound, Overloaded, UpstreamError
from tests.emulators.google import Answer, Google, StaticAccess, answering, refusing
from tests.emulators.keys import service_account_key

CONTENT = bytes(range(256)) * 1024
ACCOUNT = "reader@acme.iam.gserviceaccount.com"
ITEM = {"name": "a.txt", "size": "1", "generation": "7", "updated": "2026-03-02T09:14:05.358Z"}


@pytest.fixture
def store(server: Google) -> GcsStore:
    return GcsStore("docs", access=StaticAccess(), endpoint_url=server.url)


def described(content: bytes, generation: str = "7") -> dict[str, str]:
    checksum = base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()  # type: ignore[no-untyped-call]
    return {
        "x-goog-generation": generation,
        "x-goog-hash": f"crc32c={checksum}",
        "x-goog-stored-content-length": str(len(content)),
        "last-modified": "Mon, 02 Mar 2026 09:14:05 GMT",
    }


def sending(
    content: bytes, generation: str = "7", *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Answer:
    return lambda request: web.Response(
        body=content, status=status, headers={**described(content, generation), **(headers or {})}
    )


def breaking(content: bytes, sent: int, *, offset: int = 0, generation: str = "7") -> Answer:
    """The content from an offset, with a connection that breaks after some bytes."""

    async def answer(request: web.Request) -> web.StreamResponse:
        headers = described(content, generation) | {"content-length": str(len(content) - offset)}
        if offset:
            headers["content-range"] = f"bytes {offset}-{len(content) - 1}/{len(content)}"
        response = web.StreamResponse(status=206 if offset else 200, headers=headers)
        await response.prepare(request)
        await response.write(content[offset : offset + sent])
        if offset + sent < len(content):
            assert request.transport is not None
            request.transport.close()
        return response

    return answer


def dropping(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize(
    ("status", "reason", "message", "sentence"),
    [
        pytest.param(401, "authError", "Invalid Credentials", "does not accept the connection's credentials", id="401"),
        pytest.param(
            403,
            "forbidden",
            f"{ACCOUNT} does not have storage.objects.get access to the Google Cloud Storage object."
            " Permission 'storage.objects.get' denied on resource (or it may not exist).",
            "may not read objects in the bucket docs: it lacks storage.objects.get",
            id="no-right-to-read",
        ),
        pytest.param(
            403,
            "forbidden",
            "Permission denied on Cloud KMS key. Please ensure that your Cloud Storage service account has been"
            " authorized to use this key.",
            "may not use the Cloud KMS key",
            id="no-right-on-the-key",
        ),
        pytest.param(
            400,
            "invalid",
            "Cloud KMS key projects/x/cryptoKeys/k is DISABLED",
            "key must be enabled",
            id="key-disabled",
        ),
        pytest.param(
            400,
            "required",
            "Bucket is a requester pays bucket but no user project provided.",
            "requester pays",
            id="requester-pays",
        ),
        pytest.param(
            403,
            "accountDisabled",
            "The billing account for the owning project is disabled in state absent",
            "no active billing account",
            id="no-billing",
        ),
        pytest.param(
            403,
            "forbidden",
            "Request is prohibited by organization's policy. vpcServiceControlsUniqueIdentifier: abc",
            "VPC Service Controls",
            id="perimeter",
        ),
        pytest.param(403, "forbidden", "Forbidden", "it lacks storage.objects.get", id="no-word-why"),
        pytest.param(404, "notFound", "The specified bucket does not exist.", "no bucket docs", id="no-bucket"),
    ],
)
async def test_every_refusal_has_its_own_sentence(
    server: Google, store: GcsStore, tmp_path: Path, status: int, reason: str, message: str, sentence: str
) -> None:
    server.says(refusing(status, message, reason=reason))

    with pytest.raises(AccessDenied, match=sentence) as head:
        await store.head("a.txt")
    with pytest.raises(AccessDenied, match=sentence):
        await store.fetch("a.txt", tmp_path / "into", max_bytes=10)
    assert ACCOUNT not in head.value.message


async def test_a_right_to_list_that_is_missing_is_named(server: Google, store: GcsStore) -> None:
    server.says(
        refusing(403, f"{ACCOUNT} does not have storage.objects.list access to the Google Cloud Storage bucket.")
    )

    with pytest.raises(AccessDenied, match=r"may not list objects in the bucket docs: it lacks storage\.objects\.list"):
        [info async for info in store.list("")]


async def test_a_right_to_write_that_is_missing_is_named(server: Google) -> None:
    signer = KeySigner(service_account_key())
    uploads = GcsUploads("ours", "o/b/", access=StaticAccess(), signer=signer, endpoint_url=server.url)
    server.says(answering({}), refusing(403, "Forbidden"))

    async def content() -> AsyncIterator[bytes]:
        yield b"x"

    with pytest.raises(AccessDenied, match=r"storage\.objects\.create"):
        await uploads.put("a.md", content(), max_bytes=1)
    with pytest.raises(AccessDenied, match=r"storage\.objects\.delete"):
        await uploads.delete("a.md")


async def test_an_object_under_its_owners_own_key_is_the_documents_error(
    server: Google, store: GcsStore, tmp_path: Path
) -> None:
    message = "The target object is encrypted by a customer-supplied encryption key."
    server.says(refusing(400, message, reason="resourceIsEncryptedWithCustomerEncryptionKey"))

    with pytest.raises(DocumentError, match="only its owner has"):
        await store.fetch("a.txt", tmp_path / "into", max_bytes=10)


async def test_a_missing_object_that_is_named_needs_no_second_call(server: Google, store: GcsStore) -> None:
    server.says(refusing(404, "No such object: docs/a.txt", reason="notFound"))

    with pytest.raises(NotFound):
        await store.head("a.txt")
    assert len(server.received) == 1


@pytest.mark.parametrize("trouble", [refusing(503, "Backend Error"), refusing(429, "Slow down"), dropping])
async def test_trouble_that_passes_is_not_noticed(
    server: Google, store: GcsStore, tmp_path: Path, trouble: Answer
) -> None:
    page = {"items": [ITEM], "nextPageToken": "more"}
    server.says(answering(page), trouble, trouble, answering({"items": [ITEM | {"name": "b.txt"}]}))
    assert [info.key async for info in store.list("")] == ["a.txt", "b.txt"]

    server.says(trouble, trouble, sending(CONTENT))
    assert (await store.fetch("a.txt", tmp_path / "into", max_bytes=len(CONTENT))).version == "7"
    assert (tmp_path / "into").read_bytes() == CONTENT


@pytest.mark.parametrize("trouble", [refusing(500, "Backend Error"), dropping])
async def test_trouble_that_stays_is_the_queues(
    server: Google, store: GcsStore, tmp_path: Path, trouble: Answer
) -> None:
    server.says(trouble)

    with pytest.raises(UpstreamError) as refused:
        await store.head("a.txt")
    assert refused.value.retryable
    assert len(server.received) >= 4
    with pytest.raises(UpstreamError):
        await store.fetch("a.txt", tmp_path / "into", max_bytes=10)


async def test_a_long_wait_that_is_asked_for_is_handed_on_at_once(
    server: Google, store: GcsStore, tmp_path: Path
) -> None:
    server.says(refusing(429, "Slow down", headers={"retry-after": "70"}))

    with pytest.raises(Overloaded) as refused:
        await store.head("a.txt")
    assert refused.value.retry_after_s == 70
    with pytest.raises(Overloaded):
        await store.fetch("a.txt", tmp_path / "into", max_bytes=10)
    assert len(server.received) == 2


async def test_a_connection_that_breaks_is_resumed_where_it_broke(
    server: Google, store: GcsStore, tmp_path: Path
) -> None:
    cuts = [100_000, 170_000]
    server.says(
        breaking(CONTENT, cuts[0]),
        breaking(CONTENT, cuts[1] - cuts[0], offset=cuts[0]),
        dropping,
        breaking(CONTENT, len(CONTENT) - cuts[1], offset=cuts[1]),
    )

    info = await store.fetch("a.txt", tmp_path / "into", max_bytes=len(CONTENT))

    assert (tmp_path / "into").read_bytes() == CONTENT
    assert info.size == len(CONTENT)
    asked = [(request.query.get("generation"), request.headers.get("range")) for request, _ in server.received]
    assert asked == [
        (None, None),
        ("7", f"bytes={cuts[0]}-"),
        ("7", f"bytes={cuts[1]}-"),
        ("7", f"bytes={cuts[1]}-"),
    ]


@pytest.mark.parametrize(
    "then",
    [
        pytest.param(refusing(404, "No such object: docs/a.txt"), id="old-generation-gone"),
        pytest.param(refusing(412, "Precondition Failed"), id="precondition"),
        pytest.param(breaking(CONTENT, 10, offset=1000, generation="8"), id="another-generation"),
        pytest.param(sending(CONTENT), id="range-not-heeded"),
    ],
)
async def test_an_object_that_is_replaced_meanwhile_is_read_anew(
    server: Google, store: GcsStore, tmp_path: Path, then: Answer
) -> None:
    server.says(breaking(CONTENT, 1000), then, sending(b"the newer one", "8"))

    info = await store.fetch("a.txt", tmp_path / "into", max_bytes=len(CONTENT))

    assert (tmp_path / "into").read_bytes() == b"the newer one"
    assert info.version == "8"


async def test_an_object_that_is_deleted_meanwhile_is_not_found(
    server: Google, store: GcsStore, tmp_path: Path
) -> None:
    server.says(breaking(CONTENT, 1000), refusing(404, "No such object: docs/a.txt"))

    with pytest.raises(NotFound):
        await store.fetch("a.txt", tmp_path / "into", max_bytes=len(CONTENT))


async def test_an_object_that_never_rests_is_tried_later(server: Google, store: GcsStore, tmp_path: Path) -> None:
    gone = refusing(404, "No such object: docs/a.txt")
    server.says(*[breaking(CONTENT, 1000), gone] * 4)

    with pytest.raises(UpstreamError, match="keeps changing"):
        await store.fetch("a.txt", tmp_path / "into", max_bytes=len(CONTENT))


async def test_what_arrives_damaged_is_not_taken(server: Google, store: GcsStore, tmp_path: Path) -> None:
    damaged = bytearray(CONTENT)
    damaged[5] ^= 1
    server.says(sending(bytes(damaged), headers={"x-goog-hash": described(CONTENT)["x-goog-hash"]}))

    with pytest.raises(UpstreamError, match="damaged"):
        await store.fetch("a.txt", tmp_path / "into", max_bytes=len(CONTENT))


async def test_an_answer_that_is_not_cloud_storages_is_refused(server: Google, store: GcsStore, tmp_path: Path) -> None:
    server.says(lambda request: web.Response(text="<html>a proxy's page</html>", content_type="text/html"))

    with pytest.raises(UpstreamError):
        await store.head("a.txt")
    with pytest.raises(UpstreamError):
        await store.fetch("a.txt", tmp_path / "into", max_bytes=1000)


async def test_without_a_token_nothing_is_asked(server: Google) -> None:
    class NoAccess:
        async def token(self, scope: str) -> None:
            raise AccessDenied("The role was taken away.")

    store = GcsStore("docs", access=NoAccess(), endpoint_url=server.url)  # type: ignore[arg-type]

    with pytest.raises(AccessDenied, match="taken away"):
        await store.head("a.txt")
    assert server.received == []
