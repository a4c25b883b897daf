"""The way of a request through the gateway, stage by stage: one pipeline, streaming or not.

authenticate → limits → policy → budget → retrieve and augment → route → reserve → call → relay → settle → log

Limits, policies, budgets and reservations are not built yet; where they belong, `_run` says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter
from typing import TypeVar
from uuid import UUID

import orjson
import psycopg

from bonito.errors import AddressNotAllowed, BonitoError, InvalidRequest, Overloaded, ProviderFailed, openai_body
from bonito.gateway import requests
from bonito.gateway.augmentation import context_message
from bonito.gateway.authentication import GatewayKeys
from bonito.gateway.citations import bonito_key
from bonito.gateway.client import Client, ClientDisconnected
from bonito.gateway.config import GatewayConfig, GatewayConfigs
from bonito.gateway.journal import CLIENT_CLOSED_REQUEST, Journal
from bonito.gateway.relay import StreamRelay, usage_of, with_bonito
from bonito.gateway.requests import GatewayRequest
from bonito.gateway.retrieval import Searcher, retrieve
from bonito.metering.usage import Operation, UsageSink
from bonito.providers.base import Provider, ProviderRequest, ProviderResponse, Usage
from bonito.providers.deployments import Deployment
from bonito.providers.registry import ProviderRegistry
from bonito.providers.sse import DONE, encode

EVENT_STREAM = "text/event-stream"
STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold the stream back
]

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pipeline:
    """The stages, over what they need.

    Attributes:
        keys: who calls.
        configs: what is known of an organization.
        registry: makes its providers callable.
        searcher: of knowledge bases.
        usage: takes one record per request.
        max_request_bytes: larger bodies are refused.
        provider_timeout_s: until a provider's answer begins.
        refuse_stream_options: the providers that were seen to.
    """

    keys: GatewayKeys
    configs: GatewayConfigs
    registry: ProviderRegistry
    searcher: Searcher
    usage: UsageSink
    max_request_bytes: int
    provider_timeout_s: float
    refuse_stream_options: set[UUID] = field(default_factory=set)

    async def handle(self, operation: Operation, client: Client) -> None:
        """Answer one request, whatever happens, and leave one record of it if the caller was recognised."""
        journal = Journal(operation, client.request_id, client.id, datetime.now(UTC), perf_counter())
        try:
            await self._run(journal, client)
        except ClientDisconnected:
            journal.failed(CLIENT_CLOSED_REQUEST, "client_disconnected")
        except asyncio.CancelledError:
            journal.failed(Overloaded.status, "cancelled")
            raise
        except Exception as error:  # noqa: BLE001 - the entry point: whatever it is, the caller gets an answer
            await self._refuse(journal, client, typed_error(error, client.request_id))
        finally:
            await self._log(journal)

    async def _run(self, journal: Journal, client: Client) -> None:
        """All stages in their order."""
        journal.begin()
        journal.principal = await self.keys.authenticate(client.headers.get("authorization"))
        config = await self.configs.config(journal.principal.org_id)
        journal.ended("auth")
        # Limits: a lease of requests on the key's GCRA, spent here, before the body is read.
        body = await client.read_body(max_bytes=self.max_request_bytes)
        request = requests.parse(body, operation=journal.operation, headers=client.headers)
        journal.request = request
        # Policy: may this key use the model, and must it name a knowledge base?
        # Budget: is there room for the query's embedding and for the call?
        async with client.watched():
            context = await self._retrieve_and_augment(journal, request)
            deployment = await self._route(journal, config, request)
            # Reserve: the most that the call can cost, before it is made.
            response = await self._call(journal, client, deployment, context)
            try:
                await self._relay(journal, client, request, response)
            finally:
                await response.aclose()
                # Settle: what it did cost, also where it was cancelled.

    async def _retrieve_and_augment(self, journal: Journal, request: GatewayRequest) -> str | None:
        """What was found, as a system message; None without a knowledge base, and where the caller goes on without."""
        if request.retrieval is None:
            return None
        journal.begin()
        try:
            retrieval = await retrieve(self.searcher, expect(journal.principal), request.retrieval)
        finally:
            journal.ended("retrieve")
        journal.retrieval = retrieval
        return None if retrieval.status == "failed" else context_message(retrieval.results)

    async def _route(self, journal: Journal, config: GatewayConfig, request: GatewayRequest) -> Deployment:
        """Which provider answers, as which model; ModelNotFound, InvalidRequest."""
        journal.begin()
        journal.deployment = await self.registry.deployment(config.providers, request.model)
        journal.ended("route")
        return journal.deployment

    async def _call(
        self, journal: Journal, client: Client, deployment: Deployment, context: str | None
    ) -> ProviderResponse:
        """The provider's answer as soon as its head is there.

        One attempt; a second one only where the provider does not know `stream_options`, which was ours.
        """
        journal.begin()
        provider = await self._provider(journal, deployment)
        request = expect(journal.request)
        asks_usage = deployment.account.id not in self.refuse_stream_options
        while True:
            body = request.provider_body(model=deployment.model, context=context, asks_usage=asks_usage)
            upstream = ProviderRequest(
                operation=journal.operation,
                body=body,
                is_stream=request.is_stream,
                headers=client.forwarded_headers,
                timeout_s=self.provider_timeout_s,
            )
            try:
                response = await provider.call(upstream)
            except asyncio.CancelledError:
                journal.attempted("cancelled")
                raise
            except BonitoError as error:
                journal.attempted(error.code)
                if isinstance(error, AddressNotAllowed):
                    raise _unusable(deployment) from error
                if not (asks_usage and request.has_unasked_usage and _is_about_stream_options(error)):
                    raise
                asks_usage = False
                self.refuse_stream_options.add(deployment.account.id)
            else:
                journal.attempted("ok")
                return response

    async def _provider(self, journal: Journal, deployment: Deployment) -> Provider:
        """What calls the deployment; a provider that is set up wrongly is not the caller's mistake."""
        org_id = expect(journal.principal).org_id
        try:
            return await self.registry.provider(org_id, deployment.account)
        except Overloaded:
            raise
        except BonitoError as error:
            journal.attempted(ProviderFailed.code)
            logger.warning("Provider %s of %s cannot be used: %s", deployment.account.name, org_id, error.code)
            raise _unusable(deployment) from error

    async def _relay(
        self, journal: Journal, client: Client, request: GatewayRequest, response: ProviderResponse
    ) -> None:
        """Pass the answer on, whole or piece by piece, with the `bonito` key."""
        is_stream = response.content_type == EVENT_STREAM
        if is_stream != request.is_stream:
            raise ProviderFailed(
                "The provider answered with one object where a stream was asked for."
                if request.is_stream
                else "The provider answered with a stream where one object was asked for."
            )
        await (self._relay_stream if is_stream else self._relay_whole)(journal, client, request, response)

    async def _relay_whole(
        self, journal: Journal, client: Client, request: GatewayRequest, response: ProviderResponse
    ) -> None:
        pieces = [piece async for piece in response.chunks()]
        journal.answer = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        journal.ended("provider")
        journal.usage = usage_of(journal.answer)
        answer = with_bonito(journal.answer, self._key(journal, journal.usage))
        await self._log(journal)
        head = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await client.start(response.status, [*head, *journal.headers()])
        await client.end(answer)

    async def _relay_stream(
        self, journal: Journal, client: Client, request: GatewayRequest, response: ProviderResponse
    ) -> None:
        relay = StreamRelay(
            journal.operation,
            opening=self._opening(journal),
            closing=lambda usage: self._key(journal, usage),
            shows_usage=request.wants_usage,
        )
        async for piece in response.chunks():
            out = relay.feed(piece)
            journal.streamed_chunks, journal.usage = relay.chunks, relay.usage
            if out:
                await self._send_piece(journal, client, out)
            if relay.failure is not None:
                raise relay.failure
        rest = relay.finish()
        journal.usage = relay.usage
        if relay.failure is not None:
            if rest:
                await self._send_piece(journal, client, rest)
            raise relay.failure
        if not client.has_started:
            await self._send_piece(journal, client, b"")
        await self._log(journal)
        await client.end(rest)

    async def _send_piece(self, journal: Journal, client: Client, piece: bytes) -> None:
        """The head goes out with the first piece: until then a failure still has a status of its own."""
        if not client.has_started:
            journal.ended("provider")
            journal.first_token_ms = journal.elapsed_ms()
            await client.start(200, [*STREAM_HEADERS, *journal.headers()])
        if piece:
            await client.write(piece)

    def _opening(self, journal: Journal) -> bytes | None:
        """What the first chunk of a stream tells; None where nothing was retrieved."""
        if journal.retrieval is None:
            return None
        return bonito_key(journal.retrieval, journal.route, inference_cost_nano_usd=None, is_final=False)

    def _key(self, journal: Journal, usage: Usage | None) -> bytes:
        cost = journal.inference_cost_nano_usd(usage)
        return bonito_key(journal.retrieval, journal.route, inference_cost_nano_usd=cost, is_final=True)

    async def _refuse(self, journal: Journal, client: Client, error: BonitoError) -> None:
        """Answer with the error: as a status, or in the stream where that has begun."""
        journal.failed(error.status, error.code)
        await self._log(journal)
        body = orjson.dumps(openai_body(error))
        with contextlib.suppress(ClientDisconnected):
            if client.has_started:
                await client.end(encode(body) + DONE)
            else:
                await client.answer(error.status, error_headers(error) | _decoded(journal), body)

    async def _log(self, journal: Journal) -> None:
        """Hand the record over, once, before the last byte."""
        if journal.is_recorded:
            return
        journal.is_recorded = True
        record = journal.record()
        if record is not None:
            await self.usage.record(record)


