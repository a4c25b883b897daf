"""Short-lived access to a customer's cloud account: what a store, a secret store or a provider signs its calls with.

Whoever holds one of these acts for one organization through one of its connections, never with Bonito's own rights.
Each answers as often as it is asked and renews what it holds shortly before that expires.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True)
class AwsCredentials:
    """Keys of an AWS session; never printed.

    Attributes:
        expires_at: when a new session is needed; None for keys that do not expire.
    """

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    expires_at: datetime | None = None


@dataclass(frozen=True)
class BearerToken:
    """An OAuth 2.0 access token, as Azure and Google Cloud take it; never printed."""

    token: str = field(repr=False)
    expires_at: datetime


class AwsAccess(Protocol):
    """A session in a customer's AWS account."""

    async def credentials(self) -> AwsCredentials:
        """Valid for some minutes at least; AccessDenied says what the account refuses."""
        ...


class TokenAccess(Protocol):
    """A session in a customer's Azure tenant or Google Cloud project."""

    async def token(self, scope: str) -> BearerToken:
        """Valid for some minutes at least, for a scope such as `https://storage.azure.com/.default`; AccessDenied."""
        ...
