"""One box for all scenarios of a module: moto's S3 and SQS, the doors under Lambda's runtime client, real Postgres."""

from __future__ import annotations

import asyncio
import base64
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from bonito.database.pool import Pool, tenant
from bonito.egress.client import EgressClient
from bonito.egress.policy import EgressPolicy
from bonito.knowledge import bases, generations
from bonito.knowledge.bases import Options, Source
from bonito.knowledge.search import Searcher, SearchRequest
from bonito.providers import accounts
from bonito.providers.accounts import ProviderSettings
from bonito.providers.registry import ProviderRegistry
from bonito.tenancy.secrets import SecretBox
from tests.acceptance.provider import EMBEDDING_MODEL
from tests.acceptance.provider import running as running_provider
from tests.emulators import aws_box
from tests.emulators.aws_box import Box, Queue
from tests.functions.claiming import claim
from tests.integration.conftest import Database, cluster, database, org_id, other_org_id, pool

__all__ = ["cluster", "database", "org_id", "other_org_id", "pool"]

ROOT = Path(__file__).parents[3]
KEY = bytes(32)
PATIENCE_S = 120.0


@dataclass
class Deployment:
    """Bonito in the box."""

    box: Box
    environ: dict[str, str]
    ingest: Queue
    embed: Queue
    sync: Queue
    provider_url: str

    def settle(self) -> None:
        """Wait until no message waits, is delayed or in somebody's hands."""
        deadline, calm = time.monotonic() + PATIENCE_S, 0
        while calm < 3:
            assert time.monotonic() < deadline, "the queues do not get empty"
            calm = calm + 1 if sum(queue.depth() for queue in (self.ingest, self.embed, self.sync)) == 0 else 0
            time.sleep(0.1)


@pytest.fixture(scope="module")
def deployment(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    logs = tmp_path_factory.mktemp("logs")
    with running_provider() as provider, aws_box.running(ROOT, logs) as box:
        queues = {step: box.queue(f"bonito-{step}") for step in ("ingest", "embed", "sync")}
        environ = {
            "BONITO_CLOUD": "aws",
            "BONITO_DATABASE_URL": database.runtime_url,
            "BONITO_MAINTENANCE_DATABASE_URL": database.maintenance_url,
            "BONITO_ENCRYPTION_KEY": base64.b64encode(KEY).decode(),
            "BONITO_EGRESS_ALLOW": "127.0.0.1",
            **{f"BONITO_{step.upper()}_QUEUE": queue.url for step, queue in queues.items()},
        }
        for step, queue in queues.items():
            box.map(queue, box.function(f"tests.functions.aws.box_doors.{step}", environ))
        yield Deployment(box, environ, **queues, provider_url=provider.base_url)


@dataclass
class Shelf:
    """A knowledge base over a bucket of its own."""

    deployment: Deployment
    pool: Pool
    org_id: UUID
    registry: ProviderRegistry
    bucket: str
    prefix: str = ""
    base_id: UUID = field(default_factory=uuid.uuid4)

    # what a person does

    async def put(self, key: str, content: bytes | str) -> None:
        body = content.encode() if isinstance(content, str) else content
        await asyncio.to_thread(self.s3.put_object, Bucket=self.bucket, Key=key, Body=body)

    async def rename(self, old: str, new: str) -> None:
        source = {"Bucket": self.bucket, "Key": old}
        await asyncio.to_thread(self.s3.copy_object, Bucket=self.bucket, Key=new, CopySource=source)
        await self.remove(old)

    async def remove(self, key: str) -> None:
        await asyncio.to_thread(self.s3.delete_object, Bucket=self.bucket, Key=key)

    async def settle(self) -> None:
        await asyncio.to_thread(self.deployment.settle)

    @property
    def s3(self) -> Any:
        return self.deployment.box.s3

    # what readers see

    async def rows(self, statement: str) -> list[tuple[Any, ...]]:
        async with tenant(self.pool, self.org_id) as conn:
            return await (await conn.execute(statement, {"base": self.base_id})).fetchall()  # type: ignore[call-overload]

    async def served(self) -> dict[str, str]:
        """Per path the text that search can find."""
        found = await self.rows(
            """SELECT d.file_path, string_agg(c.content, E'\\n' ORDER BY c.chunk_index)
                 FROM knowledge_bases b
                 JOIN kb_revisions r ON r.org_id = b.org_id AND r.generation_id = b.served_generation
                                    AND r.status = 'served'
                 JOIN kb_index i ON i.org_id = r.org_id AND i.revision_id = r.id
                 JOIN kb_chunks c ON c.org_id = i.org_id AND c.id = i.chunk_id
                 JOIN kb_documents d ON d.org_id = r.org_id AND d.id = r.document_id
                WHERE b.id = %(base)s GROUP BY d.file_path"""
        )
        return dict(found)

    async def documents(self) -> dict[str, tuple[str, str | None]]:
        """Per path status and message."""
        found = await self.rows(
            "SELECT file_path, status, error_message FROM kb_documents"
            " WHERE knowledge_base_id = %(base)s AND deleted_at IS NULL"
        )
        return {path: (status, message) for path, status, message in found}

    async def search(self, query: str) -> list[str]:
        """The paths of what is found, best first."""
        request = SearchRequest(query, top_k=3)
        searcher = Searcher(self.pool, self.registry)
        found = await searcher.search(self.org_id, names=[str(self.base_id)], readable=None, request=request)
        return [result.document_path for result in found.results]


@pytest.fixture
async def registry(pool: Pool) -> AsyncIterator[ProviderRegistry]:
    async with EgressClient(EgressPolicy().with_loopback()) as client:
        yield ProviderRegistry(pool, SecretBox([KEY]), client)


@pytest.fixture
async def shelf(deployment: Deployment, pool: Pool, org_id: UUID, registry: ProviderRegistry) -> Shelf:
    """A bucket that notifies, and an organization with a provider and a knowledge base over it."""
    made = Shelf(deployment, pool, org_id, registry, f"docs-{uuid.uuid4().hex}")
    await asyncio.to_thread(deployment.box.bucket, made.bucket, deployment.ingest)
    await register(made)
    return made


async def register(shelf: Shelf) -> None:
    """Make the organization's provider, and the knowledge base."""
    settings = ProviderSettings("stub", "openai_compatible", shelf.deployment.provider_url, models=[EMBEDDING_MODEL])
    async with tenant(shelf.pool, shelf.org_id) as conn:
        await accounts.create(
            conn,
            SecretBox([KEY]),
            org_id=shelf.org_id,
            provider_id=uuid.uuid4(),
            secret_id=uuid.uuid4(),
            settings=settings,
            credential={"api_key": "sk-stub"},
        )
    model = await shelf.registry.embedding_model(shelf.org_id, EMBEDDING_MODEL)
    connection_id = await claim(shelf.pool, shelf.org_id, cloud="aws", bucket=shelf.bucket)
    async with tenant(shelf.pool, shelf.org_id) as conn:
        await bases.create(
            conn,
            org_id=shelf.org_id,
            knowledge_base_id=shelf.base_id,
            generation_id=uuid.uuid4(),
            options=Options(name=f"kb-{shelf.base_id.hex[:8]}"),
            source=Source("s3", {"type": "s3"}, shelf.bucket, shelf.prefix, connection_id),
            pinned=generations.pin(model, chunk_size=128, chunk_overlap=16, language="english"),
        )
