"""The worker: messages are worked off, tried again, given up; a lost worker's come again; the schedule is kept."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest

from bonito.assembly import maintenance
from bonito.clouds.local import ProcrastinateQueue, open_queue
from bonito.database.pool import Pool, tenant
from bonito.errors import ProviderTimeout
from bonito.knowledge import schedule
from bonito.knowledge.messages import EmbedMessage, IngestMessage, SyncMessage
from bonito.local import worker
from bonito.local.worker import Options
from tests.integration.conftest import Database
from tests.integration.knowledge.ingesting import World, prose
from tests.integration.local.working import LimitedModels, eventually, opened, working

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def world(pool: Pool, org_id: UUID, tmp_path: Path) -> World:
    folder = tmp_path / "source"
    folder.mkdir()
    return await World.create(pool, org_id, folder)


@pytest.fixture
async def queue(database: Database) -> AsyncIterator[ProcrastinateQueue]:
    async with open_queue(database.runtime_url) as opened_queue:
        yield opened_queue
        await opened_queue.app.connector.execute_query_async("DELETE FROM procrastinate_jobs")


async def jobs(queue: ProcrastinateQueue) -> list[tuple[str, str, int]]:
    rows = await queue.app.connector.execute_query_all_async(
        "SELECT task_name, status::text, priority FROM procrastinate_jobs WHERE task_name <> 'tick' ORDER BY id"
    )
    return [(row["task_name"], row["status"], row["priority"]) for row in rows]


async def test_a_sync_brings_everything_in(database: Database, world: World) -> None:
    for number in range(8):
        world.write(f"{number}.md", f"# Report {number}\n\n" + prose(f"gauge{number}", 40))
    async with opened(database.runtime_url) as (context, queue), working(context, queue):
        await queue.send("sync", SyncMessage(world.org_id, world.base_id).to_json())
        await eventually(world.statuses, lambda statuses: list(statuses.values()) == ["ready"] * 8)
        await eventually(world.base, lambda base: base.status == "ready")
        await eventually(lambda: jobs(queue), lambda found: found == [])

    assert len(await world.served()) == 8
    await world.check_rows()
    await world.check_counts()


async def test_what_is_there_at_the_start_needs_no_event(database: Database, world: World) -> None:
    world.write("a.txt", prose("barometer"))
    async with opened(database.runtime_url) as (context, queue), working(context, queue, Options(can_listen=True)):
        await eventually(world.statuses, lambda statuses: statuses == {"a.txt": "ready"})


async def test_a_failed_message_comes_again_and_at_last_is_kept_as_dead(
    database: Database, world: World, queue: ProcrastinateQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bonito.knowledge.retries.FIRST_PAUSE_S", 0.01)
    world.write("a.txt", prose("barometer"))
    async with opened(database.runtime_url) as (context, own):

        class Away:
            async def store(self, *_: object) -> object:
                raise RuntimeError("away")

            async def discard(self, *_: object) -> None:
                pass

        object.__setattr__(context, "stores", Away())
        async with working(context, own):
            await own.send("ingest", IngestMessage(world.org_id, world.base_id, "a.txt").to_json())
            await eventually(world.statuses, lambda statuses: statuses == {"a.txt": "error"})
            await eventually(lambda: jobs(queue), lambda found: ("ingest", "failed", 20) in found)

    assert "Gave up after 8 tries" in (await world.error("a.txt") or "")


async def test_a_rate_limited_model_fails_no_document_and_is_paid_once_for_each(
    database: Database, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two calls of three are refused: most of 150 documents come back more often than a message may fail."""
    monkeypatch.setattr(worker, "POLLING_S", 0.02)
    monkeypatch.setattr(worker, "MAX_DELIVERIES", 3)
    limited = LimitedModels(one_in=3, pause_s=0.02)
    for number in range(150):
        world.write(f"{number}.txt", prose(f"gauge{number}"))
    async with opened(database.runtime_url) as (context, queue):
        context = dataclasses.replace(context, models=limited, parser=world.parser)
        async with working(context, queue, Options(is_alone=True, concurrency=8)):
            await eventually(
                world.statuses, lambda found: len(found) == 150 and not {"pending", "processing"} & set(found.values())
            )

    assert set((await world.statuses()).values()) == {"ready"}
    paid = [text for text in limited.paid if "gauge" in text]  # what other tests left is worked off too
    assert len(paid) == len(set(paid)) == 150
    assert limited.refused > 200
    await world.check_rows()
    await world.check_counts()


