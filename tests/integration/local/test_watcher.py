"""The watcher: what happens in a folder is told as it would be by a cloud, and nothing that matters is missed."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import pytest

from bonito.database.pool import Pool, tenant
from bonito.knowledge import bases
from bonito.local import watcher
from tests.integration.knowledge.ingesting import World
from tests.integration.local.working import eventually


@pytest.fixture
async def world(pool: Pool, org_id: UUID, tmp_path: Path) -> World:
    folder = tmp_path / "source"
    folder.mkdir()
    return await World.create(pool, org_id, folder)


@pytest.fixture
async def watching(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """The watcher runs and its watch stands: it has asked for a sync."""
    monkeypatch.setattr(watcher, "LOOK_S", 0.2)
    monkeypatch.setattr(watcher, "AWAY_S", 0.3)
    task = asyncio.create_task(watcher.run(world.context))
    await syncs(world, 1)
    world.queue.waiting.clear()
    yield world
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    async with tenant(world.pool, world.org_id) as conn:
        await bases.delete(conn, org_id=world.org_id, knowledge_base_id=world.base_id)


async def told(world: World, *paths: str, again: frozenset[str] = frozenset()) -> None:
    """Wait until these paths are to be looked at, no others but `again`, and forget them.

    The system may report a change twice, and a busy one does so late: a path that was told of before may come again.
    """

    async def look() -> set[str]:
        return {
            str(message["path"])
            for message in world.queue.of("ingest")
            if message["knowledge_base_id"] == str(world.base_id)
        }

    await eventually(look, lambda seen: seen >= set(paths))
    assert await look() - again == set(paths) - again
    world.queue.waiting.clear()


async def syncs(world: World, count: int) -> None:
    async def look() -> int:
        asked = [message["knowledge_base_id"] for message in world.queue.of("sync")]
        return asked.count(str(world.base_id))

    await eventually(look, lambda seen: seen >= count)


async def test_created_changed_renamed_and_deleted_files_are_told(watching: World) -> None:
    watching.write("a.txt", "one")
    await told(watching, "a.txt")

    watching.write("a.txt", "two")
    await told(watching, "a.txt")

    (watching.folder / "a.txt").rename(watching.folder / "b c+%é.txt")
    await told(watching, "a.txt", "b c+%é.txt")

    (watching.folder / "b c+%é.txt").unlink()
    await told(watching, "b c+%é.txt", again=frozenset({"a.txt"}))


async def test_new_folders_are_watched_with_what_they_already_hold(watching: World, tmp_path: Path) -> None:
    watching.write("deep/er/a.txt", "one")
    await told(watching, "deep/er/a.txt")

    moved = tmp_path / "elsewhere"
    (moved / "inner").mkdir(parents=True)
    (moved / "inner" / "b.txt").write_text("two")
    moved.rename(watching.folder / "moved")
    await told(watching, "moved/inner/b.txt", again=frozenset({"deep/er/a.txt"}))

    watching.write("moved/inner/c.txt", "three")
    await told(watching, "moved/inner/c.txt", again=frozenset({"deep/er/a.txt", "moved/inner/b.txt"}))


async def test_a_folder_that_goes_takes_its_documents_along(watching: World) -> None:
    watching.write("deep/a.txt", "The barometer.")
    await told(watching, "deep/a.txt")
    await watching.changed("deep/a.txt")
    await watching.settle()

    shutil.move(watching.folder / "deep", watching.folder.parent / "outside")

    async def gone() -> bool:
        await watching.settle()
        return await watching.statuses() == {}

    await eventually(gone, bool)


async def test_hidden_and_temporary_files_are_not_told(watching: World) -> None:
    for name in (".hidden", "~$report.docx", ".a.txt.swp", "big.zip.crdownload", "4913", "x.part", ".git/config"):
        watching.write(name, "x")
    watching.write("real.txt", "x")

    await told(watching, "real.txt")


async def test_a_file_is_told_once_it_rests(watching: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "REST_S", 1.0)
    with (watching.folder / "growing.txt").open("w") as file:
        for _ in range(12):
            file.write("more ")
            file.flush()
            await asyncio.sleep(0.03)
            assert watching.queue.of("ingest") == []

    await told(watching, "growing.txt")


async def test_a_base_that_comes_later_is_watched_from_its_beginning(watching: World, tmp_path: Path) -> None:
    folder = tmp_path / "later"
    folder.mkdir()
    (folder / "early.txt").write_text("there before")
    later = await World.create(watching.pool, watching.org_id, folder)
    later.queue = watching.queue

    await syncs(later, 1)
    later.write("late.txt", "there after")

    await told(later, "late.txt")


async def test_a_folder_that_is_away_is_watched_again_when_it_returns(
    watching: World, caplog: pytest.LogCaptureFixture
) -> None:
    away = watching.folder.with_name("away")
    watching.folder.rename(away)

    async def is_missed() -> bool:
        return "is away" in caplog.text

    await eventually(is_missed, bool)
    away.rename(watching.folder)
    await syncs(watching, 1)
    watching.queue.waiting.clear()

    watching.write("a.txt", "one")

    await told(watching, "a.txt")


async def test_a_crowd_of_files_becomes_one_listing(watching: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "MANY", 5)
    for number in range(40):
        (watching.folder / f"{number}.txt").write_text("x")

    await syncs(watching, 1)
