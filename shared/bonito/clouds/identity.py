"""Bonito as an OpenID Connect issuer: short-lived tokens by which customers' clouds know an organization.

docs/decisions/0007-access-without-keys.md says why. The signature is RS256, the only one that Azure takes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from bonito.clouds.private_files import read_private, write_once
from bonito.errors import InvalidSettings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

ALGORITHM = "RS256"
LIFETIME_S = 300
KEY_FILE = "issuer.key"
KEY_BITS = 2048
DISCOVERY_PATH = "/.well-known/openid-configuration"
JWKS_PATH = "/.well-known/jwks.json"


@dataclass(frozen=True)
class PublicKey:
    """An RSA key that verifies what its private half signed."""

    modulus: int
    exponent: int

    @classmethod
    def of(cls, key: RSAPublicKey) -> PublicKey:
        """From the library's own value."""
        numbers = key.public_numbers()
        return cls(modulus=numbers.n, exponent=numbers.e)

    @classmethod
    def from_der(cls, der: bytes) -> PublicKey:
        """From SubjectPublicKeyInfo; InvalidSettings where that is no RSA key."""
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
        from cryptography.hazmat.primitives.serialization import load_der_public_key

        key = load_der_public_key(der)
        if not isinstance(key, RSAPublicKey):
            raise InvalidSettings("BONITO_SIGNING_KEY names a key that is not of RSA.")
        return cls.of(key)

    @property
    def key_id(self) -> str:
        """The key's thumbprint (RFC 7638): the same in every process, and another one for another key."""
        members = {"e": _number(self.exponent), "kty": "RSA", "n": _number(self.modulus)}
        return encoded(hashlib.sha256(json.dumps(members, separators=(",", ":")).encode()).digest())

    def jwk(self) -> dict[str, str]:
        """As a JSON Web Key (RFC 7517)."""
        numbers = {"n": _number(self.modulus), "e": _number(self.exponent)}
        return {"kty": "RSA", "use": "sig", "alg": ALGORITHM, "kid": self.key_id} | numbers


class Signer(Protocol):
    """A private RSA key that is used and never seen: a cloud's key service, or a file."""

    async def public_key(self) -> PublicKey:
        """Its public half; UpstreamError, AccessDenied."""
        ...

    async def sign(self, data: bytes) -> bytes:
        """RSASSA-PKCS1-v1_5 over the SHA-256 of the data; UpstreamError, AccessDenied."""
        ...


class LocalSigner:
    """A key in this process's memory."""

    def __init__(self, key: RSAPrivateKey) -> None:
        self._key = key

    async def public_key(self) -> PublicKey:
        """Its public half."""
        return PublicKey.of(self._key.public_key())

    async def sign(self, data: bytes) -> bytes:
        """RSASSA-PKCS1-v1_5 over the SHA-256 of the data."""
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        return self._key.sign(data, PKCS1v15(), SHA256())


class Issuer:
    """Signs tokens for organizations with the first key, and publishes all of them."""

    def __init__(self, url: str, signers: Sequence[Signer], *, clock: Callable[[], float] = time.time) -> None:
        """Issue under this address.

        Args:
            url: where the clouds find the two documents, without a slash at its end.
            signers: the one that signs, then those whose tokens may still be under way.
            clock: seconds since 1970.
        """
        if not signers:
            raise ValueError("an issuer has a key")
        self.url, self._signers, self._clock = url, tuple(signers), clock
        self._public: dict[int, PublicKey] = {}

    async def token(self, *, subject: str, audience: str) -> str:
        """A token (RFC 7519) that tells one audience who asks, for five minutes; UpstreamError, AccessDenied."""
        now = int(self._clock())
        claims = {
            "iss": self.url,
            "sub": subject,
            "aud": audience,
            "iat": now,
            "nbf": now,
            "exp": now + LIFETIME_S,
            "jti": str(uuid4()),
        }
        key_id = (await self._public_key(0)).key_id
        return await signed(self._signers[0], claims, key_id=key_id)

    def discovery(self) -> dict[str, Any]:
        """What OpenID Connect Discovery 1.0 asks of an issuer that only ever vouches for machines."""
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url}{JWKS_PATH}",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [ALGORITHM],
            "scopes_supported": ["openid"],
            "claims_supported": ["iss", "sub", "aud", "iat", "nbf", "exp", "jti"],
        }

    async def jwks(self) -> dict[str, Any]:
        """The public keys; UpstreamError, AccessDenied."""
        return {"keys": [(await self._public_key(index)).jwk() for index in range(len(self._signers))]}

    async def _public_key(self, index: int) -> PublicKey:
        if index not in self._public:
            self._public[index] = await self._signers[index].public_key()
        return self._public[index]


async def signed(signer: Signer, claims: Mapping[str, object], *, key_id: str) -> str:
    """A JSON Web Token over these claims."""
    header = {"alg": ALGORITHM, "typ": "JWT", "kid": key_id}
    text = ".".join(encoded(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims))
    return f"{text}.{encoded(await signer.sign(text.encode()))}"


def local_signer(data_dir: Path, *, may_make: bool) -> LocalSigner | None:
    """The key of a data directory.

    Args:
        data_dir: holds `issuer.key`, an RSA key in PEM.
        may_make: make one where there is none; several machines need the same one, so only a laptop does.

    Returns:
        None where there is no key and none may be made.

    Raises:
        InvalidSettings: others may read the file, or it holds no such key.
    """
    path = data_dir / KEY_FILE
    if not path.exists():
        if not may_make:
            return None
        write_once(path, _new_key())
    return LocalSigner(private_key(read_private(path), source=str(path)))


def private_key(pem: str, *, source: str) -> RSAPrivateKey:
    """An RSA key out of its PEM; InvalidSettings names the source, never what is in it."""
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError):
        raise InvalidSettings(f"{source} holds no private key in PEM.") from None
    if not isinstance(key, RSAPrivateKey):
        raise InvalidSettings(f"{source} holds a key that is not of RSA.")
    return key


def encoded(data: bytes) -> str:
    """Base64 for URLs, without padding (RFC 7515, 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(value: int) -> str:
    return encoded(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def _new_key() -> str:
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
