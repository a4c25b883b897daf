"""Listings in slices: however they are cut and whoever is lost between them, every object is found, in flat memory."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import tracemalloc
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from bonito.clouds.base import ObjectInfo
from bonito.clouds.local import FolderStore
from bonito.database.pool import Pool, open_pool, tenant
from bonito.errors import NotFound, UpstreamError
from bonito.knowledge import listing, sync, sync_status
from bonito.knowledge.messages import TRIGGERS, SyncMessage, Trigger
from bonito.knowledge.sync_status import Sync
from tests.integration.conftest import Database, make_organization
from tests.integration.knowledge.ingesting import World, prose


@pytest.fixture
async def world(pool: Pool, org_id: UUID, tmp_path: Path) -> World:
    folder = tmp_path / "source"
    folder.mkdir()
    return await World.create(pool, org_id, folder)


@pytest.fixture
def pages_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PAGE", 2)


async def status(world: World) -> Sync:
    async with tenant(world.pool, world.org_id) as conn:
        last = await sync_status.last(conn, org_id=world.org_id, knowledge_base_id=world.base_id)
    assert last is not None
    return last


async def cursor(world: World) -> str:
    return str((await world.row("SELECT cursor FROM kb_syncs"))[0])


def one_page() -> bool:
    return False


def write(world: World, *names: str) -> None:
    for name in names:
        world.write(name, prose(name.partition(".")[0]))


def sent(world: World) -> list[str]:
    return [str(message["path"]) for message in world.queue.of("ingest")]


@pytest.mark.usefixtures("pages_of_two")
async def test_a_listing_goes_on_where_its_slice_ended(world: World) -> None:
    write(world, "a.txt", "b.txt", "c.txt", "d.txt", "e.txt")
    world.has_time = one_page

    first = await world.sync(has_time=one_page)
    assert sent(world) == ["a.txt", "b.txt"]
    during = await status(world)
    assert (during.status, during.files_total, await cursor(world)) == ("listing", 2, "b.txt")
    await world.settle()

    done = await status(world)
    assert (done.id, done.status, done.files_total, done.files_processed) == (first, "done", 5, 5)
    assert (done.files_added, done.files_changed, done.files_removed) == (5, 0, 0)
    assert len(await world.served()) == 5
    assert await world.row("SELECT count(*), max(cursor) FROM kb_syncs") == (1, "")


@pytest.mark.usefixtures("pages_of_two")
async def test_what_is_missing_is_sent_with_its_page_and_counted_when_the_store_says_so(world: World) -> None:
    names = [f"{letter}.txt" for letter in "abcdefgh"]
    write(world, *names)
    await world.sync()
    await world.settle()
    for name in ("b.txt", "c.txt", "d.txt", "e.txt", "f.txt", "h.txt"):
        (world.folder / name).unlink()
    write(world, "a.txt", "i.txt")
    world.write("a.txt", prose("altered"))

    await world.sync(has_time=one_page)
    assert sorted(sent(world)) == [f"{letter}.txt" for letter in "abcdef"], "a page, in steps of its size"
    await world.settle()

    done = await status(world)
    assert (done.files_added, done.files_changed, done.files_removed) == (1, 1, 6)
    assert (done.files_total, done.files_processed) == (9, 9)
    assert set(await world.served()) == {"a.txt", "g.txt", "i.txt"}


@pytest.mark.usefixtures("pages_of_two")
async def test_nothing_of_an_emptied_source_is_left(world: World) -> None:
    write(world, "a.txt", "b.txt", "c.txt", "d.txt", "e.txt")
    await world.sync()
    await world.settle()
    for path in world.folder.iterdir():
        path.unlink()

    await world.sync()
    await world.settle()

    assert await world.served() == {}
    assert (await status(world)).files_removed == 5


@pytest.mark.usefixtures("pages_of_two")
async def test_a_repeated_message_of_a_slice_does_nothing(world: World) -> None:
    write(world, "a.txt", "b.txt", "c.txt", "d.txt", "e.txt")
    await world.sync(has_time=one_page)
    (again,) = world.queue.of("sync")

    await asyncio.gather(*(world.run("sync", again) for _ in range(3)))

    assert sorted(sent(world)) == ["a.txt", "b.txt", "c.txt", "d.txt", "e.txt"]
    await world.settle()
    assert (await status(world)).files_total == 5


@pytest.mark.usefixtures("pages_of_two")
async def test_a_slice_whose_message_was_lost_is_made_up_for(world: World) -> None:
    write(world, "a.txt", "b.txt", "c.txt")
    await world.sync(has_time=one_page)
    world.queue.waiting[:] = [each for each in world.queue.waiting if each[0] != "sync"]
    await world.settle()
    assert (await status(world)).status == "listing", "documents that are done do not end a sync that still lists"

    await world.rows("UPDATE kb_syncs SET lease_until = now() - interval '1 s' RETURNING id")
    await world.sweep()
    await world.settle()

    assert (await status(world)).status == "done"
    assert len(await world.served()) == 3


class Breaking(FolderStore):
    """Lists so many objects, then fails, or lets its worker die."""

    def __init__(self, root: Path, *, after: int, error: BaseException) -> None:
        super().__init__(root)
        self.left, self.error = after, error

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        async for info in super().list(prefix, after=after):
            if self.left == 0:
                raise self.error
            self.left -= 1
            yield info


@pytest.mark.usefixtures("pages_of_two")
async def test_a_worker_lost_in_its_slice_loses_no_page(world: World) -> None:
    write(world, "a.txt", "b.txt", "c.txt", "d.txt", "e.txt")
    world.folders.instead = Breaking(world.folder, after=3, error=asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await world.sync()
    assert await cursor(world) == "b.txt"
    world.folders.instead = None
    await world.rows("UPDATE kb_syncs SET lease_until = now() - interval '1 s' RETURNING id")
    write(world, "0.txt")

    await world.sync()

    assert await cursor(world) == "", "went on from its cursor, and begins again for what changed before it"
    assert sent(world) == ["a.txt", "b.txt", "c.txt", "d.txt", "e.txt"]
    await world.settle()
    assert (await status(world)).files_total == 6
    assert len(await world.served()) == 6


@pytest.mark.usefixtures("pages_of_two")
async def test_a_store_that_fails_half_way_is_asked_again_from_there(world: World) -> None:
    write(world, "a.txt", "b.txt", "c.txt", "d.txt", "e.txt")
    world.folders.instead = Breaking(world.folder, after=3, error=UpstreamError("busy", retry_after_s=7.0))
    await world.sync()

    (waiting,) = [each for each in world.queue.waiting if each[0] == "sync"]
    assert waiting[2] >= timedelta(seconds=7)
    assert (await status(world)).status == "listing"
    world.folders.instead = None
    await world.settle()
    assert ((await status(world)).status, len(await world.served())) == ("done", 5)


@pytest.mark.usefixtures("pages_of_two")
async def test_a_store_that_keeps_failing_half_way_ends_the_sync(world: World) -> None:
    write(world, "a.txt", "b.txt", "c.txt", "d.txt", "e.txt")
    world.folders.instead = Breaking(world.folder, after=2, error=UpstreamError("The store is on fire."))

    await world.sync()
    await world.settle()

    failed = await status(world)
    assert (failed.status, failed.error_message) == ("failed", "The source could not be listed: The store is on fire.")
    assert set(await world.served()) == {"a.txt", "b.txt"}, "what was found is read"


async def test_a_store_that_lists_out_of_order_is_not_believed(world: World) -> None:
    write(world, "a.txt", "b.txt")

    class Unordered(FolderStore):
        async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
            for info in reversed([info async for info in super().list(prefix, after=after)]):
                yield info

    world.folders.instead = Unordered(world.folder)
    await world.sync()

    assert "order of their keys" in ((await status(world)).error_message or "")


@pytest.mark.usefixtures("pages_of_two")
async def test_placeholders_of_folders_move_the_cursor_and_are_no_documents(pool: Pool, org_id: UUID) -> None:
    world = await World.create(pool, org_id, Path("/nowhere"), prefix="in/")
    keys = ["in/", "in/a/", "in/b/", "in/b/c/", "in/d/", "in/d/e.txt", "in/f/"]
    world.folders.instead = Keys(keys)

    await world.sync(has_time=one_page)
    assert (sent(world), await cursor(world)) == ([], "b/")
    while slices := world.queue.of("sync"):
        world.queue.waiting.clear()
        await sync.sync(world.context, SyncMessage.from_json(slices[0]), has_time=one_page)

    assert await world.statuses() == {"d/e.txt": "pending"}


async def test_the_clocks_syncs_that_found_nothing_are_forgotten_and_others_kept(world: World) -> None:
    write(world, "a.txt")
    for _ in range(3):
        await world.sync(trigger="reconcile")
        await world.settle()
    await world.sync()
    for _ in range(2):
        await world.sync(trigger="reconcile")
        await world.settle()

    async with tenant(world.pool, world.org_id) as conn:
        kept = await sync_status.list_page(conn, org_id=world.org_id, knowledge_base_id=world.base_id, limit=9)
        older = await sync_status.list_page(
            conn,
            org_id=world.org_id,
            knowledge_base_id=world.base_id,
            limit=9,
            before=(kept[0].started_at, kept[0].id),
        )
    assert [each.trigger for each in kept] == ["reconcile", "manual", "reconcile"]
    assert [each.files_added for each in kept] == [0, 0, 1]
    assert older == kept[1:]


@pytest.mark.parametrize("moved", ["91 days", None])
async def test_the_history_is_bounded_in_time_and_number(
    world: World, monkeypatch: pytest.MonkeyPatch, moved: str | None
) -> None:
    if moved is None:
        monkeypatch.setattr(sync, "KEEP_COUNT", 1)
    for _ in range(3):
        await world.sync()
    if moved is not None:
        await world.rows("UPDATE kb_syncs SET finished_at = finished_at - %s::interval RETURNING id", moved)
    await world.sync()

    assert await world.row("SELECT count(*) FROM kb_syncs") == ((2,) if moved is None else (1,))


class Keys:
    """A store of names alone: nothing can be read of it."""

    def __init__(self, keys: list[str]) -> None:
        self.keys = keys

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        for key in self.keys:
            if key.startswith(prefix) and key.encode() > after.encode():
                yield ObjectInfo(key, 1, "1", datetime(2026, 1, 1, tzinfo=UTC))

    async def head(self, key: str) -> ObjectInfo:
        raise NotFound(key)

    async def fetch(self, key: str, into: Path, *, max_bytes: int) -> ObjectInfo:
        raise NotFound(key)


class Numbers(Keys):
    """As many keys as one likes, none of which is kept."""

    def __init__(self, count: int) -> None:
        super().__init__([])
        self.count = count

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        for number in range(int(after or -1) + 1, self.count):
            yield ObjectInfo(f"{number:08}", 1, "1", datetime(2026, 1, 1, tzinfo=UTC))


class Forgetful:
    """A queue that keeps nothing."""

    async def send(self, queue: str, message: object, *, delay: timedelta = timedelta()) -> None:
        pass


async def test_memory_does_not_grow_with_the_source(world: World) -> None:
    """8,000 objects, all new and then all gone: what is held at once is a few pages of them."""
    context = dataclasses.replace(world.context, queue=Forgetful())
    message = SyncMessage(world.org_id, world.base_id)
    world.folders.instead = Numbers(500)
    await sync.sync(context, message)  # everything is imported
    peaks = []
    for count in (1_000, 8_000, 0):
        world.folders.instead = Numbers(count)
        tracemalloc.start()
        await sync.sync(context, message)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert await world.row("SELECT count(*) FROM kb_documents") == (8_000,)
    assert max(peaks[1:]) < 2 * peaks[0], "eight times the objects"


PATHS = ("a.txt", "b/c.txt", "b-c.txt", "b.txt", "d/e/f.txt", "g.txt", "h.txt")


class Slices(RuleBasedStateMachine):
    """A folder that changes, a listing that forgets, lost workers and messages: the base ends as the folder."""

    database: Database
    root: Path

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.count = 0

    @initialize(seed=st.integers(0, 2**16))
    def begin(self, seed: int) -> None:
        self.random = random.Random(seed)
        folder = self.root / str(make_organization(self.database))
        folder.mkdir()
        self.runner.run(self._open(folder))

    async def _open(self, folder: Path) -> None:
        self.pool = await open_pool(self.database.runtime_url, min_size=1, max_size=4)
        self.world = await World.create(self.pool, UUID(folder.name), folder)

    @rule(path=st.sampled_from(PATHS))
    def change(self, path: str) -> None:
        self.count += 1
        self.world.write(path, prose(f"gauge{self.count}"))

    @rule(path=st.sampled_from(PATHS))
    def remove(self, path: str) -> None:
        (self.world.folder / path).unlink(missing_ok=True)

    @rule(trigger=st.sampled_from(TRIGGERS))
    def ask(self, trigger: Trigger) -> None:
        message = SyncMessage(self.world.org_id, self.world.base_id, trigger=trigger)
        self.world.queue.waiting.append(("sync", message.to_json(), timedelta()))

    @rule(pages=st.integers(1, 3))
    def work(self, pages: int) -> None:
        self._work(self._pages(pages))

    @rule(pages=st.integers(1, 2), objects=st.integers(0, 5), is_lost=st.booleans())
    def work_on_a_poor_store(self, pages: int, objects: int, is_lost: bool) -> None:
        error = asyncio.CancelledError() if is_lost else UpstreamError("busy")
        self.world.folders.instead = Breaking(self.world.folder, after=objects, error=error)
        self._work(self._pages(pages))
        self.world.folders.instead = None

    @rule(hidden=st.sampled_from(PATHS))
    def work_on_a_listing_that_forgets(self, hidden: str) -> None:
        class Hiding(FolderStore):
            async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
                async for info in super().list(prefix, after=after):
                    if info.key != hidden:
                        yield info

        self.world.folders.instead = Hiding(self.world.folder)
        self._work(self._pages(1))
        self.world.folders.instead = None

    @rule()
    def lose_a_message(self) -> None:
        if self.world.queue.waiting:
            self.world.queue.waiting.pop(self.random.randrange(len(self.world.queue.waiting)))

    @rule()
    def repeat_a_message(self) -> None:
        if self.world.queue.waiting:
            self.world.queue.waiting.append(self.random.choice(self.world.queue.waiting))

    @rule()
    def work_two_at_once(self) -> None:
        async def both() -> None:
            await asyncio.gather(*(self._one(self._pages(1)) for _ in range(2)))

        self.runner.run(both())

    @rule()
    def wait_for_the_sweeper(self) -> None:
        self.runner.run(self._sweep())

    def _pages(self, count: int) -> Callable[[], bool]:
        left = iter([True] * (count - 1))
        return lambda: next(left, False)

    def _work(self, has_time: Callable[[], bool]) -> None:
        self.runner.run(self._one(has_time))

    async def _one(self, has_time: Callable[[], bool]) -> None:
        if not self.world.queue.waiting:
            return
        index = self.random.randrange(len(self.world.queue.waiting))
        queue, message, _ = self.world.queue.waiting.pop(index)
        self.world.has_time = has_time
        task = asyncio.create_task(self.world.run(queue, message))
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is not None:
            self.world.queue.waiting.append((queue, message, timedelta()))

    async def _sweep(self) -> None:
        for table in ("kb_documents", "kb_syncs"):
            await self.world.rows(
                f"UPDATE {table} SET lease_until = now() - interval '1 s' WHERE lease_until IS NOT NULL RETURNING id"
            )
        await self.world.rows("UPDATE kb_batches SET lease_until = NULL RETURNING 1")
        await self.world.sweep()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            try:
                self.runner.run(self._check())
            finally:
                self.runner.run(self.pool.close())
        self.runner.close()

    async def _check(self) -> None:
        """After everything lost was made up for, one more sync leaves exactly the newest state, and nothing stuck."""
        world = self.world
        world.has_time = one_page
        await self._sweep()
        await world.settle(shuffle=self.random)
        await world.sync(has_time=one_page)
        await world.settle(shuffle=self.random)
        present = {path.relative_to(world.folder).as_posix(): path.read_text() for path in world.folder.rglob("*.txt")}
        served = {path: set(text.split()) for path, text in (await world.served()).items()}
        assert served == {path: set(text.split()) for path, text in present.items()}
        assert set((await world.statuses()).values()) <= {"ready"}
        last = await status(world)
        assert (last.status, last.files_processed) == ("done", last.files_total)
        assert (await world.base()).status == "ready"
        assert await world.row("SELECT count(*) FROM kb_syncs WHERE status IN ('listing', 'processing')") == (0,)
        await world.check_rows()
        await world.check_counts()


@pytest.mark.usefixtures("pages_of_two")
@pytest.mark.parametrize("examples", [12, pytest.param(150, marks=pytest.mark.exhaustive)])
def test_however_slices_fall_the_base_ends_as_the_folder(database: Database, tmp_path: Path, examples: int) -> None:
    machine = type("Slices", (Slices,), {"database": database, "root": tmp_path})
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
