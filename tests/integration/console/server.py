"""The console on a loopback port, in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from bonito.console.app import create_app
from bonito.database.pool import open_pool
from tests.integration.conftest import Database
from tests.integration.console.services import loopback_client, make_accesses, make_services


@contextmanager
def serving(database: Database, data_dir: Path, *, has_issuer: bool = True) -> Iterator[str]:
    """Serve until the block ends; the address is yielded.

    Without an issuer there is no federation, so that whatever is sent to the console, it calls no cloud.
    """
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()  # whoever calls before the server is up waits, and is not refused
    stop: list[uvicorn.Server] = []

    async def serve() -> None:
        pool = await open_pool(database.runtime_url)
        client = loopback_client()
        try:
            services = make_services(pool, data_dir, client)
            accesses = make_accesses(pool, services.secret_box, has_issuer=has_issuer)
            app = create_app(dataclasses.replace(services, accesses=accesses))
            server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", access_log=False))
            stop.append(server)
            await server.serve(sockets=[listener])
        finally:
            await client.aclose()
            await pool.close()

    thread = threading.Thread(target=asyncio.run, args=[serve()])
    thread.start()
    try:
        yield "http://{}:{}".format(*listener.getsockname())
    finally:
        for server in stop:
            server.should_exit = True
        thread.join()
