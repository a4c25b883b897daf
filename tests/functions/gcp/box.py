"""Google Cloud in a box: a bucket that notifies, queues that deliver, functions under Google's framework, Postgres."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from google.cloud.storage import Bucket

from bonito.clouds.gcp.queue import open_queue
from bonito.database.pool import Pool, open_pool, tenant
from bonito.egress.client import EgressClient
from bonito.egress.policy import EgressPolicy
from bonito.knowledge import bases, generations, sync_status
from bonito.knowledge.bases import Options, Source
from bonito.knowledge.messages import SyncMessage
from bonito.knowledge.search import Searcher, SearchRequest
from bonito.knowledge.sync_status import Sync
from bonito.providers import accounts
from bonito.providers.accounts import ProviderSettings
from bonito.providers.registry import ProviderRegistry
from bonito.settings import Settings
from bonito.tenancy.secrets import SecretBox
from tests.acceptance.provider import EMBEDDING_MODEL
from tests.emulators import cloud_tasks, eventarc, gcs
from tests.emulators.cloud_tasks import CloudTasks
from tests.emulators.delivering import Deliveries
from tests.emulators.eventarc import Eventarc
from tests.emulators.functions_framework import Function, function
from tests.emulators.gcs import CloudStorage
from tests.emulators.google import StaticAccess
from tests.functions.claiming import claim
from tests.integration.conftest import Database, make_organization
from tests.stub_provider import StubProvider

COMPOSED = Path(__file__).with_name("composed.py")
KEY = bytes(32)
TARGETS = ("notified", "ingest", "embed", "sync", "tick")


@dataclass
class Box:
    """Everything that runs, and what a test asks of it."""

    database: Database
    pool: Pool
    registry: ProviderRegistry
    storage: CloudStorage
    eventarc: Eventarc
    tasks: CloudTasks
    provider: StubProvider
    functions: dict[str, Function] = field(default_factory=dict)

    async def settle(self) -> None:
        """Return when no event and no task is on its way."""
        while self.eventarc.deliveries.is_busy or self.tasks.deliveries.is_busy:
            await self.eventarc.deliveries.idle()
            await self.tasks.deliveries.idle()

    async def send(self, queue: str, message: Mapping[str, object]) -> None:
        """As the console does it."""
        settings = Settings.from_environ(self.tasks.env())
        async with open_queue(
            settings, access=StaticAccess(), tasks_url=self.tasks.url, pubsub_url=self.tasks.url
        ) as opened:
            await opened.send(queue, message)

    async def base(self, *, prefix: str = "", bucket: Bucket | None = None) -> Base:
        """A knowledge base over a new bucket that notifies, or over one that is there."""
        org_id = make_organization(self.database)
        await self._add_provider(org_id)
        if bucket is None:
            bucket = await asyncio.to_thread(self.storage.bucket, f"docs-{uuid4().hex[:8]}")
            self.eventarc.targets[bucket.name] = self.functions["notified"].url
        base_id = uuid4()
        name = f"stub/{EMBEDDING_MODEL}"
        pinned = generations.pin(
            await self.registry.embedding_model(org_id, name), chunk_size=256, chunk_overlap=16, language="english"
        )
        connection_id = await claim(self.pool, org_id, cloud="gcp", bucket=bucket.name)
        config = {"type": "gcs", "bucket": bucket.name, "prefix": prefix}
        source = Source("gcs", config, bucket.name, prefix, connection_id)
        async with tenant(self.pool, org_id) as conn:
            await bases.create(
                conn,
                org_id=org_id,
                knowledge_base_id=base_id,
                generation_id=uuid4(),
                options=Options(name="kb", embedding_model=name),
                source=source,
                pinned=pinned,
            )
        return Base(self, org_id, base_id, bucket)

    async def _add_provider(self, org_id: UUID) -> None:
        async with tenant(self.pool, org_id) as conn:
            await accounts.create(
                conn,
                SecretBox([KEY]),
                org_id=org_id,
                provider_id=uuid4(),
                secret_id=uuid4(),
                settings=ProviderSettings("stub", "openai_compatible", self.provider.base_url),
                credential={"api_key": "sk-of-the-organization"},
            )


@dataclass
class Base:
    """One knowledge base, its bucket, and what its readers find."""

    box: Box
    org_id: UUID
    id: UUID
    bucket: Bucket

    async def put(self, name: str, content: str | bytes) -> None:
        """Upload; the event is on its way when this returns."""
        blob = self.bucket.blob(name)
        await asyncio.to_thread(blob.upload_from_string, content, "text/plain")
        await self.box.eventarc.published["OBJECT_FINALIZE", self.bucket.name, name, str(blob.generation)].wait()

    async def delete(self, name: str) -> None:
        """Delete; the event is on its way when this returns."""
        blob = self.bucket.blob(name)
        await asyncio.to_thread(blob.reload)
        await asyncio.to_thread(blob.delete)
        await self.box.eventarc.published["OBJECT_DELETE", self.bucket.name, name, str(blob.generation)].wait()

    async def sync(self) -> Sync:
        """Have the bucket listed, work until nothing is left to do, and say how the sync ended."""
        message = SyncMessage(self.org_id, self.id)
        await self.box.send("sync", message.to_json())
        await self.box.settle()
        async with tenant(self.box.pool, self.org_id) as conn:
            last = await sync_status.last(conn, org_id=self.org_id, knowledge_base_id=self.id)
        assert last is not None
        return last

    async def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        async with tenant(self.box.pool, self.org_id) as conn:
            return await (await conn.execute(statement, values)).fetchall()  # type: ignore[call-overload]

    async def served(self) -> dict[str, str]:
        """Per path the text that is searched."""
        found = await self.rows(
            """SELECT d.file_path, string_agg(c.content, E'\\n' ORDER BY c.chunk_index)
                 FROM knowledge_bases b
                 JOIN kb_revisions r ON r.generation_id = b.served_generation AND r.status = 'served'
                 JOIN kb_index i ON i.revision_id = r.id JOIN kb_chunks c ON c.id = i.chunk_id
                 JOIN kb_documents d ON d.id = r.document_id
                WHERE b.id = %s GROUP BY d.file_path""",
            self.id,
        )
        return dict(found)

    async def documents(self) -> dict[str, tuple[str, str | None]]:
        """Per path its status and its error."""
        found = await self.rows(
            """SELECT file_path, status, error_message FROM kb_documents
                WHERE knowledge_base_id = %s AND deleted_at IS NULL""",
            self.id,
        )
        return {path: (status, error) for path, status, error in found}

    async def search(self, query: str) -> list[str]:
        """The documents of the results, best first."""
        searcher = Searcher(self.box.pool, self.box.registry)
        outcome = await searcher.search(self.org_id, names=["kb"], readable=None, request=SearchRequest(query, top_k=3))
        return [result.document_path for result in outcome.results]

    async def counters_are_counts(self) -> bool:
        found = await self.rows(
            """SELECT g.document_count = count(r.id) AND g.chunk_count = coalesce(sum(r.chunk_count), 0)
                 FROM kb_generations g LEFT JOIN kb_revisions r ON r.generation_id = g.id AND r.status = 'served'
                WHERE g.knowledge_base_id = %s GROUP BY g.id, g.document_count, g.chunk_count""",
            self.id,
        )
        return all(row[0] for row in found)


@asynccontextmanager
async def running(database: Database, provider: StubProvider, folder: Path) -> AsyncIterator[Box]:
    """Start everything; a function's process takes most of a second."""
    async with AsyncExitStack() as stack:
        arc = await stack.enter_async_context(eventarc.serving(Deliveries(duplicate=0.2)))
        tasks = await stack.enter_async_context(cloud_tasks.serving(Deliveries(duplicate=0.1)))
        storage = stack.enter_context(gcs.running(folder, pubsub_port=arc.port))
        pool = await open_pool(database.runtime_url, min_size=1, max_size=4)
        stack.push_async_callback(pool.close)
        client = await stack.enter_async_context(EgressClient(EgressPolicy().with_loopback()))
        registry = ProviderRegistry(pool, SecretBox([KEY]), client, local_embedding=None)
        box = Box(database, pool, registry, storage, arc, tasks, provider)
        env = tasks.env() | {
            "BONITO_CLOUD": "gcp",
            "BONITO_DATABASE_URL": database.runtime_url,
            "BONITO_ENCRYPTION_KEY": base64.b64encode(KEY).decode(),
            "BONITO_EGRESS_ALLOW": "127.0.0.0/8",
            "BONITO_TEST_TASKS_URL": tasks.url,
            "BONITO_TEST_STORAGE_URL": storage.url,
        }
        started = {target: function(COMPOSED, target, folder=folder, env=env) for target in TARGETS}
        for each in started.values():
            stack.push(each)
        running = await asyncio.gather(*(asyncio.to_thread(each.__enter__) for each in started.values()))
        box.functions |= dict(zip(started, running, strict=True))
        tasks.targets |= {step: box.functions[step].url for step in ("ingest", "embed", "sync")}
        yield box
