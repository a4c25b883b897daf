"""Which issuer the settings make."""

from __future__ import annotations

from pathlib import Path

import pytest

from bonito.assembly.identity import issuer_of
from bonito.clouds.aws.signing import KmsSigner
from bonito.clouds.azure.signing import KeyVaultSigner
from bonito.clouds.gcp.signing import CloudKmsSigner
from bonito.errors import InvalidSettings
from bonito.settings import Settings
from tests.unit.clouds.playing import claims_of

ARN = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
KEY_URL = "https://bonito.vault.azure.net/keys/issuer/0123456789abcdef0123456789abcdef"
VERSION = "projects/p/locations/europe/keyRings/bonito/cryptoKeys/issuer/cryptoKeyVersions/1"


def settings(tmp_path: Path, **values: str) -> Settings:
    return Settings.model_validate({"data_dir": tmp_path, "public_url": "https://bonito.example.com"} | values)


def test_each_key_service_is_known_by_the_form_of_its_names(tmp_path: Path) -> None:
    issuer = issuer_of(settings(tmp_path, signing_key=f"{ARN}, {KEY_URL},{VERSION}"), may_make_key=False)

    assert issuer is not None
    assert [type(signer) for signer in issuer._signers] == [KmsSigner, KeyVaultSigner, CloudKmsSigner]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["issuer.key", "alias/issuer", KEY_URL.rpartition("/")[0], "http" + KEY_URL[5:]])
def test_what_is_no_key_stops_the_start(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidSettings, match="BONITO_SIGNING_KEY"):
        issuer_of(settings(tmp_path, signing_key=name), may_make_key=True)


async def test_a_laptop_makes_its_key(tmp_path: Path) -> None:
    issuer = issuer_of(settings(tmp_path), may_make_key=True)

    assert issuer is not None
    token = await issuer.token(subject="a", audience="b")
    assert claims_of(token, await issuer.jwks())["iss"] == "https://bonito.example.com"


def test_without_an_address_or_a_key_nobody_is_vouched_for(tmp_path: Path) -> None:
    assert issuer_of(settings(tmp_path, public_url=""), may_make_key=True) is None
    assert issuer_of(settings(tmp_path), may_make_key=False) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["bonito.example.com", "https://bonito.example.com/", "https://a b", "ftp://x"])
def test_an_address_is_a_plain_url_without_a_slash_at_its_end(url: str) -> None:
    with pytest.raises(InvalidSettings, match="BONITO_PUBLIC_URL"):
        Settings.from_environ({"BONITO_PUBLIC_URL": url})
