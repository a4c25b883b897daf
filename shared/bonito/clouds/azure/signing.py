"""The issuer's key in Azure Key Vault: an RSA key of 2,048 bits that may sign."""

from __future__ import annotations

import base64
import hashlib
import re

from bonito.clouds.access import TokenAccess
from bonito.clouds.calling import JSON, Answer, call, json_body
from bonito.clouds.identity import PublicKey, encoded
from bonito.errors import AccessDenied, InvalidSettings

KEY_URL = re.compile(
    r"https://[a-zA-Z0-9-]{3,127}\.(vault|managedhsm)\.(azure\.net|azure\.cn|usgovcloudapi\.net)/keys/[\w-]{1,127}/[0-9a-f]{32}",
    re.ASCII,
)
API_VERSION = "7.4"


class KeyVaultSigner:
    """Signer whose key never leaves the vault; its one caller needs the key permissions `get` and `sign`."""

    def __init__(self, key_url: str, *, access: TokenAccess, scope: str | None = None) -> None:
        """Call nothing yet.

        Args:
            key_url: with its version, which names one key for ever.
            access: the deployment's own rights.
            scope: of the tokens; None: the one of the vault's cloud.
        """
        self._key_url, self._access = key_url, access
        host = key_url.split("/")[2]
        self._scope = scope or f"https://{host.partition('.')[2]}/.default"

    async def public_key(self) -> PublicKey:
        """Its public half; UpstreamError, AccessDenied."""
        key = (await self._call("GET", "")).json().get("key")
        if not isinstance(key, dict) or not str(key.get("kty", "")).startswith("RSA"):
            raise InvalidSettings("BONITO_SIGNING_KEY names a key that is not of RSA.")
        return PublicKey(modulus=_number(str(key["n"])), exponent=_number(str(key["e"])))

    async def sign(self, data: bytes) -> bytes:
        """RSASSA-PKCS1-v1_5 over the SHA-256 of the data; UpstreamError, AccessDenied."""
        body = json_body(alg="RS256", value=encoded(hashlib.sha256(data).digest()))
        return _decoded(str((await self._call("POST", "/sign", body)).json().get("value", "")))

    async def _call(self, method: str, path: str, body: bytes | None = None) -> Answer:
        headers = JSON | {"authorization": f"Bearer {(await self._access.token(self._scope)).token}"}
        url = f"{self._key_url}{path}?api-version={API_VERSION}"
        answer = await call(method, url, service="Azure Key Vault", headers=headers, body=body)
        if answer.is_refusal:
            raise AccessDenied(
                f"Azure Key Vault does not let this deployment's identity use the signing key ({answer.status}): it "
                "needs the role Key Vault Crypto User on it."
            )
        return answer


def _number(text: str) -> int:
    return int.from_bytes(_decoded(text), "big")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
