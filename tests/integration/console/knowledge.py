"""A console that listens on loopback, with a model that hashes, a folder for sources and one for its data."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import uvicorn

from bonito.console.app import create_app
from bonito.console.services import Services
from bonito.database.pool import Pool
from bonito.settings import Settings
from bonito.tenancy.permissions import Role
from tests.integration.conftest import Database
from tests.integration.console.services import ListQueue, make_services
from tests.integration.knowledge.served import HashModels
from tests.integration.people import make_member

MAX_BYTES = 200_000


@dataclasses.dataclass(frozen=True)
class Console:
    """A running console, what its queue was sent, and its folders."""

    database: Database
    pool: Pool
    url: str
    queue: ListQueue
    root: Path
    data_dir: Path

    def client(self, org_id: UUID, role: Role = Role.OWNER) -> httpx.AsyncClient:
        """A client with a new member's token; close it."""
        token = make_member(self.database, org_id, role).token
        return httpx.AsyncClient(
            base_url=f"{self.url}/api", headers={"authorization": f"Bearer {token}"}, trust_env=False, timeout=30
        )

    def sent(self, queue: str) -> list[dict[str, Any]]:
        """The messages of one queue."""
        return [dict(message) for name, message in self.queue.sent if name == queue]


@asynccontextmanager
async def running(database: Database, pool: Pool, folder: Path, **settings: object) -> AsyncIterator[Console]:
    """Serve until the block ends."""
    root, data_dir = folder / "root", folder / "data"
    root.mkdir()
    chosen = {"data_dir": data_dir, "local_roots": str(root), "max_object_bytes": MAX_BYTES} | settings
    queue = ListQueue()
    services: Services = dataclasses.replace(
        make_services(pool), settings=Settings.model_validate(chosen), queue=queue, models=HashModels()
    )
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(services), log_level="warning", lifespan="off", access_log=False))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    host, port = listener.getsockname()
    try:
        yield Console(database, pool, f"http://{host}:{port}", queue, root, data_dir)
    finally:
        server.should_exit = True
        await serving
