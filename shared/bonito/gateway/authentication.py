"""Who calls /v1: the key in the Authorization header, looked up at most every ten seconds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from bonito.database.pool import Pool
from bonito.database.snapshots import Snapshots
from bonito.errors import AuthenticationFailed
from bonito.tenancy import credentials, keys
from bonito.tenancy.keys import Principal

MISSING = "No key was sent: put a gateway key into the header, as `Authorization: Bearer bn-…`."
UNKNOWN = "The gateway key (bn-…) is unknown, expired or revoked."
OTHER_KINDS = {
    "rt-": "Keys of routing policies (rt-…) are not served by this deployment; use a gateway key (bn-…).",
    "bt-": "A VPC gateway's token (bt-…) does not open /v1; use a gateway key (bn-…).",
    "bp-": "A personal token (bp-…) opens /api alone; on /v1 use a gateway key (bn-…).",
}


def utc_now() -> datetime:
    """The time, aware."""
    return datetime.now(UTC)


class GatewayKeys:
    """Finds a key's principal, from memory while what was read is at most ten seconds old.

    When the database is down, keys that were read go on for that age; the others are answered 503, never 401.
    """

    def __init__(self, pool: Pool, *, now: Callable[[], datetime] = utc_now) -> None:
        self._now = now
        self._principals: Snapshots[bytes, Principal] = Snapshots(lambda key_hash: keys.find(pool, key_hash))

    async def authenticate(self, authorization: str | None) -> Principal:
        """Whose key the header holds.

        Raises:
            AuthenticationFailed: none, one of another kind, or one that is unknown, expired or revoked.
            Overloaded: the database has no connection to spare.
            psycopg.Error: the database is down.
        """
        scheme, _, presented = (authorization or "").partition(" ")
        presented = presented.strip()
        if scheme.lower() != "bearer" or not presented:
            raise AuthenticationFailed(MISSING)
        if not credentials.is_well_formed("bn-", presented):
            raise AuthenticationFailed(OTHER_KINDS.get(presented[:3], UNKNOWN))
        principal = await self._principals.get(credentials.hash_of(presented))
        if principal is None or (principal.expires_at is not None and principal.expires_at <= self._now()):
            raise AuthenticationFailed(UNKNOWN)
        return principal
