"""Calls of Google's JSON APIs over the HTTP client that every function has loaded anyway.

Google's own clients for the four services that we use would add 285 ms, 38 MB of memory and 47 MB of package to a cold
start, and block a thread per call that no cancellation reaches; of what they do we need a token, a retry and the
services' way to say no.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from bonito.clouds.access import TokenAccess
from bonito.errors import AccessDenied, BonitoError, Overloaded, UpstreamError

CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"

# Truncated exponential back-off, as https://cloud.google.com/storage/docs/retry-strategy asks for; a longer wait, and a
# longer outage, are the queue's to bridge.
TRIES = 4
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0
CONNECT_S, SILENCE_S = 10.0, 60.0
MAX_ANSWER_BYTES = 16 * 2**20
BROKEN = (aiohttp.ClientError, ConnectionError, TimeoutError)

Params = Mapping[str, str]


class Refused(Exception):
    """An answer of 4xx that another try would not change.

    Attributes:
        status: of the answer.
        reason: Google's word for it, such as `forbidden` or `NOT_FOUND`; empty where there is none.
        text: Google's sentence. It may hold names of accounts and projects: to be recognised, not to be shown.
    """

    def __init__(self, status: int, reason: str, text: str) -> None:
        super().__init__(f"{status} {reason}")
        self.status, self.reason, self.text = status, reason, text


class Api:
    """One of Google's services, called with one access."""

    def __init__(self, service: str, base_url: str, *, access: TokenAccess, scope: str = CLOUD_PLATFORM) -> None:
        """Connect to nothing yet.

        Args:
            service: its name, for people.
            base_url: without a slash at its end.
            access: whose rights the calls have.
            scope: of the tokens that are asked for.
        """
        self.service, self.base_url, self._access, self._scope = service, base_url.rstrip("/"), access, scope

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """Connections for some calls, closed behind them."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
        async with aiohttp.ClientSession(
            timeout=timeout, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
        ) as http:
            yield Session(self, http)

    async def authorization(self) -> str:
        """The header that signs a call; AccessDenied."""
        return f"Bearer {(await self._access.token(self._scope)).token}"


class Session:
    """Calls that share connections."""

    def __init__(self, api: Api, http: aiohttp.ClientSession) -> None:
        self._api, self._http = api, http

    async def call(
        self, method: str, path: str, *, params: Params | None = None, body: Mapping[str, object] | None = None
    ) -> dict[str, Any]:
        """Call, again where that may help, and give the answer's JSON.

        Args:
            method: in capitals.
            path: below the service's address, encoded.
            params: of the query.
            body: sent as JSON. What it asks for must bear being done twice.

        Raises:
            Refused: 4xx.
            AccessDenied: there is no token to be had.
            Overloaded, UpstreamError: the service does not answer, or says that it cannot just now.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"content-type": "application/json"}
        for tried in range(1, TRIES + 1):
            try:
                async with self.opened(method, path, params=params, headers=headers, data=data) as response:
                    return await self.json(response)
            except AccessDenied:
                raise
            except BROKEN as error:
                failure: BonitoError = self.broken(error)
            except UpstreamError as error:
                failure = error
            if tried == TRIES or not await paused(failure, tried):
                raise failure
        raise AssertionError("the last try raises")

    @asynccontextmanager
    async def opened(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        data: bytes | AsyncIterable[bytes] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One try: the response while the block lasts, its body unread.

        Raises:
            Refused, AccessDenied, Overloaded, UpstreamError: as `call`, for an answer that is none.
            aiohttp.ClientError, ConnectionError, TimeoutError: the connection; also while the body is read.
        """
        sent = {"authorization": await self._api.authorization(), "accept-encoding": "identity", **(headers or {})}
        query = f"?{urlencode(params)}" if params else ""
        url = URL(f"{self._api.base_url}{path}{query}", encoded=True)
        response = await self._http.request(method, url, headers=sent, data=data, allow_redirects=False)
        async with response:
            if not 200 <= response.status < 300:
                raise await self._refusal(response)
            yield response

    def broken(self, error: Exception) -> UpstreamError:
        """What a broken connection means to a caller."""
        failure = UpstreamError(f"{self._api.service} cannot be reached, or broke the connection.")
        failure.__cause__ = error
        return failure

    async def json(self, response: aiohttp.ClientResponse) -> dict[str, Any]:
        """The answer's object, empty where there is none; UpstreamError."""
        body = await _read(response)
        try:
            answer = json.loads(body) if body.strip() else None
        except ValueError:
            raise UpstreamError(f"{self._api.service} answered with something that is no JSON.") from None
        return answer if isinstance(answer, dict) else {}

    async def _refusal(self, response: aiohttp.ClientResponse) -> Exception:
        body = await _read(response)
        status, asked = response.status, response.headers.get("retry-after", "")
        wait_s = float(asked) if asked.isdecimal() else None
        if status == 429:
            return Overloaded(f"{self._api.service} asks for fewer calls.", retry_after_s=wait_s)
        if status == 408 or status >= 500:
            return UpstreamError(f"{self._api.service} is out of order ({status}).", retry_after_s=wait_s)
        reason, text = _reason(body)
        return Refused(status, reason, text)


async def paused(failure: BonitoError, tried: int) -> bool:
    """Wait before the next try; False, at once, where the service asked for a longer wait than one call should take."""
    pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (tried - 1)) * (0.5 + random.random() / 2)  # noqa: S311
    if (failure.retry_after_s or 0) > LONGEST_PAUSE_S:
        return False
    await asyncio.sleep(max(pause_s, failure.retry_after_s or 0))
    return True


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            raise aiohttp.ClientPayloadError(f"more than {MAX_ANSWER_BYTES} bytes")
    return bytes(body)


def _reason(body: bytes) -> tuple[str, str]:
    """Google's word and sentence, of https://cloud.google.com/apis/design/errors or Cloud Storage's older shape."""
    try:
        error = json.loads(body)["error"]
        details = error.get("errors") or [{}]
        return str(details[0].get("reason") or error.get("status") or ""), str(error.get("message") or "")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return "", body[:1000].decode(errors="replace")
