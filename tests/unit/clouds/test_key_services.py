"""Signing keys in the clouds' key services, each against a server that plays its reference with a real key."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bonito.clouds.access import AwsCredentials, BearerToken
from bonito.clouds.aws.signing import KmsSigner
from bonito.clouds.azure.signing import KeyVaultSigner
from bonito.clouds.gcp.signing import CloudKmsSigner
from bonito.clouds.identity import Issuer, PublicKey, Signer, encoded
from bonito.errors import AccessDenied, InvalidSettings, UpstreamError
from tests.unit.clouds.playing import ISSUER_URL, KEY, ORGANIZATION, Asked, claims_of, decoded, playing

ARN = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
VERSION = "projects/p/locations/europe/keyRings/bonito/cryptoKeys/issuer/cryptoKeyVersions/1"
VAULT_PATH = "/keys/issuer/0123456789abcdef0123456789abcdef"


class Own:
    """The deployment's own rights, in either shape."""

    async def credentials(self) -> AwsCredentials:
        return AwsCredentials("AKIAOWN", "own-secret")

    async def token(self, scope: str) -> BearerToken:
        return BearerToken(f"own {scope}", datetime.now(UTC) + timedelta(hours=1))


def sign(digest: bytes) -> bytes:
    return KEY.sign(digest, PKCS1v15(), Prehashed(SHA256()))


def aws(asked: Asked) -> web.Response:
    """https://docs.aws.amazon.com/kms/latest/APIReference/API_Sign.html"""
    assert asked.json["KeyId"] == ARN
    assert asked.headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIAOWN/")
    assert "/eu-central-1/kms/aws4_request" in asked.headers["Authorization"]
    if asked.headers["X-Amz-Target"] == "TrentService.GetPublicKey":
        der = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return web.json_response({"KeyId": ARN, "PublicKey": base64.b64encode(der).decode()})
    assert (asked.json["MessageType"], asked.json["SigningAlgorithm"]) == ("RAW", "RSASSA_PKCS1_V1_5_SHA_256")
    signature = KEY.sign(base64.b64decode(asked.json["Message"]), PKCS1v15(), SHA256())
    return web.json_response({"KeyId": ARN, "Signature": base64.b64encode(signature).decode()})


def azure(asked: Asked) -> web.Response:
    """https://learn.microsoft.com/en-us/rest/api/keyvault/keys/sign/sign"""
    assert asked.headers["Authorization"] == "Bearer own https://vault.azure.net/.default"
    if asked.method == "GET":
        assert asked.path == f"{VAULT_PATH}?api-version=7.4"
        jwk = PublicKey.of(KEY.public_key()).jwk()
        key = {"kid": "https://v.vault.azure.net" + VAULT_PATH, "kty": "RSA", "n": jwk["n"], "e": jwk["e"]}
        return web.json_response({"key": key, "attributes": {"enabled": True}})
    assert asked.path == f"{VAULT_PATH}/sign?api-version=7.4"
    assert asked.json["alg"] == "RS256"
    return web.json_response({"kid": "x", "value": encoded(sign(decoded(asked.json["value"])))})


def gcp(asked: Asked) -> web.Response:
    """https://cloud.google.com/kms/docs/reference/rest/v1/projects.locations.keyRings.cryptoKeys.cryptoKeyVersions"""
    assert asked.headers["Authorization"] == "Bearer own https://www.googleapis.com/auth/cloudkms"
    if asked.method == "GET":
        assert asked.path == f"/v1/{VERSION}/publicKey"
        pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        return web.json_response({"pem": pem, "algorithm": "RSA_SIGN_PKCS1_2048_SHA256", "name": VERSION})
    assert asked.path == f"/v1/{VERSION}:asymmetricSign"
    signature = sign(base64.b64decode(asked.json["digest"]["sha256"]))
    return web.json_response({"signature": base64.b64encode(signature).decode(), "name": VERSION})


CLOUDS = pytest.mark.parametrize(
    ("play", "signer_at"),
    [
        pytest.param(aws, lambda url: KmsSigner(ARN, access=Own(), endpoint_url=url), id="aws"),
        pytest.param(
            azure,
            lambda url: KeyVaultSigner(url + VAULT_PATH, access=Own(), scope="https://vault.azure.net/.default"),
            id="azure",
        ),
        pytest.param(gcp, lambda url: CloudKmsSigner(VERSION, access=Own(), endpoint_url=url), id="gcp"),
    ],
)


@CLOUDS
async def test_a_token_signed_there_verifies_with_the_key_published_here(
    play: Callable[[Asked], web.Response], signer_at: Callable[[str], Signer]
) -> None:
    async with playing(play) as cloud:
        issuer = Issuer(ISSUER_URL, [signer_at(cloud.url)])
        tokens = [await issuer.token(subject=ORGANIZATION, audience="a") for _ in range(2)]
        jwks = await issuer.jwks()

    assert [claims_of(token, jwks)["sub"] for token in tokens] == [ORGANIZATION] * 2
    assert len(cloud.asked) == 3  # the public key is fetched once


@CLOUDS
async def test_a_key_that_may_not_be_used_is_said_to_be_so(
    play: Callable[[Asked], web.Response], signer_at: Callable[[str], Signer]
) -> None:
    async with playing(lambda asked: web.json_response({"__type": "AccessDeniedException"}, status=403)) as cloud:
        with pytest.raises(AccessDenied, match="the signing key"):
            await signer_at(cloud.url).sign(b"x")


@CLOUDS
async def test_a_key_service_that_fails_is_no_refusal(
    play: Callable[[Asked], web.Response], signer_at: Callable[[str], Signer]
) -> None:
    async with playing(lambda asked: web.Response(status=503)) as cloud:
        with pytest.raises(UpstreamError) as failed:
            await signer_at(cloud.url).public_key()
    assert not isinstance(failed.value, AccessDenied)


async def test_a_key_of_another_kind_is_refused() -> None:
    der = ec.generate_private_key(ec.SECP256R1()).public_key()
    encoded_key = base64.b64encode(der.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
    async with playing(lambda asked: web.json_response({"PublicKey": encoded_key})) as cloud:
        with pytest.raises(InvalidSettings, match="not of RSA"):
            await KmsSigner(ARN, access=Own(), endpoint_url=cloud.url).public_key()


def test_the_vaults_own_cloud_gives_the_tokens_scope() -> None:
    signer = KeyVaultSigner("https://v.vault.azure.cn" + VAULT_PATH, access=Own())

    assert signer._scope == "https://vault.azure.cn/.default"
