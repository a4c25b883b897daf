"""Key Vault: secrets by name, in the one vault of the deployment."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from bonito.clouds.access import TokenAccess
from bonito.clouds.azure.credentials import TokenCredential
from bonito.errors import AccessDenied, InvalidRequest, NotFound, UpstreamError

if TYPE_CHECKING:
    from azure.core.exceptions import AzureError

NAME = re.compile(r"[0-9a-zA-Z-]{1,127}")
BUSY_PAUSE_S = 10.0
RETRIES: dict[str, Any] = {"retry_total": 2, "retry_backoff_factor": 0.5}


class KeyVaultSecrets:
    """SecretStore over a vault; references are names below a prefix, so that none leads to another's secret."""

    def __init__(self, vault_url: str, *, access: TokenAccess, prefix: str = "") -> None:
        """Open nothing yet.

        Args:
            vault_url: `https://NAME.vault.azure.net`.
            access: with the role Key Vault Secrets User.
            prefix: every name begins with it.
        """
        self._url, self._access, self._prefix = vault_url, access, prefix

    async def read(self, reference: str) -> str:
        """The secret's present value.

        Raises:
            InvalidRequest: the reference is no name below the prefix.
            NotFound: there is no such secret, or it is disabled.
            AccessDenied: the vault does not let us read it.
            UpstreamError: the vault does not answer.
        """
        from azure.core.exceptions import AzureError
        from azure.keyvault.secrets.aio import SecretClient

        if not NAME.fullmatch(reference) or not reference.startswith(self._prefix):
            raise InvalidRequest(f"A secret's name has letters, digits and hyphens, and begins with {self._prefix!r}.")
        try:
            async with SecretClient(self._url, TokenCredential(self._access), **RETRIES) as client:
                secret = await client.get_secret(reference)
        except AzureError as error:
            raise _translated(error, reference) from error
        return secret.value or ""


def _translated(error: AzureError, name: str) -> NotFound | UpstreamError:
    """The inner codes are those of "Azure Key Vault REST API error codes"."""
    from azure.core.exceptions import HttpResponseError

    status = error.status_code if isinstance(error, HttpResponseError) else None
    inner = _inner_code(error)
    if status == 404 or inner == "SecretDisabled":
        return NotFound(f"There is no enabled secret {name} in the key vault.")
    if inner == "ForbiddenByFirewall":
        return AccessDenied("The key vault's network rules do not let us in.")
    if status in {401, 403}:
        return AccessDenied(f"The secret {name} may not be read: that needs the role Key Vault Secrets User.")
    if status == 429:
        return UpstreamError("The key vault is asked too much at the moment.", retry_after_s=BUSY_PAUSE_S)
    return UpstreamError("The key vault does not answer.")


def _inner_code(error: AzureError) -> str:
    inner = getattr(getattr(error, "error", None), "innererror", None)
    return str(inner.get("code", "")) if isinstance(inner, dict) else ""
