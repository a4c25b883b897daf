"""LiteLLM's HTTP through the egress guard: the transport below all of its clients. Imported only with LiteLLM."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

import httpx

from bonito.egress import client as egress
from bonito.errors import AddressNotAllowed, BonitoError, ProviderFailed, ProviderTimeout

if TYPE_CHECKING:
    from aiohttp import ClientResponse

MAX_REFUSAL_BYTES = 256 * 1024
# What the guard sets itself, or what belongs to a connection.
OWN_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding"})


@dataclass(frozen=True)
class Refusal:
    """An answer that is no success, as the provider sent it."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Call:
    """One call through LiteLLM: which guard it goes through, and what really happened below it.

    Attributes:
        client: the guard.
        timeout_s: until the head of each answer.
        idle_timeout_s: the longest silence inside a body.
        failure: what the guard raised, before LiteLLM made something else of it.
        refusal: the last answer that was no success.
        open_responses: to be closed when the call is given up.
    """

    client: egress.EgressClient
    timeout_s: float
    idle_timeout_s: float
    failure: BonitoError | None = None
    refusal: Refusal | None = None
    open_responses: list[ClientResponse] = field(default_factory=list)

    def close(self) -> None:
        """Hang up wherever an answer is still being read."""
        for response in self.open_responses:
            response.close()
        self.open_responses.clear()


CURRENT_CALL: ContextVar[Call] = ContextVar("litellm_call")


class GuardedTransport(httpx.AsyncBaseTransport):
    """Sends every request of the current call through its guard; outside of a call there is no way out.

    After a failure nothing more is sent: what is tried again, and where, is decided above the provider.
    """

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        call = CURRENT_CALL.get()
        if call.failure is not None or call.refusal is not None:
            return _given_up(request)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in OWN_HEADERS}
        body = await request.aread()
        try:
            response = await call.client.send(
                request.method, str(request.url), headers=headers, body=body or None, timeout_s=call.timeout_s
            )
            call.open_responses.append(response)
            if response.status >= 400:
                call.refusal = await _read_refusal(response, call)
                return _given_up(request, call.refusal)
        except (AddressNotAllowed, ProviderFailed, ProviderTimeout) as error:
            call.failure = error
            return _given_up(request)
        return httpx.Response(
            response.status, headers=list(response.headers.items()), stream=_Body(response, call), request=request
        )


async def _read_refusal(response: ClientResponse, call: Call) -> Refusal:
    body = await egress.read(response, max_bytes=MAX_REFUSAL_BYTES, idle_timeout_s=call.idle_timeout_s)
    return Refusal(response.status, {name.lower(): value for name, value in response.headers.items()}, body)


def _given_up(request: httpx.Request, refusal: Refusal | None = None) -> httpx.Response:
    """An answer that nobody below tries again: OpenAI's SDK obeys the header, and no exception invites LiteLLM to."""
    status, body = (refusal.status, refusal.body) if refusal else (502, b"{}")
    headers = {"content-type": "application/json", "x-should-retry": "false"}
    return httpx.Response(status, headers=headers, content=body, request=request)


class _Body(httpx.AsyncByteStream):
    """The body of a success, piece by piece."""

    def __init__(self, response: ClientResponse, call: Call) -> None:
        self._response, self._call = response, call

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in egress.chunks(self._response, idle_timeout_s=self._call.idle_timeout_s):
                yield piece
        except (ProviderFailed, ProviderTimeout) as error:
            self._call.failure = error
            raise httpx.ReadError(error.message) from error

    async def aclose(self) -> None:
        self._response.close()


class NoTransport(httpx.BaseTransport):
    """For LiteLLM's synchronous clients: nothing here uses them, so nothing leaves through them."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("synchronous requests are not sent", request=request)


def install(litellm: ModuleType) -> None:
    """Put the transport below every client that LiteLLM makes, for this process.

    Raises:
        RuntimeError: this version of LiteLLM makes its clients in another way, so that the guard would not hold.
    """
    handlers = import_module("litellm.llms.custom_httpx.http_handler")
    transport = GuardedTransport()
    make_async, make_sync = handlers.AsyncHTTPHandler.__init__, handlers.HTTPHandler.__init__

    def guarded_async(self: object, *args: object, **given: object) -> None:
        make_async(self, *args, **{**given, "transport": transport, "follow_redirects": False, "shared_session": None})

    def guarded_sync(self: object, *args: object, **given: object) -> None:
        make_sync(self, *args, **{**given, "client": httpx.Client(transport=NoTransport(), trust_env=False)})

    handlers.AsyncHTTPHandler.__init__, handlers.HTTPHandler.__init__ = guarded_async, guarded_sync
    # OpenAI's SDK, below many vendors, takes its clients from these two.
    sessions = {
        "aclient_session": httpx.AsyncClient(transport=transport, trust_env=False),
        "client_session": httpx.Client(transport=NoTransport(), trust_env=False),
    }
    for name, session in sessions.items():
        setattr(litellm, name, session)
    if handlers.AsyncHTTPHandler().transport is not transport:
        raise RuntimeError("LiteLLM's client does not take the guarded transport")
