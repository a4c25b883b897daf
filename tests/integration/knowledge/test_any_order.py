"""Whatever order events come in, and whoever is lost on the way, the base ends as the folder."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from uuid import UUID

import pytest

from bonito.database.pool import Pool
from tests.integration.knowledge.ingesting import World, prose

PATHS = ("a.txt", "b.txt", "sub/c.txt", "sub/d.json")
WORDS = ("barometer", "hygrometer", "anemometer", "thermometer")
SEEDS = [*range(3), *(pytest.param(seed, marks=pytest.mark.exhaustive) for seed in range(3, 60))]


class Storm:
    """A folder that keeps changing; its events get lost, come twice and late; workers are lost, syncs come between."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.random = world, random.Random(seed)
        self.events: list[tuple[str, str]] = []

    def happens(self, probability: float) -> bool:
        return self.random.random() < probability

    def change(self) -> None:
        path = self.random.choice(PATHS)
        file = self.world.folder / path
        if file.exists() and self.happens(0.35):
            file.unlink()
            self.events.append((path, "deleted"))
        else:
            text = prose(self.random.choice(WORDS), self.random.choice([1, 5, 60]))
            self.world.write(path, text if path.endswith("txt") else self.random.choice([f'"{text}"', "{", ""]))
            self.events.append((path, "created"))

    async def tell(self) -> None:
        if self.events and self.happens(0.1):
            self.events.append(self.random.choice(self.events))
        self.random.shuffle(self.events)
        while self.events and self.happens(0.6):
            path, kind = self.events.pop()
            if self.happens(0.9):
                await self.world.changed(path, kind=kind)
        if self.happens(0.1):
            await self.world.sync()

    def take(self) -> tuple[str, dict[str, object]] | None:
        waiting = self.world.queue.waiting
        if not waiting:
            return None
        queue, message, _ = waiting.pop(self.random.randrange(len(waiting)))
        return queue, message

    async def calm_down(self) -> None:
        """Leases end, the sweeper looks, every message is worked off, a sync finds what events did not tell."""
        world = self.world
        for table in ("kb_documents", "kb_syncs"):
            await world.rows(
                f"UPDATE {table} SET lease_until = now() - interval '1 s' WHERE lease_until IS NOT NULL RETURNING id"
            )
        await world.rows("UPDATE kb_batches SET lease_until = NULL RETURNING 1")
        await world.sweep()
        await world.settle(shuffle=self.random)
        await world.sync()
        await world.settle(shuffle=self.random)

    async def check(self) -> None:
        world = self.world
        present = {path.relative_to(world.folder).as_posix(): path.read_text() for path in world.folder.rglob("*.*")}
        served = {path: set(text.split()) for path, text in (await world.served()).items() if path.endswith("txt")}
        assert served == {path: set(text.split()) for path, text in present.items() if text and path.endswith("txt")}
        statuses = await world.statuses()
        assert set(statuses) == set(present)
        assert not {"pending", "processing"} & set(statuses.values())
        assert (await world.base()).status == "ready"
        for _ in range(2):
            await world.check_rows()
            await world.check_counts()
            await world.sweep()
        assert await world.rows("SELECT * FROM kb_batches") == []
        assert await world.rows("SELECT id FROM kb_revisions WHERE status IN ('superseded', 'building')") == []
        for table in ("kb_chunks", "kb_index"):
            assert (
                await world.rows(
                    f"SELECT 1 FROM {table} t WHERE NOT EXISTS (SELECT FROM kb_revisions r WHERE r.id = t.revision_id)"
                )
                == []
            )


@pytest.fixture
async def world(pool: Pool, org_id: UUID, tmp_path: Path) -> World:
    return await World.create(pool, org_id, tmp_path)


@pytest.mark.parametrize("seed", SEEDS)
async def test_one_worker_after_the_other(world: World, seed: int) -> None:
    storm = Storm(world, seed)
    for _ in range(40):
        storm.change()
        await storm.tell()
        for _ in range(storm.random.randrange(4)):
            if (taken := storm.take()) is not None:
                await world.run(*taken)
        if storm.happens(0.1):
            storm.take()  # lost

    await storm.calm_down()
    await storm.check()


@pytest.mark.parametrize("seed", SEEDS)
async def test_workers_at_the_same_time_some_of_them_lost(world: World, seed: int) -> None:
    storm = Storm(world, seed)
    at_work: set[asyncio.Task[None]] = set()

    async def work(queue: str, message: dict[str, object]) -> None:
        try:
            await world.run(queue, message)
        except Exception:  # noqa: BLE001 - as a queue does
            await world.queue.send(queue, message)

    for _ in range(60):
        storm.change()
        await storm.tell()
        while len(at_work) < 6 and (taken := storm.take()) is not None:
            task = asyncio.create_task(work(*taken))
            at_work.add(task)
            task.add_done_callback(at_work.discard)
        for task in list(at_work):
            if storm.happens(0.08):
                task.cancel()
        await asyncio.sleep(storm.random.choice([0, 0, 0.005, 0.02]))
    if at_work:
        await asyncio.wait(at_work)

    await storm.calm_down()
    await storm.check()
