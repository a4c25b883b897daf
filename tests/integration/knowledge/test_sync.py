"""Syncs: what a listing finds is looked at, what it does not find is asked for, and what fails changes nothing."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from bonito.clouds.base import ObjectInfo
from bonito.clouds.local import FolderStore
from bonito.database.pool import Pool, tenant
from bonito.errors import UpstreamError
from bonito.knowledge import bases, sync, sync_status
from bonito.knowledge.messages import SyncMessage
from bonito.knowledge.sync_status import Sync
from tests.integration.knowledge.ingesting import PINNED, World, prose


@pytest.fixture
async def world(pool: Pool, org_id: UUID, tmp_path: Path) -> World:
    folder = tmp_path / "source"
    folder.mkdir()
    return await World.create(pool, org_id, folder)


async def status(world: World) -> Sync:
    async with tenant(world.pool, world.org_id) as conn:
        last = await sync_status.last(conn, org_id=world.org_id, knowledge_base_id=world.base_id)
    assert last is not None
    return last


async def history(world: World) -> list[Sync]:
    async with tenant(world.pool, world.org_id) as conn:
        return await sync_status.list_page(conn, org_id=world.org_id, knowledge_base_id=world.base_id, limit=100)


async def test_a_first_sync_serves_what_the_folder_holds(world: World) -> None:
    world.write("a.txt", prose("barometer"))
    world.write("sub/b.md", prose("hygrometer"))
    assert await history(world) == []

    await world.sync()
    during = await status(world)
    assert (await world.base()).status == "syncing"
    await world.settle()

    base, after = await world.base(), await status(world)
    assert (during.status, during.files_total, during.files_processed) == ("processing", 2, 0)
    assert (after.status, after.files_total, after.files_processed, after.files_failed) == ("done", 2, 2, 0)
    assert after.progress_percentage == 100.0
    assert after.finished_at is not None
    assert base.status == "ready"
    assert base.last_synced_at is not None
    assert set(await world.served()) == {"a.txt", "sub/b.md"}
    await world.check_counts()


async def test_an_empty_first_sync_serves_the_empty_generation(world: World) -> None:
    await world.sync()

    base, after = await world.base(), await status(world)
    assert base.status == "ready"
    assert base.served_generation == (await world.generations())[0].id
    assert (after.status, after.files_total, after.progress_percentage) == ("done", 0, 100.0)


async def test_a_sync_sends_what_differs_and_nothing_else(world: World) -> None:
    for name in ("same", "changed", "gone"):
        world.write(f"{name}.txt", prose(name))
    await world.sync()
    await world.settle()
    world.write("changed.txt", prose("altered"))
    world.write("new.txt", prose("new"))
    (world.folder / "gone.txt").unlink()

    await world.sync()

    assert sorted(str(message["path"]) for message in world.queue.of("ingest")) == [
        "changed.txt",
        "gone.txt",
        "new.txt",
    ]
    during = await status(world)
    assert (during.files_total, during.files_processed) == (4, 1)
    await world.settle()
    assert set(await world.served()) == {"same.txt", "changed.txt", "new.txt"}
    assert (await status(world)).files_processed == 4
    await world.check_counts()


async def test_a_sync_without_changes_is_done_at_once(world: World) -> None:
    await world.drop("a.txt", prose("barometer"))
    await world.sync()
    await world.settle()

    await world.sync()

    assert world.queue.waiting == []
    done = await status(world)
    assert (done.status, done.files_total, done.files_processed) == ("done", 1, 1)
    assert (await world.base()).status == "ready"


async def test_every_object_of_a_long_listing_is_found(world: World) -> None:
    """1,005 objects, folders that sort late, names that sort between a folder and its files (I3)."""
    for number in range(1000):
        (world.folder / f"{number:04}.txt").write_text(f"Number {number}.")
    for path in ("a/b.txt", "a.txt", "a-b.txt", "zzz/deep/last.txt", "é/ü.txt"):
        world.write(path, path)

    await world.sync()

    sent = [message["path"] for message in world.queue.of("ingest")]
    assert len(sent) == len(set(sent)) == 1005
    assert {"a/b.txt", "a.txt", "a-b.txt", "zzz/deep/last.txt", "é/ü.txt"} <= set(sent)
    world.queue.waiting.clear()
    await world.sync()
    assert world.queue.of("ingest") == [], "what waits is not sent again"


class Cut(FolderStore):
    """Lists a part of the folder, then fails."""

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        async for info in super().list(prefix, after=after):
            yield info
            raise UpstreamError("The store does not answer.")


async def test_a_failed_listing_removes_nothing_and_says_so(world: World) -> None:
    for name in ("a", "b", "c"):
        world.write(f"{name}.txt", prose(name))
    await world.sync()
    await world.settle()
    world.folders.instead = Cut(world.folder)

    await world.sync()
    await world.settle()

    base = await world.base()
    assert set(await world.served()) == {"a.txt", "b.txt", "c.txt"}
    assert base.status == "error"
    assert base.error_message == "The source could not be listed: The store does not answer."
    assert (await status(world)).status == "failed"

    world.folders.instead = None
    await world.sync()
    await world.settle()
    assert ((await world.base()).status, (await world.base()).error_message) == ("ready", None)


async def test_a_folder_that_is_gone_removes_nothing(world: World) -> None:
    world.write("a.txt", prose("barometer"))
    await world.sync()
    await world.settle()
    shutil.move(world.folder, world.folder.with_name("unmounted"))

    await world.sync()
    await world.changed("a.txt", kind="deleted")
    failures = await world.settle()

    assert len(failures) == 8
    assert "folder is not there" in ((await world.base()).error_message or "")
    assert set(await world.served()) == {"a.txt"}


async def test_what_a_listing_leaves_out_is_asked_for_and_stays_when_it_is_there(world: World) -> None:
    """An eventually consistent listing (I2): the store's own answer for the path decides."""
    for name in ("a", "b", "c"):
        world.write(f"{name}.txt", prose(name))
    await world.sync()
    await world.settle()

    class Forgetful(FolderStore):
        async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
            async for info in super().list(prefix, after=after):
                if info.key != "b.txt":
                    yield info

    world.folders.instead = Forgetful(world.folder)
    await world.sync()
    assert [message["path"] for message in world.queue.of("ingest")] == ["b.txt"]
    await world.settle()

    assert set(await world.served()) == {"a.txt", "b.txt", "c.txt"}
    assert (await status(world)).status == "done"


