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

from bonito.clouds.base import ObjectStore
from bonito.clouds.local import FolderStore, UploadFolder
from bonito.console.app import create_app
from bonito.console.services import Services
from bonito.database.pool import Pool
from bonito.knowledge import ingestion, sync, uploads, vectors
from bonito.knowledge.bases import KnowledgeBase
from bonito.knowledge.context import Ingestion
from bonito.knowledge.messages import EmbedMessage, IngestMessage, SyncMessage
from bonito.settings import Settings
from bonito.tenancy.permissions import Role
from tests.integration.conftest import Database
from tests.integration.console.services import ListQueue, make_services
from tests.integration.knowledge.ingesting import Parsers
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

    async def work(self) -> None:
        """Do what the queue asks for until it is empty, as a worker does."""
        context = Ingestion(self.pool, Stores(self.data_dir), self.queue, HashModels(), Parsers())
        for _ in range(1000):
            if not self.queue.sent:
                return
            queue, message = self.queue.sent.pop(0)
            if queue == "ingest":
                await ingestion.ingest(context, IngestMessage.from_json(message))
            elif queue == "embed":
                await vectors.embed(context, EmbedMessage.from_json(message))
            else:
                await sync.sync(context, SyncMessage.from_json(message))
        raise AssertionError("the queue does not get empty")

    def sent(self, queue: str) -> list[dict[str, Any]]:
        """The messages of one queue."""
        return [dict(message) for name, message in self.queue.sent if name == queue]


class Stores:
    """Where documents lie: in the folder that a source names, or among the uploads."""

    def __init__(self, data_dir: Path) -> None:
        self._root = data_dir / "uploads"

    async def store(self, org_id: UUID, base: KnowledgeBase) -> ObjectStore:
        if base.source_type == "upload":
            return uploads.store_of(self._root, org_id=org_id, knowledge_base_id=base.id)
        return FolderStore(Path(base.source_bucket))

    def uploads(self, org_id: UUID, knowledge_base_id: UUID) -> UploadFolder:
        return uploads.store_of(self._root, org_id=org_id, knowledge_base_id=knowledge_base_id)

    async def discard(self, org_id: UUID, knowledge_base_id: UUID) -> None:
        await uploads.discard(self._root, org_id=org_id, knowledge_base_id=knowledge_base_id)


@asynccontextmanager
async def running(database: Database, pool: Pool, folder: Path, **settings: object) -> AsyncIterator[Console]:
    """Serve until the block ends."""
    root, data_dir = folder / "root", folder / "data"
    root.mkdir()
    chosen = {"data_dir": data_dir, "local_roots": str(root), "max_object_bytes": MAX_BYTES} | settings
    queue = ListQueue()
    services: Services = dataclasses.replace(
        make_services(pool, data_dir), settings=Settings.model_validate(chosen), queue=queue, models=HashModels()
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
