"""The function's own service account, as the metadata server knows it.

https://cloud.google.com/run/docs/container-contract#metadata-server
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import aiohttp

from bonito.clouds.access import BearerToken
from bonito.clouds.gcp.api import BROKEN
from bonito.errors import UpstreamError

METADATA = "http://metadata.google.internal"
ACCOUNT = "/computeMetadata/v1/instance/service-accounts/default"
TIMEOUT_S = 5.0
# The metadata server itself renews a token four minutes before its end.
EARLY = timedelta(minutes=4)


class OwnAccess:
    """TokenAccess of the function itself: for the deployment's own queues, bucket and secrets, never for a source."""

    def __init__(self, *, metadata_url: str | None = None) -> None:
        self._base_url = (metadata_url or METADATA) + ACCOUNT
        self._tokens: dict[str, BearerToken] = {}
        self._email: str | None = None
        self._lock = asyncio.Lock()

    async def token(self, scope: str) -> BearerToken:
        """Valid for some minutes at least; UpstreamError where there is no metadata server to ask."""
        async with self._lock:
            held = self._tokens.get(scope)
            now = datetime.now(UTC)
            if held is None or held.expires_at - EARLY <= now:
                answer = await self._ask("/token", {"scopes": scope})
                held = _token(answer, now)
                self._tokens[scope] = held
            return held

    async def email(self) -> str:
        """The service account's name; UpstreamError."""
        async with self._lock:
            if self._email is None:
                self._email = (await self._ask("/email", {})).decode().strip()
            return self._email

    async def _ask(self, path: str, params: dict[str, str]) -> bytes:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, trust_env=False) as http,
                http.get(self._base_url + path, params=params, headers={"metadata-flavor": "Google"}) as response,
            ):
                body = await response.read()
        except BROKEN as error:
            raise UpstreamError(
                "The metadata server does not answer; this process may not run on Google Cloud."
            ) from error
        if response.status != 200:
            raise UpstreamError(f"The metadata server gives no identity to this process ({response.status}).")
        return body


def _token(answer: bytes, now: datetime) -> BearerToken:
    try:
        read = json.loads(answer)
        return BearerToken(str(read["access_token"]), now + timedelta(seconds=int(read["expires_in"])))
    except (ValueError, KeyError, TypeError):
        raise UpstreamError("The metadata server answered with something that is no token.") from None