async def test_failed_documents_are_sent_again_when_that_is_asked_for(world: World) -> None:
    world.write("bad.json", "{")
    world.write("good.json", "{}")
    await world.sync()
    await world.settle()
    first = await status(world)
    assert (first.status, first.files_failed, first.files_processed) == ("done", 1, 2)
    assert (await world.base()).status == "ready", "one broken file is no error of the base"

    await world.sync()
    assert world.queue.waiting == []
    assert (await status(world)).files_failed == 1
    await world.sync(retry_failed=True)

    assert [message["path"] for message in world.queue.of("ingest")] == ["bad.json"]
    await world.settle()
    assert (await status(world)).files_failed == 1


async def test_the_last_documents_to_end_at_once_end_the_sync(world: World) -> None:
    for number in range(12):
        world.write(f"{number}.txt", prose(f"gauge{number}"))
    await world.sync()

    while world.queue.waiting:
        some, world.queue.waiting = world.queue.waiting[:4], world.queue.waiting[4:]
        await asyncio.gather(*(world.run(queue, message) for queue, message, _ in some))

    assert (await status(world)).status == "done"
    assert (await world.base()).status == "ready"
    assert len(await world.served()) == 12
    await world.check_counts()


async def test_a_second_sync_while_documents_are_in_work_lists_again_for_the_same_one(world: World) -> None:
    world.write("a.txt", prose("barometer"))
    first = await world.sync()
    world.write("b.txt", prose("hygrometer"))

    second = await world.sync()
    await world.settle()

    assert first == second
    after = await status(world)
    assert (after.status, after.files_total, after.files_processed) == ("done", 2, 2)
    assert set(await world.served()) == {"a.txt", "b.txt"}


async def test_a_sync_asked_for_during_a_listing_has_it_repeated(world: World) -> None:
    class Waiting(FolderStore):
        def __init__(self, root: Path) -> None:
            super().__init__(root)
            self.is_listing, self.may_end = asyncio.Event(), asyncio.Event()

        async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
            self.is_listing.set()
            await self.may_end.wait()
            async for info in super().list(prefix, after=after):
                yield info

    store = Waiting(world.folder)
    world.folders.instead = store
    listing = asyncio.create_task(world.sync())
    await store.is_listing.wait()

    assert await world.sync(retry_failed=True) is None
    assert await world.sync(trigger="reconcile") is None
    assert world.queue.waiting == []
    store.may_end.set()
    first = await listing

    assert (await status(world)).status == "listing"
    world.write("late.txt", prose("hygrometer"))
    await world.settle()
    assert [each.id for each in await history(world)] == [first]
    assert (await status(world)).status == "done"
    assert set(await world.served()) == {"late.txt"}


