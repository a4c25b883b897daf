"""Tokens: the SDK's clients send those of the access they are given, and the deployment's own come from its host."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web

from bonito.clouds.access import BearerToken
from bonito.clouds.azure.credentials import OwnAccess
from bonito.clouds.azure.store import AzureUploads, BlobStore
from bonito.errors import AccessDenied
from tests.integration.clouds.azure import tls
from tests.integration.clouds.azure.blob_service import MODIFIED

DELEGATION_KEY = """<?xml version="1.0" encoding="utf-8"?><UserDelegationKey>
<SignedOid>{id}</SignedOid><SignedTid>{id}</SignedTid><SignedStart>{begin}</SignedStart><SignedExpiry>{end}</SignedExpiry>
<SignedService>b</SignedService><SignedVersion>2020-02-10</SignedVersion><Value>c2lnbmVk</Value></UserDelegationKey>"""


class Tokens:
    """TokenAccess that remembers what was asked for."""

    def __init__(self) -> None:
        self.scopes: list[str] = []
        self.refuses = False

    async def token(self, scope: str) -> BearerToken:
        self.scopes.append(scope)
        if self.refuses:
            raise AccessDenied("Azure did not take Bonito's token.")
        return BearerToken("token-of-the-organization", datetime.now(UTC) + timedelta(hours=1))


async def test_a_store_signs_with_the_organizations_token(certificate: ssl.SSLContext) -> None:
    sent: list[str | None] = []

    async def handle(request: web.Request) -> web.Response:
        sent.append(request.headers.get("authorization"))
        headers = {"etag": '"0x1"', "last-modified": MODIFIED, "content-length": "4"}
        return web.Response(headers=headers)

    access = Tokens()
    async with tls.serving(handle, certificate) as url:
        info = await BlobStore("customer", "docs", access=access, endpoint_url=url).head("a.txt")

    assert info.size == 4
    assert sent == ["Bearer token-of-the-organization"]
    assert access.scopes == ["https://storage.azure.com/.default"]


async def test_a_store_says_why_there_is_no_token() -> None:
    access = Tokens()
    access.refuses = True

    with pytest.raises(AccessDenied, match="did not take Bonito's token"):
        await BlobStore("customer", "docs", access=access, endpoint_url="https://127.0.0.1:1").head("a.txt")


async def test_a_token_is_never_sent_in_the_clear() -> None:
    async def handle(request: web.Request) -> web.Response:
        raise AssertionError("a request came")

    async with tls.serving(handle) as url:
        with pytest.raises(ValueError, match="HTTPS"):
            await BlobStore("customer", "docs", access=Tokens(), endpoint_url=url).head("a.txt")


async def test_an_upload_is_signed_with_a_key_that_azure_gives_to_the_identity(certificate: ssl.SSLContext) -> None:
    asked: list[tuple[str, dict[str, str]]] = []

    async def handle(request: web.Request) -> web.Response:
        asked.append((request.method, dict(request.query)))
        now = datetime.now(UTC)
        begin, end = (f"{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in (now, now + timedelta(hours=1)))
        key = DELEGATION_KEY.format(id="00000000-0000-0000-0000-000000000001", begin=begin, end=end)
        return web.Response(text=key, content_type="application/xml")

    async with tls.serving(handle, certificate) as url:
        uploads = AzureUploads("bonito/uploads", "org/kb/", access=Tokens(), endpoint_url=url)
        signed = await uploads.signed_upload("a.md", size=1, sha256=bytes(32), expires=timedelta(minutes=5))

    assert asked == [("POST", {"restype": "service", "comp": "userdelegationkey"})]
    assert signed.address.startswith(f"{url}/uploads/org/kb/a.md?")
    assert "skoid=00000000-0000-0000-0000-000000000001" in signed.address


@pytest.fixture
async def host(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[dict[str, str]]]:
    """The endpoint that App Service and Functions give an app its identity by."""
    asked: list[dict[str, str]] = []
    lifetimes = iter([200, 3600, 3600])

    async def handle(request: web.Request) -> web.Response:
        asked.append(dict(request.query))
        assert request.headers["x-identity-header"] == "header"
        expires = int(datetime.now(UTC).timestamp()) + next(lifetimes)
        token = {"access_token": f"own-{len(asked)}", "expires_on": str(expires), "token_type": "Bearer"}
        return web.json_response(token | {"resource": request.query["resource"]})

    async with tls.serving(handle) as url:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{url}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", "header")
        yield asked


async def test_the_deployments_own_token_is_kept_until_shortly_before_it_ends(host: list[dict[str, str]]) -> None:
    access = OwnAccess()

    tokens = [(await access.token("https://storage.azure.com/.default")).token for _ in range(3)]

    assert tokens == ["own-1", "own-2", "own-2"]
    assert [asked["resource"] for asked in host] == ["https://storage.azure.com"] * 2
    await access.token("https://vault.azure.net/.default")
    assert host[-1]["resource"] == "https://vault.azure.net"


async def test_a_deployment_without_an_identity_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.json_response({"statusCode": 400, "message": "No managed identity."}, status=400)

    async with tls.serving(handle) as url:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{url}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", "header")
        with pytest.raises(AccessDenied, match="no identity of its own"):
            await OwnAccess().token("https://storage.azure.com/.default")
