"""The console on a loopback port, in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from bonito.console.app import create_app
from bonito.database.pool import open_pool
from tests.integration.conftest import Database
from tests.integration.console.services import loopback_client, make_services


@contextmanager
def serving(database: Database, data_dir: Path) -> Iterator[str]:
    """Serve until the block ends; the address is yielded."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()  # whoever calls before the server is up waits, and is not refused
    stop: list[uvicorn.Server] = []

    async def serve() -> None:
        pool = await open_pool(database.runtime_url)
        client = loopback_client()
        try:
            app = create_app(make_services(pool, data_dir, client))
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