def typed_error(error: Exception, request_id: str) -> BonitoError:
    """What the caller is told; what was not foreseen goes to the log, by type and place: its text may hold content."""
    if isinstance(error, BonitoError):
        return error
    if isinstance(error, psycopg.OperationalError):
        logger.warning("Request %s found no database: %s", request_id, type(error).__name__)
        return Overloaded("The database cannot be reached right now.", retry_after_s=1.0)
    places = "".join(traceback.format_tb(error.__traceback__))
    logger.error("Request %s failed: %s\n%s", request_id, type(error).__name__, places)
    return BonitoError(f"The gateway failed; the request's id is {request_id}.")


def error_headers(error: BonitoError) -> dict[str, str]:
    """What a refusal tells in its head: when to come back."""
    return {} if error.retry_after_s is None else {"retry-after": str(max(0, -int(-error.retry_after_s // 1)))}


def expect(value: T | None) -> T:
    """What an earlier stage has found."""
    assert value is not None  # noqa: S101 - the stages run in their order
    return value


def _unusable(deployment: Deployment) -> ProviderFailed:
    return ProviderFailed(f"The provider {deployment.account.name} cannot be used here; its settings need a look.")


def _is_about_stream_options(error: BonitoError) -> bool:
    return isinstance(error, InvalidRequest) and "stream_options" in f"{error.param} {error.message}"


def _decoded(journal: Journal) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in journal.headers()}
