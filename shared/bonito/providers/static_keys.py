"""Access to AWS by keys that an organization entered: they lie sealed in the secret store and do not expire here."""

from __future__ import annotations

from bonito.clouds.access import AwsCredentials


class StaticAwsKeys:
    """AwsAccess that always answers the same keys."""

    def __init__(self, credentials: AwsCredentials) -> None:
        self._credentials = credentials

    async def credentials(self) -> AwsCredentials:
        """The keys."""
        return self._credentials
