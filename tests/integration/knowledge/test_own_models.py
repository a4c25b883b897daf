"""From a file to an answer with an organization's own provider: chosen by price, pinned, paced, and paid for once."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from aiohttp import web

from bonito.database.pool import Pool, tenant
from bonito.egress.client import EgressClient
from bonito.egress.policy import EgressPolicy
from bonito.knowledge import generations
from bonito.knowledge.search import Searcher, SearchRequest
from bonito.providers import accounts
from bonito.providers.accounts import ProviderSettings
from bonito.providers.registry import ProviderRegistry
from bonito.tenancy.secrets import SecretBox
from tests.integration.knowledge.ingesting import World, prose
from tests.unit.providers.conftest import Serve, serve
from tests.unit.providers.test_azure_openai import KEY, SMALL, Resource

__all__ = ["serve"]
BOX = SecretBox([bytes(32)])


@pytest.fixture
def resource() -> Resource:
    return Resource()


@pytest.fixture
async def registry(pool: Pool, org_id: UUID, resource: Resource, serve: Serve) -> AsyncIterator[ProviderRegistry]:
    settings = ProviderSettings("az", "azure_openai", await serve(resource.handle), models=[SMALL])
    async with EgressClient(EgressPolicy().with_loopback()) as client:
        async with tenant(pool, org_id) as conn:
            await accounts.create(
                conn,
                BOX,
                org_id=org_id,
                provider_id=uuid4(),
                secret_id=uuid4(),
                settings=settings,
                credential={"api_key": KEY},
            )
        yield ProviderRegistry(pool, BOX, client)


@pytest.fixture
async def world(pool: Pool, org_id: UUID, tmp_path: Path, registry: ProviderRegistry) -> World:
    return await world_over(tmp_path, pool, org_id, registry)


async def world_over(folder: Path, pool: Pool, org_id: UUID, registry: ProviderRegistry) -> World:
    chosen = await registry.embedding_model(org_id, "auto")
    pinned = generations.pin(chosen, chunk_size=64, chunk_overlap=8, language="english")
    world = await World.create(pool, org_id, folder, pinned=pinned)
    world.context = dataclasses.replace(world.context, models=registry)
    return world


async def test_auto_is_pinned_by_name_with_its_dimensions(world: World) -> None:
    (generation,) = await world.generations()

    assert (generation.embedding_model, generation.dimensions) == (f"az/{SMALL}", 1536)


async def test_a_file_and_a_question_are_embedded_and_paid_for_by_the_same_price(
    world: World, registry: ProviderRegistry, resource: Resource
) -> None:
    await world.drop("a.txt", prose("barometer", 60))
    searcher = Searcher(world.pool, registry)

    outcome = await searcher.search(
        world.org_id, names=[str(world.base_id)], readable=None, request=SearchRequest("Where is the barometer?")
    )
    again = await searcher.search(
        world.org_id, names=[str(world.base_id)], readable=None, request=SearchRequest("Where is the barometer?")
    )
    rows = await world.rows("SELECT input_tokens, inference_cost_nano_usd, provider FROM gateway_requests")

    chunks = sum(len(body["input"]) for body in resource.bodies[:-1])
    assert outcome.results
    assert (outcome.cost_nano_usd, again.cost_nano_usd) == (3 * 22, 0)
    assert sum(row[0] for row in rows) == 3 * chunks
    assert sum(row[1] for row in rows) == 3 * chunks * 22
    assert {row[2] for row in rows} == {"az"}


async def test_a_pause_that_the_provider_asks_for_holds_for_every_knowledge_base(
    world: World, registry: ProviderRegistry, resource: Resource, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = await world_over(tmp_path / "other", world.pool, world.org_id, registry)
    for each in (world, other):
        each.write("a.txt", prose("barometer"))
        await each.changed("a.txt")
        await each.run(*each.queue.waiting.pop()[:2])
    slow = {"error": {"code": "429", "message": "Slow down."}}
    resource.answer = lambda: web.json_response(slow, status=429, headers={"retry-after": "60"})

    await world.run(*world.queue.waiting.pop()[:2])
    calls = len(resource.requests)
    await other.run(*other.queue.waiting.pop()[:2])

    assert len(resource.requests) == calls, "the provider was not asked again"
    ((queue, _, delay),) = other.queue.waiting
    assert queue == "embed"
    assert delay > timedelta(seconds=50)
