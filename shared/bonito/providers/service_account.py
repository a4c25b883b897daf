"""Access tokens of Google Cloud for a service account's key: a signed assertion, exchanged at Google's endpoint.

As in "Using OAuth 2.0 for Server to Server Applications". The endpoint that a key file names is not used: the address
that an assertion goes to is not the uploader's to choose.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from bonito.clouds.access import BearerToken
from bonito.errors import AccessDenied, InvalidRequest, ProviderFailed
from bonito.providers.exchanges import exchange

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    from bonito.egress.client import EgressClient

TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
LIFETIME = timedelta(hours=1)  # the longest that Google takes
RENEWED_BEFORE = timedelta(minutes=5)
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class ServiceAccountKey:
    """What a key file holds; never printed.

    Attributes:
        project_id: the project that the account belongs to.
    """

    client_email: str
    project_id: str
    key_id: str
    private_key: str = field(repr=False)

    @classmethod
    def from_json(cls, text: str) -> ServiceAccountKey:
        """Read a key file; InvalidRequest where it is none."""
        try:
            found = json.loads(text)
            if found["type"] != "service_account":
                raise ValueError("another kind of credential")
            key = cls(found["client_email"], found["project_id"], found["private_key_id"], found["private_key"])
            if not all(isinstance(value, str) and value for value in vars(key).values()):
                raise ValueError("a field that is no text")
            key.loaded()
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise InvalidRequest(
                "service_account must be the JSON key file of a service account.", param="credential"
            ) from error
        return key

    def loaded(self) -> RSAPrivateKey:
        """The key itself; ValueError."""
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        key = load_pem_private_key(self.private_key.encode(), password=None)
        if not isinstance(key, RSAPrivateKey):
            raise ValueError("not an RSA key")
        return key


class ServiceAccountAccess:
    """TokenAccess of a service account; a token is kept until shortly before it expires."""

    def __init__(
        self,
        client: EgressClient,
        key: ServiceAccountKey,
        *,
        token_url: str = TOKEN_URL,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Ask for nothing yet; `clock` answers aware times."""
        self._client, self._key, self._clock = client, key, clock
        self._target = client.policy.parse(token_url)
        self._tokens: dict[str, BearerToken] = {}
        self._asking = asyncio.Lock()

    async def token(self, scope: str) -> BearerToken:
        """A token that lasts for some minutes at least; AccessDenied where Google refuses the key."""
        async with self._asking:
            known = self._tokens.get(scope)
            if known is None or known.expires_at - RENEWED_BEFORE <= self._clock():
                known = self._tokens[scope] = await self._exchanged(scope)
            return known

    async def _exchanged(self, scope: str) -> BearerToken:
        now = self._clock()
        form = f"grant_type={GRANT.replace(':', '%3A')}&assertion={self._assertion(scope, now)}"
        answer = await exchange(
            self._client,
            "POST",
            self._target,
            headers={"content-type": "application/x-www-form-urlencoded", "accept": "application/json"},
            body=form.encode(),
            timeout_s=TIMEOUT_S,
        )
        if answer.status in (400, 401, 403):
            raise AccessDenied(
                f"Google refused the key of {self._key.client_email}: it was deleted, or the account is disabled."
            )
        if not answer.is_success:
            raise ProviderFailed(f"Google gave no access token (its status is {answer.status}).")
        try:
            found = answer.json("Google")
            return BearerToken(str(found["access_token"]), now + timedelta(seconds=float(found["expires_in"])))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ProviderFailed("Google answered with no access token.") from error

    def _assertion(self, scope: str, now: datetime) -> str:
        """A JWT by which the account asks for the scope, signed with its key (RS256)."""
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        issued = int(now.timestamp())
        header = {"alg": "RS256", "typ": "JWT", "kid": self._key.key_id}
        claims = {
            "iss": self._key.client_email,
            "scope": scope,
            "aud": str(self._target.url),
            "iat": issued,
            "exp": issued + int(LIFETIME.total_seconds()),
        }
        signed = f"{_encoded(json.dumps(header).encode())}.{_encoded(json.dumps(claims).encode())}"
        signature = self._key.loaded().sign(signed.encode(), PKCS1v15(), SHA256())
        return f"{signed}.{_encoded(signature)}"


def _encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()
