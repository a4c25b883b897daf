"""Limits of tiers: nothing passes them, however many try at once, and what they refuse says why (PRC-1…4)."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest

from bonito.database.pool import Pool, tenant
from bonito.errors import TierLimit
from bonito.knowledge import bases, configuration, limits
from bonito.knowledge.configuration import KnowledgeBaseChange, NewKnowledgeBase
from bonito.knowledge.sources import SourcePolicy, UploadSource
from bonito.tenancy import tiers
from bonito.tenancy.tiers import Limits
from tests.integration.conftest import Database
from tests.integration.knowledge.ingesting import PINNED, World, prose
from tests.integration.knowledge.served import HashModels

UPLOADS = SourcePolicy(readable=frozenset({"upload"}))


def set_tier(database: Database, org_id: UUID, tier: str) -> None:
    with psycopg.connect(database.superuser_url) as conn:
        conn.execute("UPDATE organizations SET tier = %s WHERE id = %s", [tier, org_id])


async def create(pool: Pool, org_id: UUID, **options: object) -> bases.KnowledgeBase:
    new = NewKnowledgeBase.model_validate(
        {"name": f"kb-{uuid4().hex[:8]}", "source": UploadSource(type="upload"), **options}
    )
    return await configuration.create_base(pool, HashModels(), org_id=org_id, new=new, sources=UPLOADS)


@pytest.fixture
async def world(database: Database, pool: Pool, org_id: UUID, tmp_path: Path) -> World:
    set_tier(database, org_id, "free")
    return await World.create(pool, org_id, tmp_path)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tier `free` with numbers that a test can reach."""
    monkeypatch.setitem(tiers.TIERS, "free", Limits(1, 3, 10, schedules=False))  # type: ignore[arg-type]


async def usage(world: World) -> limits.Usage:
    async with tenant(world.pool, world.org_id) as conn:
        return await limits.usage(conn, org_id=world.org_id)


@pytest.mark.parametrize(("tier", "most"), [("free", 1), ("pro", 5), ("enterprise", 7), ("scale", 7)])
async def test_knowledge_bases_created_at_once_do_not_pass_the_limit(
    database: Database, pool: Pool, org_id: UUID, tier: str, most: int
) -> None:
    set_tier(database, org_id, tier)

    made = await asyncio.gather(*(create(pool, org_id) for _ in range(7)), return_exceptions=True)

    refused = [error for error in made if isinstance(error, BaseException)]
    assert len(made) - len(refused) == most
    for error in refused:
        assert isinstance(error, TierLimit)
        assert error.required_tier == {"free": "pro", "pro": "enterprise"}[tier]
        assert f"The tier {tier} holds {most} knowledge base" in error.message


async def test_a_deleted_knowledge_base_makes_room(database: Database, pool: Pool, org_id: UUID) -> None:
    set_tier(database, org_id, "free")
    first = await create(pool, org_id)
    with pytest.raises(TierLimit):
        await create(pool, org_id)
    async with tenant(pool, org_id) as conn:
        await bases.delete(conn, org_id=org_id, knowledge_base_id=first.id)

    await create(pool, org_id)


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ({"sync_schedule": "0 3 * * *"}, {"pro", "enterprise", "scale"}),
        ({"embedding_model": "test/hash"}, {"enterprise", "scale"}),
    ],
)
@pytest.mark.parametrize("tier", tiers.NAMES)
async def test_a_tier_allows_schedules_and_chosen_models(
    database: Database, pool: Pool, org_id: UUID, tier: str, options: dict[str, str], allowed: set[str]
) -> None:
    set_tier(database, org_id, tier)
    name = (await create(pool, org_id)).name
    change = KnowledgeBaseChange.model_validate(options)

    async def set_it() -> None:
        await configuration.change_base(
            pool, HashModels(), org_id=org_id, name_or_id=name, change=change, sources=UPLOADS
        )

    if tier in allowed:
        await set_it()
        await create(pool, org_id, **options)
        return
    for refused in (set_it(), create(pool, org_id, **options)):
        with pytest.raises(TierLimit) as caught:
            await refused
        assert caught.value.required_tier == min(allowed, key=tiers.NAMES.index)
        assert caught.value.param == next(iter(options))


