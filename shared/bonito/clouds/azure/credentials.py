"""What calls to Azure are signed with: short-lived tokens, and an account's key or signature that a person gave."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any

from bonito.clouds.access import BearerToken, TokenAccess
from bonito.errors import AccessDenied

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken, AzureNamedKeyCredential, AzureSasCredential
    from azure.core.credentials_async import AsyncTokenCredential

RENEWED_BEFORE = timedelta(minutes=5)
# Whoever is signed in on a developer's machine is not the deployment.
NO_DEVELOPERS = {
    "exclude_cli_credential": True,
    "exclude_developer_cli_credential": True,
    "exclude_powershell_credential": True,
    "exclude_shared_token_cache_credential": True,
    "exclude_visual_studio_code_credential": True,
    "exclude_broker_credential": True,
}


@dataclass(frozen=True)
class AccountKey:
    """The key of a whole storage account; never printed."""

    account: str
    key: str = field(repr=False)


@dataclass(frozen=True)
class SharedAccessSignature:
    """A signed query string that allows some calls for some time; never printed."""

    query: str = field(repr=False)


StorageAccess = TokenAccess | AccountKey | SharedAccessSignature


def storage_access(account: str, secret: str) -> AccountKey | SharedAccessSignature:
    """What a secret is that somebody stored for a storage account: a shared access signature, or else its key."""
    text = secret.strip()
    if "sig=" in text:
        return SharedAccessSignature(text.removeprefix("?"))
    return AccountKey(account, text)


def credential(access: StorageAccess) -> AzureNamedKeyCredential | AzureSasCredential | AsyncTokenCredential:
    """As the SDK's storage clients take it."""
    from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential

    if isinstance(access, AccountKey):
        return AzureNamedKeyCredential(access.account, access.key)
    if isinstance(access, SharedAccessSignature):
        return AzureSasCredential(access.query)
    return TokenCredential(access)


class TokenCredential:
    """A TokenAccess as the SDK's AsyncTokenCredential; what it cannot get it raises as the access does."""

    def __init__(self, access: TokenAccess) -> None:
        self._access = access

    async def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        """A token for the one scope that the SDK's clients ask for."""
        from azure.core.credentials import AccessToken

        token = await self._access.token(scopes[0])
        return AccessToken(token.token, int(token.expires_at.timestamp()))

    async def close(self) -> None:
        """Nothing is held."""

    async def __aenter__(self) -> TokenCredential:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.close()


class OwnAccess:
    """TokenAccess as the deployment itself, by its managed identity: for its own queues, uploads and vault only.

    Which identity that is, where there are several, the variable AZURE_CLIENT_ID says to Azure's SDK.
    """

    def __init__(self) -> None:
        self._tokens: dict[str, BearerToken] = {}

    async def token(self, scope: str) -> BearerToken:
        """A token of the identity; AccessDenied where there is none."""
        held = self._tokens.get(scope)
        if held is None or held.expires_at - datetime.now(UTC) < RENEWED_BEFORE:
            held = self._tokens[scope] = await self._ask(scope)
        return held

    async def _ask(self, scope: str) -> BearerToken:
        from azure.core.exceptions import AzureError
        from azure.identity.aio import DefaultAzureCredential

        try:
            async with DefaultAzureCredential(**NO_DEVELOPERS) as identity:
                token = await identity.get_token(scope)
        except AzureError as error:
            raise AccessDenied("This deployment has no identity of its own that Azure gives a token to.") from error
        return BearerToken(token.token, datetime.fromtimestamp(token.expires_on, UTC))
