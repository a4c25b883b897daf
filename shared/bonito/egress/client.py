"""The HTTP client for addresses that a customer or a model chose: it connects only to what the policy checked."""

from __future__ import annotations

import asyncio
import io
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

import aiohttp

from bonito.egress.policy import EgressPolicy, Target
from bonito.egress.resolving import GuardedResolver, Lookup, system_lookup
from bonito.errors import ProviderFailed, ProviderTimeout

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_CONNECTIONS = 1000
MAX_CONNECTIONS_PER_HOST = 500
CONNECT_TIMEOUT_S = 15.0  # with the wait for a place in the pool
KEEPALIVE_S = 15.0
DNS_TTL_S = 10  # of addresses that were checked
MAX_BODY_BYTES = 16 * 2**20


class EgressClient:
    """One per process; connections are pooled per event loop, scheme, host and port.

    A pooled connection leads to an address that this client's policy checked when it was made, and the policy never
    changes; so reuse needs no second check. There are no cookies, no proxies or passwords from the environment, and no
    redirects: where a server sends us is again an address that somebody chose.
    """

    def __init__(
        self,
        policy: EgressPolicy,
        *,
        lookup: Lookup = system_lookup,
        ssl_context: ssl.SSLContext | None = None,
        max_connections: int = MAX_CONNECTIONS,
        max_connections_per_host: int = MAX_CONNECTIONS_PER_HOST,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        dns_ttl_s: int = DNS_TTL_S,
    ) -> None:
        self.policy = policy
        self._lookup, self._ssl_context, self._dns_ttl_s = lookup, ssl_context, dns_ttl_s
        self._limits = (max_connections, max_connections_per_host)
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect_timeout_s, sock_connect=connect_timeout_s)
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> EgressClient:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection. A later request opens new ones."""
        session, self._session, self._loop = self._session, None, None
        if session is not None:
            await session.close()

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: str | Target,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 30.0,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send, and give the response while the block lasts; what was not read by then is not read at all.

        Args:
            method: in capitals.
            url: as somebody chose it, or parsed by the policy before.
            headers: sent as they are; `accept-encoding: identity` is added, since bodies are passed on unchanged.
            body: sent as it is.
            timeout_s: until the head of the response has arrived.

        Raises:
            AddressNotAllowed: the policy refuses the address, or one of those that its host resolves to.
            ProviderFailed: no connection, a broken one, no HTTP, or a redirect.
            ProviderTimeout: no connection or no head in time.
        """
        response = await self.send(method, url, headers=headers, body=body, timeout_s=timeout_s)
        try:
            with translated_errors(response.url.raw_host or ""):
                yield response
        finally:
            response.close()

    async def send(
        self,
        method: str,
        url: str | Target,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 30.0,
    ) -> aiohttp.ClientResponse:
        """As `request`, for a response that outlives the block: the caller must close it."""
        target = url if isinstance(url, Target) else self.policy.parse(url)
        sent = {"accept-encoding": "identity", "user-agent": "bonito"} | {
            k.lower(): v for k, v in (headers or {}).items()
        }
        with translated_errors(target.host):
            async with asyncio.timeout(timeout_s):
                response = await (await self._session_here()).request(
                    method,
                    target.url,
                    headers=sent,
                    data=None if body is None else _payload(body),
                    allow_redirects=False,
                )
        if 300 <= response.status < 400 and response.status != 304:
            response.close()
            raise ProviderFailed(f"{target.host} answered with a redirect ({response.status}), which is not followed.")
        return response

    async def _session_here(self) -> aiohttp.ClientSession:
        """The session of the running loop; one of a loop that ended is forgotten with its connections."""
        loop = asyncio.get_running_loop()
        if self._session is not None and self._loop is not loop:
            if self._loop is not None and not self._loop.is_closed():
                raise RuntimeError("This EgressClient serves another event loop, which is still open.")
            await self.aclose()
        if self._session is None:
            self._session, self._loop = self._new_session(), loop
        return self._session

    def _new_session(self) -> aiohttp.ClientSession:
        limit, limit_per_host = self._limits
        connector = aiohttp.TCPConnector(
            resolver=GuardedResolver(self.policy, self._lookup),
            ssl=self._ssl_context or True,
            limit=limit,
            limit_per_host=limit_per_host,
            keepalive_timeout=KEEPALIVE_S,
            use_dns_cache=self._dns_ttl_s > 0,
            ttl_dns_cache=self._dns_ttl_s,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            timeout=self._timeout,
        )


async def chunks(response: aiohttp.ClientResponse, *, idle_timeout_s: float) -> AsyncIterator[bytes]:
    """The body as it comes, in whatever pieces.

    Raises:
        ProviderTimeout: nothing came for `idle_timeout_s`.
        ProviderFailed: the connection broke before the end of the body.
    """
    host = response.url.raw_host or ""
    while True:
        with translated_errors(host):
            async with asyncio.timeout(idle_timeout_s):
                piece = await response.content.readany()
        if not piece:
            return
        yield piece


async def read(
    response: aiohttp.ClientResponse, *, max_bytes: int = MAX_BODY_BYTES, idle_timeout_s: float = 60.0
) -> bytes:
    """The whole body; ProviderFailed before more than `max_bytes` are held, ProviderTimeout."""
    host = response.url.raw_host or ""
    if (response.content_length or 0) > max_bytes:
        response.close()
        raise ProviderFailed(f"{host} answered with more than {max_bytes} bytes.")
    body = bytearray()
    async for piece in chunks(response, idle_timeout_s=idle_timeout_s):
        body += piece
        if len(body) > max_bytes:
            response.close()
            raise ProviderFailed(f"{host} answered with more than {max_bytes} bytes.")
    return bytes(body)


@contextmanager
def translated_errors(host: str) -> Iterator[None]:
    """Turn what aiohttp raises into typed errors whose messages name the host and nothing else."""
    try:
        yield
    except (TimeoutError, aiohttp.ServerTimeoutError) as error:
        raise ProviderTimeout(f"{host} did not answer in time.") from error
    except aiohttp.ClientConnectorDNSError as error:
        raise ProviderFailed(f"The host {host} is not known.") from error
    except (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch) as error:
        raise ProviderFailed(f"The certificate of {host} could not be verified.") from error
    except aiohttp.ClientConnectorError as error:
        raise ProviderFailed(f"No connection to {host}: it refused, or cannot be reached.") from error
    except (aiohttp.ClientError, ConnectionError) as error:
        raise ProviderFailed(f"The connection to {host} broke.") from error


def _payload(body: bytes) -> bytes | io.BytesIO:
    """A body above aiohttp's own bound is sent in pieces, so that it does not hold the loop."""
    return body if len(body) <= 2**20 else io.BytesIO(body)
