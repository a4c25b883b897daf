"""Bonito's tokens: signed, short-lived, for one organization and one audience."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bonito.clouds.identity import Issuer, LocalSigner, PublicKey, encoded, local_signer
from bonito.errors import InvalidSettings
from tests.unit.clouds.playing import ISSUER_URL, KEY, ORGANIZATION, claims_of, decoded

NOW = 1_800_000_000


async def test_a_token_says_who_asks_whom_and_for_how_long() -> None:
    issuer = Issuer(ISSUER_URL, [LocalSigner(KEY)], clock=lambda: NOW + 0.9)

    claims = claims_of(await issuer.token(subject=ORGANIZATION, audience="sts.amazonaws.com"), await issuer.jwks())

    assert claims.pop("jti")
    assert claims == {
        "iss": ISSUER_URL,
        "sub": ORGANIZATION,
        "aud": "sts.amazonaws.com",
        "iat": NOW,
        "nbf": NOW,
        "exp": NOW + 300,
    }


async def test_no_two_tokens_are_the_same() -> None:
    issuer = Issuer(ISSUER_URL, [LocalSigner(KEY)], clock=lambda: NOW)

    assert await issuer.token(subject="a", audience="b") != await issuer.token(subject="a", audience="b")


async def test_a_changed_token_does_not_verify() -> None:
    issuer = Issuer(ISSUER_URL, [LocalSigner(KEY)])
    head, body, signature = (await issuer.token(subject=ORGANIZATION, audience="a")).split(".")
    forged = encoded(decoded(body).replace(ORGANIZATION[:8].encode(), b"00000000"))

    with pytest.raises(InvalidSignature):
        claims_of(f"{head}.{forged}.{signature}", await issuer.jwks())


async def test_the_first_key_signs_and_those_before_it_are_still_published() -> None:
    old, new = LocalSigner(KEY), LocalSigner(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    before, after = Issuer(ISSUER_URL, [old]), Issuer(ISSUER_URL, [new, old])

    under_way = await before.token(subject="a", audience="b")
    fresh = await after.token(subject="a", audience="b")

    assert claims_of(under_way, await after.jwks())["sub"] == "a"
    assert claims_of(fresh, await after.jwks())["sub"] == "a"
    assert len({key["kid"] for key in (await after.jwks())["keys"]}) == 2


async def test_the_published_keys_hold_nothing_private() -> None:
    (key,) = (await Issuer(ISSUER_URL, [LocalSigner(KEY)]).jwks())["keys"]

    assert set(key) == {"kty", "use", "alg", "kid", "n", "e"}


def test_the_discovery_document_leads_to_the_keys() -> None:
    document = Issuer(ISSUER_URL, [LocalSigner(KEY)]).discovery()

    assert (document["issuer"], document["jwks_uri"]) == (ISSUER_URL, f"{ISSUER_URL}/.well-known/jwks.json")
    assert document["id_token_signing_alg_values_supported"] == ["RS256"]


def test_a_keys_id_is_its_thumbprint() -> None:
    """RFC 7638, 3.1: its own example."""
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3okn"
        "jhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qM"
        "QvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJz"
        "KnqDKgw"
    )
    key = PublicKey(modulus=int.from_bytes(decoded(modulus), "big"), exponent=65537)

    assert key.key_id == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


async def test_a_laptops_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    first, second = local_signer(tmp_path, may_make=True), local_signer(tmp_path, may_make=False)

    assert first is not None
    assert second is not None
    assert await first.public_key() == await second.public_key()
    assert stat.S_IMODE((tmp_path / "issuer.key").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["issuer.key"]


def test_one_of_several_machines_makes_no_key_of_its_own(tmp_path: Path) -> None:
    assert local_signer(tmp_path, may_make=False) is None


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    local_signer(tmp_path, may_make=True)
    (tmp_path / "issuer.key").chmod(0o640)

    with pytest.raises(InvalidSettings, match="chmod 600"):
        local_signer(tmp_path, may_make=True)


@pytest.mark.parametrize("kind", ["elliptic", "none"])
def test_what_is_no_rsa_key_is_refused_without_being_shown(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "issuer.key"
    pem = (
        ec.generate_private_key(ec.SECP256R1())
        .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        .decode()
        if kind == "elliptic"
        else "canary"
    )
    path.write_text(pem)
    path.chmod(0o600)

    with pytest.raises(InvalidSettings) as refused:
        local_signer(tmp_path, may_make=True)
    assert pem not in refused.value.message