async def test_a_message_that_is_given_up_ends_its_document(
    database: Database, world: World, queue: ProcrastinateQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bonito.knowledge.retries.FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(worker, "MAX_DELIVERIES", 2)
    world.models.failures += [ProviderTimeout("The model did not answer in time.")] * 4
    world.write("a.txt", prose("barometer"))
    async with opened(database.runtime_url) as (context, own):
        context = dataclasses.replace(context, models=world.models)
        async with working(context, own):
            await eventually(world.statuses, lambda statuses: statuses == {"a.txt": "error"})
            await eventually(lambda: jobs(queue), lambda found: ("embed", "failed", 10) in found)

    assert await world.error("a.txt") == "Gave up after 2 tries: The model did not answer in time."


async def test_a_message_that_is_none_is_dead_at_once(database: Database, queue: ProcrastinateQueue) -> None:
    async with opened(database.runtime_url) as (context, own), working(context, own):
        await own.send("ingest", {"nonsense": True})
        await eventually(lambda: jobs(queue), lambda found: ("ingest", "failed", 0) in found)


async def test_the_queue_keeps_priority_delay_and_one_of_a_kind(queue: ProcrastinateQueue) -> None:
    org, base = uuid4(), uuid4()
    await queue.send("sync", SyncMessage(org, base).to_json())
    await queue.send("sync", SyncMessage(org, base).to_json())
    await queue.send("sync", SyncMessage(org, base, retry_failed=True).to_json(), delay=timedelta(hours=1))
    await queue.send("ingest", IngestMessage(org, base, "a.txt", is_bulk=True).to_json())
    await queue.send("embed", EmbedMessage(org, base, 320, number=10).to_json())

    assert await jobs(queue) == [
        ("sync", "todo", 20),
        ("sync", "todo", 20),
        ("ingest", "todo", 10),
        ("embed", "todo", 11),
    ]
    (delayed,) = await queue.app.connector.execute_query_all_async(
        "SELECT scheduled_at > now() + interval '50 minutes' AS is_later FROM procrastinate_jobs "
        "WHERE scheduled_at IS NOT NULL"
    )
    assert delayed["is_later"]


async def test_a_dropped_file_does_not_wait_behind_a_large_sync(queue: ProcrastinateQueue) -> None:
    """Its chunks come before every batch of what a sync found, and first batches before the tenth of any."""
    org, bulk, dropped = uuid4(), uuid4(), uuid4()
    for number in range(30):
        await queue.send("embed", EmbedMessage(org, bulk, number * 32, number=number, is_bulk=True).to_json())
    other = uuid4()
    await queue.send("embed", EmbedMessage(org, other, 0, number=0, is_bulk=True).to_json())
    await queue.send("embed", EmbedMessage(org, dropped, 0).to_json())

    manager, order = queue.app.job_manager, []
    worker_id = await manager.register_worker()
    for _ in range(3):
        job = await manager.fetch_job(queues=["embed"], worker_id=worker_id)
        assert job is not None
        order.append(UUID(str(job.task_kwargs["message"]["revision_id"])))  # type: ignore[call-overload,index]
    assert order == [dropped, bulk, other]


async def test_what_a_lost_worker_had_in_hand_comes_again(queue: ProcrastinateQueue) -> None:
    org, base = uuid4(), uuid4()
    await queue.send("sync", SyncMessage(org, base).to_json())
    await queue.send("ingest", IngestMessage(org, base, "a.txt").to_json())
    manager = queue.app.job_manager
    worker_id = await manager.register_worker()
    while await manager.fetch_job(queues=["sync", "ingest"], worker_id=worker_id):
        pass
    await queue.send("sync", SyncMessage(org, base).to_json())
    assert await worker.return_lost(queue.app, dead_after_s=60) == 0
    await queue.app.connector.execute_query_async(
        "UPDATE procrastinate_workers SET last_heartbeat = now() - interval '2 minutes'"
    )

    assert await worker.return_lost(queue.app, dead_after_s=60) == 2

    assert sorted(await jobs(queue)) == [("ingest", "todo", 20), ("sync", "todo", 20)]


async def test_a_worker_killed_in_the_middle_leaves_exactly_the_right_chunks(database: Database, world: World) -> None:
    for number in range(12):
        world.write(f"{number:02}.md", f"# Report {number}\n\n" + prose(f"gauge{number}", 90))
    async with open_queue(database.runtime_url) as queue:
        await queue.send("sync", SyncMessage(world.org_id, world.base_id).to_json())

    async def start() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.integration.local.working",
            database.runtime_url,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )

    for ready in (2, 6):
        process = await start()
        await eventually(
            world.statuses,
            lambda statuses, ready=ready: list(statuses.values()).count("ready") >= ready,  # type: ignore[misc]
        )
        process.kill()
        await process.wait()
    process = await start()
    await eventually(world.statuses, lambda statuses: list(statuses.values()) == ["ready"] * 12)
    await eventually(world.base, lambda base: base.status == "ready")
    process.terminate()
    await process.wait()

    assert len(await world.served()) == 12
    assert await world.rows("SELECT * FROM kb_batches") == []
    await world.check_rows()
    await world.check_counts()


