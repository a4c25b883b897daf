"""The issuer's key in Google Cloud KMS: a version of a key for RSA_SIGN_PKCS1_2048_SHA256."""

from __future__ import annotations

import base64
import hashlib
import re

from bonito.clouds.access import TokenAccess
from bonito.clouds.calling import JSON, Answer, call, json_body
from bonito.clouds.identity import PublicKey
from bonito.errors import AccessDenied

KEY_VERSION = re.compile(
    r"projects/[a-z0-9:.-]{1,100}/locations/[a-z0-9-]{1,40}/keyRings/[\w-]{1,63}/cryptoKeys/[\w-]{1,63}/cryptoKeyVersions/[0-9]{1,9}",
    re.ASCII,
)
KMS = "https://cloudkms.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/cloudkms"


class CloudKmsSigner:
    """Signer whose key never leaves Cloud KMS; its one caller needs roles/cloudkms.signerVerifier."""

    def __init__(self, key_version: str, *, access: TokenAccess, endpoint_url: str = KMS) -> None:
        """Call nothing yet.

        Args:
            key_version: the resource name of one version of the key.
            access: the deployment's own rights.
            endpoint_url: of Cloud KMS.
        """
        self._url, self._access = f"{endpoint_url}/v1/{key_version}", access

    async def public_key(self) -> PublicKey:
        """Its public half; UpstreamError, AccessDenied."""
        pem = str((await self._call("GET", "/publicKey")).json().get("pem", ""))
        body = "".join(line for line in pem.splitlines() if not line.startswith("-----"))
        return PublicKey.from_der(base64.b64decode(body))

    async def sign(self, data: bytes) -> bytes:
        """RSASSA-PKCS1-v1_5 over the SHA-256 of the data; UpstreamError, AccessDenied."""
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        answer = await self._call("POST", ":asymmetricSign", json_body(digest={"sha256": digest}))
        return base64.b64decode(str(answer.json().get("signature", "")))

    async def _call(self, method: str, path: str, body: bytes | None = None) -> Answer:
        headers = JSON | {"authorization": f"Bearer {(await self._access.token(SCOPE)).token}"}
        answer = await call(method, self._url + path, service="Google Cloud KMS", headers=headers, body=body)
        if answer.is_refusal:
            raise AccessDenied(
                f"Google Cloud KMS does not let this deployment's service account use the signing key "
                f"({answer.status}): it needs roles/cloudkms.signerVerifier on it."
            )
        return answer