@pytest.mark.usefixtures("small")
async def test_documents_over_the_limit_end_in_an_error_that_says_so(world: World) -> None:
    for number in range(6):
        world.write(f"{number}.txt", prose(f"gauge{number}"))

    await world.sync()
    while world.queue.waiting:
        some, world.queue.waiting = world.queue.waiting[:6], world.queue.waiting[6:]
        await asyncio.gather(*(world.run(queue, message) for queue, message, _ in some))

    statuses = await world.statuses()
    assert sorted(statuses.values()) == ["error"] * 3 + ["ready"] * 3
    assert await usage(world) == limits.Usage(1, 3, 3)
    over = next(path for path, status in statuses.items() if status == "error")
    assert await world.error(over) == "The tier free holds 3 documents at most; remove some, or change to pro."
    assert (await world.base()).status == "ready"
    await world.sync()
    assert world.queue.waiting == [], "they are not read again and again"


@pytest.mark.usefixtures("small")
async def test_a_document_over_the_limit_is_not_parsed(world: World) -> None:
    for number in range(3):
        await world.drop(f"{number}.txt", prose("gauge"))
    before = len(world.parser.parsed)

    await world.drop("over.txt", prose("gauge"))

    assert len(world.parser.parsed) == before
    assert (await world.statuses())["over.txt"] == "error"


@pytest.mark.usefixtures("small")
async def test_a_chunk_limit_ends_the_document_that_would_pass_it(world: World) -> None:
    await world.drop("a.txt", prose("barometer", 12))
    assert (await usage(world)).chunks > 3
    await world.drop("large.txt", prose("hygrometer", 40))
    await world.drop("small.txt", prose("anemometer"))

    assert await world.statuses() == {"a.txt": "ready", "large.txt": "error", "small.txt": "ready"}
    assert await world.error("large.txt") == "The tier free holds 10 chunks at most; remove some, or change to pro."
    assert set(await world.served()) == {"a.txt", "small.txt"}
    await world.check_counts()


@pytest.mark.usefixtures("small")
async def test_a_document_may_change_at_the_limit_and_one_that_grows_over_it_keeps_what_it_serves(world: World) -> None:
    for name in ("a", "b", "c"):
        await world.drop(f"{name}.txt", prose(name))

    await world.drop("a.txt", prose("altered"))
    await world.drop("b.txt", prose("grown", 60))

    assert "altered" in (await world.served())["a.txt"]
    assert await world.statuses() == {"a.txt": "ready", "b.txt": "error", "c.txt": "ready"}
    assert (await world.error("b.txt") or "").endswith("The previous version is still served.")


@pytest.mark.usefixtures("small")
async def test_what_was_refused_is_read_when_there_is_room_and_somebody_asks(world: World) -> None:
    for name in ("a", "b", "c", "d"):
        await world.drop(f"{name}.txt", prose(name))
    await world.remove("a.txt")

    await world.sync(retry_failed=True)
    await world.settle()

    assert await world.statuses() == {"b.txt": "ready", "c.txt": "ready", "d.txt": "ready"}


@pytest.mark.usefixtures("small")
async def test_after_a_lower_tier_what_there_is_stays_and_may_shrink(database: Database, world: World) -> None:
    set_tier(database, world.org_id, "enterprise")
    await world.drop("a.txt", prose("a", 60))
    for name in ("b", "c", "d", "e"):
        await world.drop(f"{name}.txt", prose(name))
    set_tier(database, world.org_id, "free")

    await world.drop("a.txt", prose("shrunk", 50))
    await world.drop("f.txt", prose("f"))

    statuses = await world.statuses()
    assert statuses.pop("f.txt") == "error"
    assert set(statuses.values()) == {"ready"}
    assert "shrunk" in (await world.served())["a.txt"]


async def test_usage_counts_a_rebuilt_base_once(world: World) -> None:
    await world.drop("a.txt", prose("barometer", 12))
    before = await usage(world)

    await world.rebuild(dataclasses.replace(PINNED, chunk_size=32))
    await world.sync()
    while world.queue.of("ingest"):
        index = next(i for i, each in enumerate(world.queue.waiting) if each[0] == "ingest")
        await world.run(*world.queue.waiting.pop(index)[:2])
    during = await usage(world)
    await world.settle()

    assert (before.documents, during.documents, (await usage(world)).documents) == (1, 1, 1)
    assert during == await usage(world)
    assert during.chunks > before.chunks
