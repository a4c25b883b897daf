"""The issuer of a deployment, out of its settings: where it is found, and which keys sign."""

from __future__ import annotations

from bonito.clouds.identity import Issuer, Signer, local_signer
from bonito.errors import InvalidSettings
from bonito.settings import Settings


def issuer_of(settings: Settings, *, may_make_key: bool) -> Issuer | None:
    """The issuer; None for a deployment without a public address or without a key, which vouches for nobody.

    Args:
        settings: of this process.
        may_make_key: make a key in the data directory where none is named.

    Raises:
        InvalidSettings: BONITO_SIGNING_KEY names something that is no key, or the key file cannot be used.
    """
    if not settings.public_url:
        return None
    named = [name.strip() for name in settings.signing_key.split(",") if name.strip()]
    if named:
        return Issuer(settings.public_url, [_signer(name) for name in named])
    signer = local_signer(settings.data_dir, may_make=may_make_key)
    return Issuer(settings.public_url, [signer]) if signer is not None else None


def _signer(name: str) -> Signer:
    """The key service's own, with the deployment's own rights; recognised by the form of the name."""
    from bonito.clouds.aws import requests, signing
    from bonito.clouds.azure import credentials
    from bonito.clouds.azure import signing as azure
    from bonito.clouds.gcp import identity
    from bonito.clouds.gcp import signing as gcp

    if signing.KEY_ARN.fullmatch(name):
        return signing.KmsSigner(name, access=requests.OwnAccess())
    if azure.KEY_URL.fullmatch(name):
        return azure.KeyVaultSigner(name, access=credentials.OwnAccess())
    if gcp.KEY_VERSION.fullmatch(name):
        return gcp.CloudKmsSigner(name, access=identity.OwnAccess())
    raise InvalidSettings(
        f"BONITO_SIGNING_KEY: {name[:200]} is no ARN of a key in AWS KMS, no URL of a version of a key in Key Vault, "
        "and no version of a key in Cloud KMS."
    )
