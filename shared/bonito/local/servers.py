"""The servers of a deployment: gateway and console as ASGI applications under uvicorn, and the worker beside them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import timedelta
from types import FrameType
from typing import Literal

from starlette.types import ASGIApp, Receive, Scope, Send

from bonito.assembly.parts import Parts, assembled
from bonito.clouds.local import open_queue
from bonito.console import app as console
from bonito.console.services import Services as ConsoleServices
from bonito.errors import InvalidSettings
from bonito.gateway import app as gateway
from bonito.gateway.app import Services as GatewayServices
from bonito.knowledge.parsing.process import ParserProcess
from bonito.local import external, worker
from bonito.settings import Settings

Part = Literal["gateway", "console"]

# A stream that is still being read when the server stops gets this long.
GRACE_S = 10


def gateway_app(parts: Parts) -> ASGIApp:
    """/v1 over these parts."""
    return gateway.create_app(
        GatewayServices(
            settings=parts.settings,
            pool=parts.pool,
            registry=parts.registry,
            searcher=parts.searcher,
            usage=parts.usage,
        )
    )


def console_app(parts: Parts) -> ASGIApp:
    """/api and /hooks over these parts."""
    return console.create_app(
        ConsoleServices(
            settings=parts.settings,
            pool=parts.pool,
            secret_box=parts.box,
            queue=parts.queue,
            models=parts.registry,
            registry=parts.registry,
            searcher=parts.searcher,
            usage=parts.usage,
            accesses=parts.accesses,
            uploads=parts.uploads,
            buckets=parts.buckets,
        )
    )


class OnePort:
    """Both applications on one port: /api, /hooks and /.well-known are the console's, everything else the gateway's."""

    def __init__(self, parts: Parts) -> None:
        self._gateway, self._console = gateway_app(parts), console_app(parts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's entry."""
        is_console = scope["type"] == "http" and _first_part(scope["path"]) in {"api", "hooks", ".well-known"}
        await (self._console if is_console else self._gateway)(scope, receive, send)


class Opened:
    """An application whose parts are made when the server starts, and closed when it stops."""

    def __init__(self, parts: AbstractAsyncContextManager[Parts], make: Callable[[Parts], ASGIApp]) -> None:
        self._parts, self._make = parts, make
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's entry."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        assert self._app is not None  # noqa: S101 - a server sends requests after the start
        await self._app(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with AsyncExitStack() as stack:
            self._app = self._make(await stack.enter_async_context(self._parts))
            settle_memory()
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


def make_gateway() -> ASGIApp:
    """What uvicorn imports in each process of `bonito serve gateway`."""
    return _opened(gateway_app)


def make_console() -> ASGIApp:
    """What uvicorn imports in each process of `bonito serve console`."""
    return _opened(console_app)


@contextlib.contextmanager
def until_stopped() -> Iterator[None]:
    """SIGINT and SIGTERM end the body as KeyboardInterrupt, wherever it is, and that is a good end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    with contextlib.suppress(KeyboardInterrupt):
        yield


def settle_memory() -> None:
    """Spare the garbage collector what the start has made, and what lives as long as the process.

    Its passes over all that were a third of a request's CPU (bench/gateway.py: 1,790 requests a second with, 2,530
    without).
    """
    gc.collect()
    gc.freeze()


def log_to_stderr(settings: Settings) -> None:
    """Our own messages from BONITO_LOG_LEVEL on, those of libraries from warnings on."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("bonito").setLevel(settings.log_level.upper())


def serve(part: Part, settings: Settings, *, host: str, port: int, workers: int) -> None:
    """Serve until the process is told to stop.

    Raises:
        InvalidSettings, SchemaMismatch, UnsafeDatabaseRole: told here, before any process of the server is started.
    """
    import uvicorn

    with until_stopped():
        external.check_reachable("BONITO_DATABASE_URL", _runtime_url(settings))
        asyncio.run(_try_out(settings))
        uvicorn.run(
            f"bonito.local.servers:make_{part}",
            factory=True,
            host=host,
            port=port,
            workers=workers,
            lifespan="on",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
        )


async def serve_here(parts: Parts, listener: socket.socket, *, announce: Callable[[], None]) -> None:
    """Serve both applications on a bound socket, in this event loop, until SIGINT or SIGTERM.

    Args:
        parts: what they work with.
        listener: bound, not listening yet.
        announce: called once requests are taken.
    """
    import uvicorn

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            settle_memory()
            announce()

    config = uvicorn.Config(
        OnePort(parts),
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises the signal again when it has stopped
        await Announcing(config).serve(sockets=[listener])


def run_worker(settings: Settings) -> None:
    """Work off the queue, with the schedule, until the process is told to stop."""
    log_to_stderr(settings)

    async def work() -> None:
        maintenance = settings.maintenance_database_url
        options = worker_options(settings, maintenance.get_secret_value() if maintenance else None, is_alone=False)
        url = await _ready_url(settings)
        async with (
            open_queue(url) as queue,
            assembled(settings, url, queue, is_laptop=False) as parts,
            ParserProcess() as parser,
        ):
            await worker.run(parts.ingestion(parser), queue, options)

    with until_stopped():
        external.check_reachable("BONITO_DATABASE_URL", _runtime_url(settings))
        asyncio.run(work())


def worker_options(settings: Settings, maintenance_url: str | None, *, is_alone: bool) -> worker.Options:
    """How this process works off the queue; alone, it may listen, and whatever was in hand before is its own."""
    return worker.Options(
        concurrency=settings.worker_concurrency,
        can_listen=is_alone,
        is_alone=is_alone,
        reconcile=timedelta(minutes=settings.reconcile_minutes),
        maintenance_url=maintenance_url,
    )


def _first_part(path: str) -> str:
    return path.removeprefix("/").partition("/")[0]


def _opened(make: Callable[[Parts], ASGIApp]) -> Opened:
    settings = Settings.from_environ(os.environ)
    log_to_stderr(settings)
    return Opened(_assembled(settings), make)


async def _try_out(settings: Settings) -> None:
    """Make the parts once, for the sentence in which they may refuse."""
    async with _assembled(settings):
        pass


@contextlib.asynccontextmanager
async def _assembled(settings: Settings) -> AsyncIterator[Parts]:
    url = await _ready_url(settings)
    async with open_queue(url) as queue, assembled(settings, url, queue, is_laptop=False) as parts:
        yield parts


async def _ready_url(settings: Settings) -> str:
    url = _runtime_url(settings)
    await external.check_ready(url)
    return url


def _runtime_url(settings: Settings) -> str:
    if settings.database_url is None:
        raise InvalidSettings("BONITO_DATABASE_URL is not set; only `bonito up` brings a database along.")
    return settings.database_url.get_secret_value()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