@pytest.mark.needs("pgbouncer")
async def test_everything_works_through_a_transaction_pooling_proxy(proxy_url: str, world: World) -> None:
    for number in range(6):
        world.write(f"{number}.txt", prose(f"gauge{number}", 40))
    async with opened(proxy_url) as (context, queue), working(context, queue):
        await eventually(world.statuses, lambda statuses: list(statuses.values()) == ["ready"] * 6)

    await world.check_rows()
    await world.check_counts()


async def test_a_schedule_is_due_once_however_many_tick(database: Database, pool: Pool, world: World) -> None:
    async def set_schedule(expression: str | None) -> None:
        async with tenant(pool, world.org_id) as conn:
            await conn.execute(
                "UPDATE knowledge_bases SET sync_schedule = %s WHERE id = %s", [expression, world.base_id]
            )

    async def set_next(at: datetime) -> None:
        async with tenant(pool, world.org_id) as conn:
            await conn.execute("UPDATE knowledge_bases SET next_sync_at = %s WHERE id = %s", [at, world.base_id])

    async def next_at() -> datetime | None:
        found: datetime | None = (
            await world.row("SELECT next_sync_at FROM knowledge_bases WHERE id = %s", world.base_id)
        )[0]
        return found

    now = datetime.now(UTC)
    await set_schedule("30 3 * * *")
    assert await schedule.send_due(world.context, now=now) == 0
    assert world.queue.waiting == [], "a new schedule waits for its time"
    first = await next_at()
    assert first is not None
    assert first > now

    await set_next(now - timedelta(days=3))
    sent = await asyncio.gather(*(schedule.send_due(world.context, now=now) for _ in range(3)))
    assert sum(sent) == 1, "missed for three days, made up for once"
    assert [queue for queue, _, _ in world.queue.waiting] == ["sync"]
    assert await next_at() == first
    assert await schedule.send_due(world.context, now=now) == 0

    world.queue.waiting.clear()
    await set_next(now - timedelta(minutes=1))
    with psycopg.connect(database.superuser_url) as owner:
        owner.execute("UPDATE organizations SET tier = 'free' WHERE id = %s", [world.org_id])
    assert await schedule.send_due(world.context, now=now) == 0
    assert (world.queue.waiting, await next_at()) == ([], first), "a tier without schedules: it rests"

    await set_schedule("0 4 * * *")
    assert await next_at() is None, "a changed schedule forgets the old one's time"
    await set_schedule(None)
    assert await schedule.send_due(world.context, now=now) == 0


