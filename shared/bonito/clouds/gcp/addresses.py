"""Addresses of Cloud Storage that carry a signature (V4), made by a service account without a call to the store.

https://cloud.google.com/storage/docs/access-control/signing-urls-manually
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Protocol
from urllib.parse import quote, urlsplit

from bonito.clouds.access import TokenAccess
from bonito.clouds.gcp.api import Api, Refused
from bonito.errors import AccessDenied, InvalidSettings

ALGORITHM = "GOOG4-RSA-SHA256"
CREDENTIALS_ENDPOINT = "https://iamcredentials.googleapis.com"


class Signer(Protocol):
    """A service account that signs."""

    async def email(self) -> str:
        """The account's name; UpstreamError."""
        ...

    async def sign(self, content: bytes) -> bytes:
        """Its RSA signature, PKCS #1 v1.5 over SHA-256; AccessDenied, UpstreamError."""
        ...


class KeySigner:
    """Signs with a service account's key, where Bonito does not run on Google Cloud itself."""

    def __init__(self, key: Mapping[str, object]) -> None:
        """Take the account's key, in the shape of its JSON file; InvalidSettings where it is none."""
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            self._email = str(key["client_email"])
            loaded = load_pem_private_key(str(key["private_key"]).encode(), password=None)
        except (KeyError, ValueError, TypeError):
            raise InvalidSettings("The service account's key has no readable client_email and private_key.") from None
        if not isinstance(loaded, RSAPrivateKey):
            raise InvalidSettings("The service account's key is not an RSA key.")
        self._key = loaded

    async def email(self) -> str:
        """As the key says."""
        return self._email

    async def sign(self, content: bytes) -> bytes:
        """Some milliseconds of this process."""
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        return self._key.sign(content, PKCS1v15(), SHA256())


class Identified(TokenAccess, Protocol):
    """An access that knows which service account it is."""

    async def email(self) -> str:
        """The account's name; UpstreamError."""
        ...


class IamSigner:
    """Has Google sign with a key that nobody holds: the account needs iam.serviceAccounts.signBlob on itself."""

    def __init__(self, access: Identified, *, endpoint_url: str | None = None) -> None:
        self._access = access
        self._api = Api("IAM Credentials", endpoint_url or CREDENTIALS_ENDPOINT, access=access)

    async def email(self) -> str:
        """Of the account whose rights the calls have."""
        return await self._access.email()

    async def sign(self, content: bytes) -> bytes:
        """One call: https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/signBlob."""
        path = f"/v1/projects/-/serviceAccounts/{quote(await self.email(), safe='@')}:signBlob"
        async with self._api.session() as session:
            try:
                answer = await session.call("POST", path, body={"payload": base64.b64encode(content).decode()})
            except Refused as refused:
                raise AccessDenied(
                    "The function's service account may not sign: it lacks iam.serviceAccounts.signBlob on itself."
                ) from refused
        return base64.b64decode(answer["signedBlob"])


async def signed_url(
    signer: Signer, base_url: str, resource: str, *, headers: Mapping[str, str], expires: timedelta, now: datetime
) -> str:
    """An address that allows one PUT.

    Args:
        signer: whose rights the upload has.
        base_url: of Cloud Storage.
        resource: `/bucket/name`, encoded.
        headers: names in lower case; the upload must have them exactly so.
        expires: how long the address is good, a week at most.
        now: aware.
    """
    host = urlsplit(base_url).netloc
    signed = dict(sorted({"host": host, **headers}.items()))
    date, time = f"{now:%Y%m%d}", f"{now:%Y%m%dT%H%M%SZ}"
    scope = f"{date}/auto/storage/goog4_request"
    query = {
        "X-Goog-Algorithm": ALGORITHM,
        "X-Goog-Credential": f"{await signer.email()}/{scope}",
        "X-Goog-Date": time,
        "X-Goog-Expires": str(int(expires.total_seconds())),
        "X-Goog-SignedHeaders": ";".join(signed),
    }
    encoded = "&".join(f"{name}={quote(value, safe='~')}" for name, value in sorted(query.items()))
    canonical = "\n".join(
        [
            "PUT",
            resource,
            encoded,
            *(f"{name}:{value}" for name, value in signed.items()),
            "",
            ";".join(signed),
            headers.get("x-goog-content-sha256", "UNSIGNED-PAYLOAD"),
        ]
    )
    to_sign = "\n".join([ALGORITHM, time, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    signature = (await signer.sign(to_sign.encode())).hex()
    return f"{base_url}{resource}?{encoded}&X-Goog-Signature={signature}"
