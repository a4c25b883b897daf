"""A gateway under a real server, over a real database, with a provider on the loopback."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import openai
import psycopg
import pytest
import uvicorn
from psycopg.rows import dict_row

from bonito.database.pool import Pool, open_pool, tenant
from bonito.egress.client import EgressClient
from bonito.egress.policy import EgressPolicy
from bonito.gateway.app import Services, create_app
from bonito.gateway.retrieval import Searcher
from bonito.metering.sinks import PostgresUsageSink
from bonito.providers import accounts
from bonito.providers.accounts import ProviderAccount, ProviderSettings
from bonito.providers.registry import ProviderRegistry
from bonito.settings import Settings
from bonito.tenancy import credentials, keys
from bonito.tenancy.secrets import SecretBox
from tests import stub_provider
from tests.integration.conftest import Database
from tests.stub_provider import StubProvider

PROVIDER_KEY = "sk-canary-0123456789abcdefghij"
BOX = SecretBox([bytes(32)])


class NoKnowledge:
    """A searcher that nobody should ask."""

    async def search(self, *args: object, **kwargs: object) -> Any:
        raise AssertionError("a knowledge base was searched")


@dataclass
class Gateway:
    """A running gateway; `key` is a gateway key of `org_id`, whose provider `stub` is the stub."""

    url: str
    org_id: uuid.UUID
    key: str
    key_id: uuid.UUID
    pool: Pool
    registry: ProviderRegistry
    usage: PostgresUsageSink
    database: Database
    clients: list[openai.AsyncOpenAI] = field(default_factory=list)

    def client(self, *, key: str | None = None, **options: Any) -> openai.AsyncOpenAI:
        """The unmodified SDK, without its retries and without the certificates that take time to load."""
        http_client = openai.DefaultAsyncHttpxClient(verify=False)
        client = openai.AsyncOpenAI(
            base_url=f"{self.url}/v1", api_key=key or self.key, max_retries=0, http_client=http_client, **options
        )
        self.clients.append(client)
        return client

    async def rows(self) -> list[dict[str, Any]]:
        """The organization's gateway_requests, oldest first, once all are written."""
        await self.usage.flush()
        return self.all_rows()

    def all_rows(self) -> list[dict[str, Any]]:
        with psycopg.connect(self.database.superuser_url, row_factory=dict_row) as connection:
            statement = "SELECT * FROM gateway_requests WHERE org_id = %s ORDER BY created_at"
            return connection.execute(statement, [self.org_id]).fetchall()


@pytest.fixture
async def stub() -> AsyncIterator[StubProvider]:
    async with stub_provider.serving() as running:
        yield running


@pytest.fixture
async def gateway(database: Database, org_id: uuid.UUID, stub: StubProvider) -> AsyncIterator[Gateway]:
    async with running(database, org_id, stub) as started:
        yield started


@asynccontextmanager
async def running(
    database: Database,
    org_id: uuid.UUID,
    stub: StubProvider,
    *,
    searcher: Searcher | None = None,
    settings: Settings | None = None,
    pool: Pool | None = None,
) -> AsyncIterator[Gateway]:
    own_pool = pool or await open_pool(database.runtime_url, max_size=4)
    sink_pool = await open_pool(database.runtime_url, max_size=1)
    client = EgressClient(EgressPolicy().with_loopback())
    registry = ProviderRegistry(own_pool, BOX, client)
    usage = PostgresUsageSink(sink_pool, gather_s=0.01)
    services = Services(settings or Settings(), own_pool, registry, searcher or NoKnowledge(), usage)
    await add_provider(own_pool, registry, org_id, "stub", stub.base_url)
    stub.received.clear()
    key_id, key = await make_key(own_pool, org_id)
    async with serving(create_app(services)) as url:
        gateway = Gateway(url, org_id, key, key_id, own_pool, registry, usage, database)
        yield gateway
        for sdk in gateway.clients:
            await sdk.close()
    await usage.aclose()
    await client.aclose()
    await sink_pool.close()
    if pool is None:
        await own_pool.close()


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """The application under uvicorn, in this loop."""
    config = uvicorn.Config(app, port=0, log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()  # without its main loop, which only ends in steps of 0.1 s
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    await server.shutdown()


async def add_provider(
    pool: Pool,
    registry: ProviderRegistry,
    org_id: uuid.UUID,
    name: str,
    base_url: str,
    *,
    models: Sequence[str] | None = None,
    api_key: str = PROVIDER_KEY,
) -> ProviderAccount:
    async with tenant(pool, org_id) as conn:
        account = await accounts.create(
            conn,
            BOX,
            org_id=org_id,
            provider_id=uuid.uuid4(),
            secret_id=uuid.uuid4(),
            settings=ProviderSettings(name, "openai_compatible", base_url, models=models),
            credential={"api_key": api_key},
        )
    return await registry.verify(org_id, account)


async def make_key(
    pool: Pool,
    org_id: uuid.UUID,
    *,
    knowledge_base_ids: Sequence[uuid.UUID] | None = None,
    expires_at: datetime | None = None,
) -> tuple[uuid.UUID, str]:
    credential, key_id = credentials.mint("bn-", secrets.token_bytes(32)), uuid.uuid4()
    async with tenant(pool, org_id) as conn:
        await keys.create(
            conn,
            org_id=org_id,
            key_id=key_id,
            name=f"key-{key_id}",
            credential=credential,
            knowledge_base_ids=knowledge_base_ids,
            expires_at=expires_at,
        )
    return key_id, credential.text
