"""The sweeper: what nobody is served goes away in batches, what is in work goes on, nobody else's is touched."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from bonito.database.pool import Pool, lookup, tenant
from bonito.knowledge import bases, sweeper
from bonito.knowledge.sweeper import Patience
from tests.integration.knowledge.ingesting import NO_PATIENCE, PINNED, World, prose

TABLES = (
    "kb_documents",
    "kb_revisions",
    "kb_batches",
    "kb_chunks",
    "kb_index",
    "kb_generations",
    "kb_terms",
    "kb_syncs",
)


@pytest.fixture
async def world(pool: Pool, org_id: UUID, tmp_path: Path) -> World:
    return await World.create(pool, org_id, tmp_path)


async def sizes(world: World) -> dict[str, int]:
    return {table: (await world.row(f"SELECT count(*) FROM {table}"))[0] for table in TABLES}


async def delete(world: World) -> None:
    async with tenant(world.pool, world.org_id) as conn:
        await bases.delete(conn, org_id=world.org_id, knowledge_base_id=world.base_id)


async def test_superseded_rows_go_and_served_ones_stay(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper, "ROWS", 3)
    await world.drop("a.txt", prose("barometer", 60))
    await world.drop("a.txt", prose("hygrometer", 40))
    served = await world.served()

    await world.sweep()

    assert await world.served() == served
    assert await world.rows("SELECT status FROM kb_revisions") == [("served",)]
    await world.check_rows()
    await world.check_counts()
    assert (
        (await sizes(world))["kb_chunks"]
        == (await sizes(world))["kb_index"]
        == len(await world.rows("SELECT 1 FROM kb_chunks WHERE revision_id IN (SELECT id FROM kb_revisions)"))
    )


async def test_nothing_is_swept_before_its_time(world: World) -> None:
    await world.drop("a.txt", prose("barometer", 30))
    await world.drop("a.txt", prose("hygrometer", 30))
    await world.drop("b.txt", prose("barometer"))
    await world.remove("b.txt")
    before = await sizes(world)

    await sweeper.sweep(world.context)

    assert await sizes(world) == before


async def test_tombstones_go_last(world: World) -> None:
    await world.drop("a.txt", prose("barometer", 30))
    await world.remove("a.txt")

    await sweeper.sweep(world.context, patience=Patience(grace=timedelta(seconds=-1)))
    assert (await sizes(world))["kb_documents"] == 1
    await world.sweep()

    left = await sizes(world)
    assert (left["kb_documents"], left["kb_revisions"], left["kb_chunks"], left["kb_index"]) == (0, 0, 0, 0)


async def test_a_deleted_base_goes_whole(world: World, pool: Pool, org_id: UUID, tmp_path: Path) -> None:
    other = await World.create(pool, org_id, tmp_path / "other")
    (tmp_path / "other").mkdir()
    await other.drop("kept.txt", prose("barometer", 30))
    kept = await sizes(world)
    for number in range(5):
        await world.drop(f"{number}.txt", prose(f"gauge{number}", 30))
    world.write("in-work.txt", prose("barometer", 60))
    await world.changed("in-work.txt")
    await world.run(*world.queue.waiting.pop()[:2])
    left_over = list(world.queue.waiting)
    await world.sync()
    await world.rebuild(dataclasses.replace(PINNED, chunk_size=32))
    await delete(world)

    await world.sweep()

    world.queue.waiting.extend(left_over)
    await world.settle()
    assert await sizes(world) == kept | {"kb_generations": kept["kb_generations"] - 1}
    assert await world.rows("SELECT id FROM knowledge_bases WHERE id = %s", world.base_id) == []
    assert world.base_id in world.folders.discarded
    assert set(await other.served()) == {"kept.txt"}
    await other.check_counts()


async def test_several_sweepers_at_once_do_no_harm(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper, "ROWS", 2)
    for number in range(4):
        await world.drop(f"{number}.txt", prose(f"gauge{number}", 30))
        await world.drop(f"{number}.txt", prose(f"other{number}", 30))
    await world.rebuild(dataclasses.replace(PINNED, chunk_size=32))
    await world.sync()
    await world.settle()

    for _ in range(6):
        await asyncio.gather(*(sweeper.sweep(world.context, patience=NO_PATIENCE) for _ in range(3)))
    await world.sweep()

    assert len(await world.served()) == 4
    assert (await sizes(world))["kb_generations"] == 1
    await world.check_rows()
    await world.check_counts()


async def test_an_expired_lease_is_sent_once_by_however_many_sweepers(world: World) -> None:
    await world.drop("a.txt", prose("barometer"))
    await world.rows("UPDATE kb_documents SET status = 'processing', lease_until = now() - interval '1 s' RETURNING id")

    await asyncio.gather(*(sweeper.sweep(world.context) for _ in range(4)))

    assert [message["path"] for message in world.queue.of("ingest")] == ["a.txt"]
    assert await world.row("SELECT attempts, status FROM kb_documents") == (1, "pending")
    await world.settle()
    assert await world.statuses() == {"a.txt": "ready"}


async def test_one_item_that_fails_does_not_hold_up_the_others(world: World) -> None:
    await world.drop("a.txt", prose("barometer", 30))
    await world.drop("a.txt", prose("hygrometer", 30))
    await world.rows("UPDATE kb_documents SET status = 'processing', lease_until = now() - interval '1 s' RETURNING id")

    class Full:
        async def send(self, *_: object, **__: object) -> None:
            raise ConnectionError("the queue is full")

    swept = await sweeper.sweep(dataclasses.replace(world.context, queue=Full()), patience=NO_PATIENCE)

    assert swept["document"] == 0
    assert swept["revision"] == 1


async def test_lookups_tell_ids_alone_and_only_to_the_runtime(pool: Pool, world: World) -> None:
    await world.drop("secret-name.txt", prose("barometer"))
    await world.rows("UPDATE kb_documents SET lease_until = now() - interval '1 s' RETURNING id")
    async with lookup(pool) as conn:
        cursor = await conn.execute("SELECT * FROM find_sweeping(100, '1 s', '1 s')")
        columns = [column.name for column in cursor.description or []]
        found = await cursor.fetchall()
        assert columns == ["kind", "org_id", "id"]
        assert ("document", world.org_id) in {row[:2] for row in found}
        for function in ("find_sweeping(integer, interval, interval)", "find_due_schedules()", "find_sources(text)"):
            granted = await (
                await conn.execute("SELECT has_function_privilege('public', %s, 'EXECUTE')", [function])
            ).fetchone()
            assert granted == (False,)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with lookup(pool) as conn:
            await conn.execute("SET ROLE bonito_lookup")
    await world.rows("UPDATE kb_documents SET lease_until = NULL RETURNING id")
