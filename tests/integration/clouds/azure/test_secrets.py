"""Key Vault as its REST interface answers, the challenge first."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from bonito.clouds.azure.secrets import KeyVaultSecrets
from bonito.errors import AccessDenied, InvalidRequest, NotFound, UpstreamError
from tests.integration.clouds.azure import tls
from tests.integration.clouds.azure.test_identities import Tokens

# The SDK sends a token only to a host below the domain that the challenge names, and 127.0.0.1 ends like this.
CHALLENGE = 'Bearer authorization="https://login.microsoftonline.com/tenant", resource="{}"'


@dataclass
class Vault:
    url: str = ""
    secrets: dict[str, str] = field(default_factory=dict)
    refusal: tuple[int, dict[str, object]] | None = None
    asked: list[tuple[str, bool]] = field(default_factory=list)

    @property
    def domain(self) -> str:
        return self.url.replace("127.0.0.1", "0.0.1")

    async def handle(self, request: web.Request) -> web.Response:
        is_signed = request.headers.get("authorization") == "Bearer token-of-the-organization"
        self.asked.append((request.path, is_signed))
        if not is_signed:
            return web.json_response({}, status=401, headers={"www-authenticate": CHALLENGE.format(self.domain)})
        if self.refusal is not None:
            status, error = self.refusal
            return web.json_response({"error": error}, status=status)
        name = request.path.split("/")[2]
        if name not in self.secrets:
            return web.json_response({"error": {"code": "SecretNotFound", "message": "no"}}, status=404)
        identity = f"{self.url}/secrets/{name}/0123456789abcdef0123456789abcdef"
        return web.json_response({"value": self.secrets[name], "id": identity, "attributes": {"enabled": True}})


@pytest.fixture
async def vault(certificate: ssl.SSLContext) -> AsyncIterator[Vault]:
    vault = Vault()
    async with tls.serving(vault.handle, certificate) as url:
        vault.url = url
        yield vault


async def test_a_secret_is_read_after_the_vaults_challenge(vault: Vault) -> None:
    vault.secrets["bonito-openai"] = "sk-1"
    access = Tokens()

    assert await KeyVaultSecrets(vault.url, access=access, prefix="bonito-").read("bonito-openai") == "sk-1"

    assert vault.asked == [("/secrets/bonito-openai/", False), ("/secrets/bonito-openai/", True)]
    assert access.scopes == [f"{vault.domain}/.default"]


async def test_each_read_is_of_the_present_value(vault: Vault) -> None:
    secrets = KeyVaultSecrets(vault.url, access=Tokens())
    for value in ("one", "two"):
        vault.secrets["key"] = value
        assert await secrets.read("key") == value


@pytest.mark.parametrize("reference", ["database", "bonito-../x", "bonito-a/b", "", "bonito-ä", "x" * 200])
async def test_a_reference_leads_to_nothing_else_in_the_vault(vault: Vault, reference: str) -> None:
    with pytest.raises(InvalidRequest):
        await KeyVaultSecrets(vault.url, access=Tokens(), prefix="bonito-").read(reference)

    assert vault.asked == []


async def test_a_secret_that_is_not_there_is_not_found(vault: Vault) -> None:
    with pytest.raises(NotFound, match="no enabled secret nothing"):
        await KeyVaultSecrets(vault.url, access=Tokens()).read("nothing")


@pytest.mark.parametrize(
    ("status", "inner", "error", "says"),
    [
        (403, "ForbiddenByRbac", AccessDenied, "Key Vault Secrets User"),
        (403, "ForbiddenByFirewall", AccessDenied, "network rules"),
        (403, "SecretDisabled", NotFound, "no enabled secret"),
        (429, "Throttled", UpstreamError, "too much"),
        (503, "Busy", UpstreamError, "does not answer"),
    ],
)
async def test_a_refusal_says_what_is_missing(
    vault: Vault, status: int, inner: str, error: type[Exception], says: str
) -> None:
    vault.refusal = (status, {"code": "Forbidden", "message": "no", "innererror": {"code": inner}})

    with pytest.raises(error, match=says):
        await KeyVaultSecrets(vault.url, access=Tokens()).read("key")


async def test_a_vault_that_is_not_there_does_not_answer() -> None:
    with pytest.raises(UpstreamError, match="does not answer"):
        await KeyVaultSecrets("https://127.0.0.1:1", access=Tokens()).read("key")