async def test_a_cloud_source_that_nobody_listed_for_long_is_asked_for_once(database: Database, world: World) -> None:
    async def forget(ago: str) -> None:
        with psycopg.connect(database.superuser_url) as owner:
            owner.execute("DELETE FROM knowledge_bases WHERE id <> %s", [world.base_id])
            owner.execute("UPDATE knowledge_bases SET source_type = 's3', listed_at = now() - %s::interval", [ago])

    async def ask() -> int:
        return sum(
            await asyncio.gather(
                *(schedule.send_unlisted(world.context, older_than=timedelta(hours=6)) for _ in range(3))
            )
        )

    await forget("5 hours")
    assert await ask() == 0
    await forget("7 hours")
    assert (await ask(), await ask()) == (1, 0)
    ((queue, message, _),) = world.queue.waiting
    assert (queue, message["trigger"]) == ("sync", "reconcile")

    await forget("7 hours")
    await world.run(queue, message)
    assert await ask() == 0, "a sync lists it, whoever asked for that"


async def test_maintenance_is_done_with_the_owners_rights(database: Database) -> None:
    options = Options(is_alone=True, maintenance_url=database.maintenance_url)
    with psycopg.connect(database.superuser_url, autocommit=True) as owner:
        partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'gateway_requests'::regclass"
        before = owner.execute(partitions).fetchone()
        newest = owner.execute(
            "SELECT max(inhrelid::regclass::text) FROM pg_inherits "
            "WHERE inhparent = 'gateway_requests'::regclass AND inhrelid::regclass::text ~ '[0-9]$'"
        ).fetchone()
        assert newest is not None
        owner.execute(f"DROP TABLE {newest[0]}")  # type: ignore[arg-type]

        async def count() -> object:
            return owner.execute(partitions).fetchone()

        async with opened(database.runtime_url) as (context, queue), working(context, queue, options):
            await eventually(count, lambda found: found == before)


async def test_indexes_are_maintained_where_partitions_cannot_be(database: Database) -> None:
    """And the other way round nothing is hidden: whoever asked is told what failed."""
    with psycopg.connect(database.superuser_url, autocommit=True) as owner:
        left = f"kb_hnsw_{uuid4().hex}_7"  # of no generation that there is
        owner.execute(f"CREATE INDEX {left} ON kb_index_p00 (revision_id)")  # type: ignore[arg-type]
        owner.execute("ALTER TABLE gateway_requests_default RENAME TO elsewhere")
        try:
            with pytest.raises(psycopg.errors.UndefinedTable):
                await maintenance.maintain(database.maintenance_url)
        finally:
            owner.execute("ALTER TABLE elsewhere RENAME TO gateway_requests_default")

        assert owner.execute("SELECT to_regclass(%s)", [left]).fetchone() == (None,)


async def test_a_worker_that_cannot_maintain_says_so_once(
    database: Database, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.write("a.txt", prose("barometer"))
    async with opened(database.runtime_url) as (context, queue), working(context, queue):
        await eventually(world.statuses, lambda statuses: statuses == {"a.txt": "ready"})

    assert caplog.text.count("BONITO_MAINTENANCE_DATABASE_URL is not set") == 1


async def test_no_log_line_names_a_file(database: Database, world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    world.write("private-name.txt", prose("barometer"))
    world.write("private-name.json", "{")
    async with opened(database.runtime_url) as (context, queue), working(context, queue):
        await queue.send("sync", SyncMessage(world.org_id, world.base_id).to_json())
        await eventually(
            world.statuses,
            lambda statuses: statuses == {"private-name.txt": "ready", "private-name.json": "error"},
        )

    assert "private-name" not in caplog.text
    assert "barometer" not in caplog.text
