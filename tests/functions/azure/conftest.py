"""A deployment on Azure in a box: Azurite, a database, a provider, and the function app under Microsoft's worker."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from azure.storage.blob.aio import ContainerClient
from azure.storage.queue.aio import QueueServiceClient

from bonito.database.pool import Pool, tenant
from bonito.knowledge.bases import Source
from bonito.providers import accounts
from bonito.providers.accounts import ProviderSettings
from bonito.tenancy.secrets import SecretBox
from tests.emulators.azurite import ACCOUNT, Azurite
from tests.functions.azure import embeddings
from tests.functions.azure.embeddings import Embeddings
from tests.functions.claiming import claim
from tests.integration.clouds.azure.conftest import container, emulator
from tests.integration.conftest import Database, cluster, database, org_id, pool
from tests.integration.knowledge.ingesting import PINNED, World

__all__ = ["cluster", "container", "database", "emulator", "org_id", "pool"]

ROOT = Path(__file__).parents[3]
APP = Path(__file__).parent / "app"
MASTER_KEY = bytes(32)
MODEL = "hash"
PATIENCE_S = 90.0
TOPIC = f"/subscriptions/s/resourceGroups/r/providers/Microsoft.Storage/storageAccounts/{ACCOUNT}"


@dataclass
class Host:
    """A running functions host."""

    process: asyncio.subprocess.Process
    functions: Mapping[str, Any]

    async def run(self, name: str) -> None:
        """Run a timer's function once."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{name}\n".encode())
        assert await self.read() == {"ran": name}

    async def read(self) -> Any:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        assert line, "the host ended"
        return json.loads(line)


@dataclass
class Deployment:
    """What a person does at Azure, and what a reader sees."""

    world: World
    container: ContainerClient
    queues: QueueServiceClient
    names: Mapping[str, str]
    environ: Mapping[str, str]
    provider: Embeddings

    @asynccontextmanager
    async def running(self, *functions: str, app: Path = APP) -> AsyncIterator[Host]:
        """The functions run inside of the block."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.emulators.functions_host", str(app), *functions),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **self.environ},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**20,
        )
        try:
            host = Host(process, {})
            host.functions = await host.read()
            yield host
        finally:
            assert process.stdin is not None
            process.stdin.close()
            await process.wait()

    async def put(self, key: str, content: bytes | str) -> None:
        """A person uploads a blob, and Event Grid tells of it."""
        await self.container.upload_blob(key, content, overwrite=True)
        await self.tell(self.event("BlobCreated", key, api="PutBlob"))

    async def remove(self, key: str) -> None:
        await self.container.delete_blob(key)
        await self.tell(self.cloud_event("BlobDeleted", key, api="DeleteBlob"))

    async def rename(self, key: str, to: str) -> None:
        """As the Data Lake API does."""
        content = await (await self.container.download_blob(key)).readall()
        await self.container.delete_blob(key)
        await self.container.upload_blob(to, content)
        event = self.event("BlobRenamed", to, api="RenameFile")
        event["data"] |= {"sourceUrl": self._address(key), "destinationUrl": self._address(to)}
        await self.tell(event)

    async def tell(self, event: object, *, queue: str = "ingest") -> None:
        """A message as Event Grid puts it into a queue."""
        content = base64.b64encode(json.dumps(event).encode()).decode()
        await self.queues.get_queue_client(self.names[queue]).send_message(content)

    def event(self, kind: str, key: str, *, api: str) -> dict[str, Any]:
        """In Event Grid's schema."""
        return {
            "topic": TOPIC,
            "subject": f"/blobServices/default/containers/{self.container.container_name}/blobs/{key}",
            "eventType": f"Microsoft.Storage.{kind}",
            "id": str(uuid.uuid4()),
            "eventTime": datetime.now(UTC).isoformat(),
            "data": {"api": api, "url": self._address(key), "contentLength": 1, "blobType": "BlockBlob"},
            "dataVersion": "",
            "metadataVersion": "1",
        }

    def cloud_event(self, kind: str, key: str, *, api: str) -> dict[str, Any]:
        """The same as a CloudEvent."""
        event = self.event(kind, key, api=api)
        renamed = {"topic": "source", "eventType": "type", "eventTime": "time"}
        kept = {renamed.get(name, name): value for name, value in event.items() if not name.endswith("Version")}
        return kept | {"specversion": "1.0"}

    async def poison(self) -> list[Any]:
        """What lies in the queue beside `ingest`."""
        client = self.queues.get_queue_client(f"{self.names['ingest']}-poison")
        return [json.loads(base64.b64decode(message.content)) for message in await client.peek_messages(32)]

    async def count(self, queue: str) -> int:
        properties = await self.queues.get_queue_client(self.names[queue]).get_queue_properties()
        return properties.approximate_message_count or 0

    async def served(self, expected: Callable[[dict[str, str]], bool]) -> dict[str, str]:
        """Wait until what search can find is as expected."""
        return await eventually(self.world.served, expected)

    def _address(self, key: str) -> str:
        return f"https://{ACCOUNT}.blob.core.windows.net/{self.container.container_name}/{quote(key)}"


async def eventually(look: Callable[[], Awaitable[Any]], expected: Callable[[Any], bool]) -> Any:
    """Wait until the value is as expected and return it; the last value is in the failure."""
    value = None
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not expected(value := await look()):
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"still {value!r}") from None
    return value


@pytest.fixture
async def provider() -> AsyncIterator[Embeddings]:
    async with embeddings.serving() as started:
        yield started


@pytest.fixture
async def deployment(
    emulator: Azurite,
    container: ContainerClient,
    database: Database,
    pool: Pool,
    org_id: uuid.UUID,
    provider: Embeddings,
    tmp_path: Path,
) -> AsyncIterator[Deployment]:
    bucket = f"{ACCOUNT}/{container.container_name}"
    model = {"embedding_model": f"stub/{MODEL}", "embedding_fingerprint": f"{provider.base_url} {MODEL}"}
    connection_id = await claim(pool, org_id, cloud="azure", bucket=bucket)
    source = Source("azure_blob", {"type": "azure_blob"}, bucket, "docs/", connection_id)
    world = await World.create(pool, org_id, tmp_path, pinned=replace(PINNED, **model), source=source)
    async with tenant(pool, org_id) as conn:
        await accounts.create(
            conn,
            SecretBox([MASTER_KEY]),
            org_id=org_id,
            provider_id=uuid.uuid4(),
            secret_id=uuid.uuid4(),
            settings=ProviderSettings("stub", "openai_compatible", base_url=provider.base_url, models=[MODEL]),
            credential={"api_key": "sk-stub"},
        )
    names = {step: f"{step}-{uuid.uuid4().hex}" for step in ("ingest", "embed", "sync")}
    environ = {f"BONITO_{step.upper()}_QUEUE": name for step, name in names.items()} | {
        "AzureWebJobsStorage": emulator.connection_string,
        "BONITO_CLOUD": "azure",
        "BONITO_DATABASE_URL": database.runtime_url,
        "BONITO_MAINTENANCE_DATABASE_URL": database.maintenance_url,
        "BONITO_ENCRYPTION_KEY": base64.b64encode(MASTER_KEY).decode(),
        "BONITO_EGRESS_ALLOW": "127.0.0.1",
        "BONITO_QUEUE_SERVICE": emulator.connection_string,
        "BONITO_TEST_BLOB_URL": emulator.blob_url,
    }
    async with QueueServiceClient.from_connection_string(emulator.connection_string) as queues:
        for name in names.values():
            await queues.create_queue(name)
        yield Deployment(world, container, queues, names, environ, provider)
