"""The function's own identity: tokens of the metadata server, and signatures with or without a key in hand."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from bonito.clouds.gcp.addresses import IamSigner, KeySigner, signed_url
from bonito.clouds.gcp.identity import OwnAccess
from bonito.errors import AccessDenied, InvalidSettings, UpstreamError
from tests.emulators.google import Google, answering, refusing
from tests.emulators.keys import EMAIL, service_account_key

SCOPE = "https://www.googleapis.com/auth/devstorage.read_only"


async def test_a_token_is_asked_for_once_and_again_shortly_before_its_end(server: Google) -> None:
    access = OwnAccess(metadata_url=server.url)
    server.says(answering({"access_token": "one", "expires_in": 3599, "token_type": "Bearer"}))
    assert [(await access.token(SCOPE)).token for _ in range(3)] == ["one"] * 3
    assert len(server.received) == 1

    server.says(answering({"access_token": "two", "expires_in": 200, "token_type": "Bearer"}))
    for _ in range(2):
        assert (await access.token("another scope")).token == "two"
    assert len(server.received) == 3
    request, _ = server.received[0]
    assert request.headers["metadata-flavor"] == "Google"
    assert request.path == "/computeMetadata/v1/instance/service-accounts/default/token"
    assert request.query["scopes"] == SCOPE


async def test_a_token_is_not_printed(server: Google) -> None:
    server.says(answering({"access_token": "very secret", "expires_in": 3599}))

    assert "very secret" not in repr(await OwnAccess(metadata_url=server.url).token(SCOPE))


async def test_outside_of_google_cloud_it_says_so(server: Google) -> None:
    with pytest.raises(UpstreamError, match="may not run on Google Cloud"):
        await OwnAccess(metadata_url="http://127.0.0.1:9").token(SCOPE)
    server.says(refusing(404, "no service account"))
    with pytest.raises(UpstreamError, match="no identity"):
        await OwnAccess(metadata_url=server.url).email()
    server.says(lambda request: web.Response(text="<html>"))
    with pytest.raises(UpstreamError, match="no token"):
        await OwnAccess(metadata_url=server.url).token(SCOPE)


async def test_iam_signs_what_no_key_in_hand_could(server: Google) -> None:
    key = load_pem_private_key(str(service_account_key()["private_key"]).encode(), password=None)

    def sign(request: web.Request) -> web.Response:
        content = base64.b64decode(payloads[-1])
        signature = key.sign(content, PKCS1v15(), SHA256())  # type: ignore[union-attr,call-arg,arg-type]
        return web.json_response({"keyId": "1", "signedBlob": base64.b64encode(signature).decode()})

    payloads: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        if request.path.endswith("/token"):
            return web.json_response({"access_token": "own", "expires_in": 3599})
        if request.path.endswith("/email"):
            return web.Response(text=EMAIL)
        assert request.path == f"/v1/projects/-/serviceAccounts/{EMAIL}:signBlob"
        assert request.headers["authorization"] == "Bearer own"
        payloads.append((await request.json())["payload"])
        return sign(request)

    server.says(answer)
    signer = IamSigner(OwnAccess(metadata_url=server.url), endpoint_url=server.url)

    assert await signer.email() == EMAIL
    assert await signer.sign(b"content") == await KeySigner(service_account_key()).sign(b"content")


async def test_a_missing_right_to_sign_is_named(server: Google) -> None:
    own = answering({"access_token": "own", "expires_in": 3599})
    server.says(lambda request: web.Response(text=EMAIL), own, refusing(403, "Permission denied"))

    with pytest.raises(AccessDenied, match=r"iam\.serviceAccounts\.signBlob"):
        await IamSigner(OwnAccess(metadata_url=server.url), endpoint_url=server.url).sign(b"content")


async def test_a_signed_address_is_the_one_that_googles_own_client_makes() -> None:
    from google.cloud.storage._signing import generate_signed_url_v4
    from google.oauth2.service_account import Credentials

    resource = f"/ours/{quote('org/base/größe 100%/a+b~c&d.md', safe='/~')}"
    headers = {"x-goog-content-length-range": "5,5", "x-goog-content-sha256": "ab" * 32}
    theirs = generate_signed_url_v4(
        Credentials.from_service_account_info(service_account_key()),  # type: ignore[no-untyped-call]
        resource,
        expiration=timedelta(minutes=10),
        method="PUT",
        headers=dict(headers),
        _request_timestamp="20260302T091405Z",
    )

    ours = await signed_url(
        KeySigner(service_account_key()),
        "https://storage.googleapis.com",
        resource,
        headers=headers,
        expires=timedelta(minutes=10),
        now=datetime(2026, 3, 2, 9, 14, 5, tzinfo=UTC),
    )

    assert ours == theirs


@pytest.mark.parametrize("key", [{}, {"client_email": "a@b", "private_key": "no key"}])
def test_a_key_that_is_none_is_refused(key: dict[str, object]) -> None:
    with pytest.raises(InvalidSettings):
        KeySigner(key)