async def test_a_clocks_sync_during_a_listing_is_superfluous(world: World) -> None:
    world.write("a.txt", prose("barometer"))
    await world.sync(has_time=lambda: False)
    await world.rows("UPDATE kb_syncs SET status = 'listing', lease_until = now() + interval '1 hour' RETURNING id")
    world.queue.waiting.clear()

    assert await world.sync(trigger="schedule") is None

    assert await world.row("SELECT is_wanted_again FROM kb_syncs") == (False,)


async def test_a_listing_whose_worker_was_lost_begins_again(world: World) -> None:
    world.write("a.txt", prose("barometer"))

    class Deadly(FolderStore):
        async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
            async for info in super().list(prefix, after=after):
                yield info
            raise asyncio.CancelledError

    world.folders.instead = Deadly(world.folder)
    with pytest.raises(asyncio.CancelledError):
        await world.sync()
    assert (await status(world)).status == "listing"
    world.queue.waiting.clear()
    await world.rows("UPDATE kb_syncs SET lease_until = now() - interval '1 s' RETURNING id")

    world.folders.instead = None
    await world.sweep()
    await world.settle()

    assert (await status(world)).status == "done"
    assert set(await world.served()) == {"a.txt"}


async def test_a_worker_lost_before_it_sent_what_it_found_is_made_up_for(world: World) -> None:
    world.write("a.txt", prose("barometer"))

    class Full:
        async def send(self, *_: object, **__: object) -> None:
            raise ConnectionError("the worker is lost here")

    lost = dataclasses.replace(world.context, queue=Full())
    with pytest.raises(ConnectionError):
        await sync.sync(lost, SyncMessage(world.org_id, world.base_id))
    assert await world.statuses() == {"a.txt": "pending"}
    assert (await world.base()).status == "syncing", "the source is not to blame"
    for table in ("kb_documents", "kb_syncs"):
        await world.rows(f"UPDATE {table} SET lease_until = lease_until - interval '2 minutes' RETURNING id")

    await world.sweep()
    await world.settle()

    assert await world.statuses() == {"a.txt": "ready"}
    assert (await status(world)).status == "done"


async def test_what_was_built_meanwhile_does_not_hide_a_change_that_a_sync_found(world: World) -> None:
    world.write("a.txt", prose("barometer"))
    await world.changed("a.txt")
    await world.run(*world.queue.waiting.pop()[:2])
    embedding = list(world.queue.waiting)
    world.queue.waiting.clear()
    world.write("a.txt", prose("anemometer"))
    await world.sync()
    world.queue.waiting[:] = embedding  # and the sync's own message is lost

    await world.settle()
    assert "barometer" in (await world.served())["a.txt"]
    assert await world.statuses() == {"a.txt": "pending"}
    await world.rows("UPDATE kb_documents SET lease_until = now() - interval '1 s' RETURNING id")
    await world.sweep()
    await world.settle()

    assert "anemometer" in (await world.served())["a.txt"]
    assert await world.statuses() == {"a.txt": "ready"}
    assert (await status(world)).status == "done"


async def test_unchanged_documents_are_sent_for_a_generation_that_lacks_them(world: World) -> None:
    for name in ("a", "b"):
        world.write(f"{name}.txt", prose(name, 20))
    await world.sync()
    await world.settle()
    second = await world.rebuild(dataclasses.replace(PINNED, chunk_size=32))
    assert second is not None

    await world.sync()
    assert len(world.queue.of("ingest")) == 2
    assert set(await world.served()) == {"a.txt", "b.txt"}, "the old build answers meanwhile"
    await world.settle()

    assert (await world.base()).served_generation == second.id
    assert (await status(world)).status == "done"
    await world.sweep()
    assert await world.row("SELECT count(*) FROM kb_generations") == (1,)
    await world.check_rows()
    await world.check_counts()


async def test_a_deleted_base_is_not_synced(world: World) -> None:
    world.write("a.txt", prose("barometer"))
    async with tenant(world.pool, world.org_id) as conn:
        await bases.delete(conn, org_id=world.org_id, knowledge_base_id=world.base_id)

    assert await world.sync() is None
    assert await sync.sync(world.context, SyncMessage(world.org_id, uuid4())) is None
    assert world.queue.waiting == []


async def test_another_organization_cannot_sync_it(world: World, other_org_id: UUID) -> None:
    world.write("a.txt", prose("barometer"))

    await world.sync()

    assert await sync.sync(world.context, SyncMessage(other_org_id, world.base_id)) is None
    async with tenant(world.pool, other_org_id) as conn:
        assert await sync_status.last(conn, org_id=other_org_id, knowledge_base_id=world.base_id) is None
