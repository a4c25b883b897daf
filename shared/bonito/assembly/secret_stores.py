"""Where a deployment keeps the secrets that connections name: its cloud's secret store, or its database."""

from __future__ import annotations

from bonito.clouds.base import SecretStore
from bonito.database.pool import Pool
from bonito.errors import AccessDenied
from bonito.settings import Settings
from bonito.tenancy.named_secrets import NamedSecrets, StoredSecrets
from bonito.tenancy.secrets import SecretBox

VAULT_PATH = "/secrets/"


class NoSecrets:
    """SecretStore of a deployment whose settings do not say where secrets are."""

    def __init__(self, expected: str) -> None:
        """Say what the setting should be."""
        self._expected = expected

    async def read(self, reference: str) -> str:
        """AccessDenied."""
        raise AccessDenied(
            f"This deployment keeps no secrets: its operator sets BONITO_SECRET_PREFIX, {self._expected}."
        )


def named_secrets(settings: Settings, pool: Pool, box: SecretBox) -> NamedSecrets:
    """The organizations' secrets, with the deployment's own rights and each below its organization's name.

    Args:
        settings: of this process. On Azure BONITO_SECRET_PREFIX names the vault too, on Google Cloud the project.
        pool: for secrets in the database.
        box: opens them.
    """
    prefix = settings.secret_prefix
    if settings.cloud == "azure":
        vault_url, found, prefix = prefix.partition(VAULT_PATH)
        store: SecretStore = NoSecrets("as https://NAME.vault.azure.net/secrets/bonito-")
        if found:
            from bonito.clouds.azure.credentials import OwnAccess as OwnAzure
            from bonito.clouds.azure.secrets import KeyVaultSecrets

            store = KeyVaultSecrets(vault_url, access=OwnAzure())
    elif settings.cloud == "gcp":
        store = NoSecrets("as projects/PROJECT/secrets/bonito-")
        if prefix:
            from bonito.clouds.gcp.identity import OwnAccess as OwnGoogle
            from bonito.clouds.gcp.secrets import SecretManager

            store = SecretManager(access=OwnGoogle())
    elif settings.cloud == "aws":
        from bonito.clouds.aws.secrets import SecretsManager

        store = SecretsManager(access=None)
    else:
        store = StoredSecrets(pool, box)
    return NamedSecrets(store, cloud=settings.cloud, prefix=prefix)
