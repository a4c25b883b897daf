"""Watches the folders of local sources; what the operating system reports becomes ObjectChanged, as from any cloud.

A report may be lost (a full buffer, a network drive): syncs are the net. So nothing here is retried for long.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import LiteralString
from uuid import UUID

import psycopg
from watchfiles import watch

from bonito.clouds.base import ChangeKind, ObjectChanged
from bonito.clouds.local import FolderStore, is_ignored
from bonito.database.pool import lookup
from bonito.errors import BonitoError
from bonito.knowledge.context import Ingestion, send_all
from bonito.knowledge.ingestion import object_changed
from bonito.knowledge.messages import SyncMessage

logger = logging.getLogger(__name__)

# Reports are gathered for a moment, and a file counts as written once it rests for another.
DEBOUNCE_MS, STEP_MS, TIMEOUT_MS = 50, 25, 500
REST_S, LONGEST_REST_S = 0.1, 60.0
# A file that was last changed so long ago was moved here, not written.
OLD_S = 2.0
# How soon a new knowledge base's folder is watched, and one that is away is looked for again.
LOOK_S, AWAY_S = 2.0, 10.0
# More reports at once are worth a listing.
MANY = 500
TRIES = 5

FIND_SOURCES: LiteralString = "SELECT org_id, knowledge_base_id, source_bucket FROM find_sources('local')"

# Paths that changed, none when nothing did for a while; or why there is no more to come.
Report = set[str] | BaseException
State = tuple[int, int, int] | None


async def run(context: Ingestion) -> None:
    """Watch until cancelled; knowledge bases that come and go meanwhile are followed."""
    folders: dict[str, asyncio.Task[None]] = {}
    try:
        while True:
            with suppress(psycopg.Error, BonitoError):
                wanted = {bucket for _, _, bucket in await _sources(context)}
                for folder in wanted - folders.keys():
                    folders[folder] = asyncio.create_task(FolderWatch(context, Path(folder)).run())
                for folder in folders.keys() - wanted:
                    folders.pop(folder).cancel()
            await asyncio.sleep(LOOK_S)
    finally:
        for task in folders.values():
            task.cancel()
        if folders:
            await asyncio.wait(folders.values())


class FolderWatch:
    """One folder, watched in a thread of its own: setting it up takes time with the number of folders in it."""

    def __init__(self, context: Ingestion, folder: Path) -> None:
        self._context, self._folder = context, folder
        self._resting: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Watch until cancelled; a folder that is away is waited for."""
        must_poll = False
        while True:
            try:
                await self._watch(must_poll=must_poll)
            except FileNotFoundError:
                logger.warning("The folder of a local source is away; its documents stay as they are.")
            except (OSError, RuntimeError) as error:
                must_poll = True
                logger.warning("A folder cannot be watched (%s); it is looked through instead.", error)
            await asyncio.sleep(AWAY_S)

    async def _watch(self, *, must_poll: bool) -> None:
        loop, stop = asyncio.get_running_loop(), threading.Event()
        reports: asyncio.Queue[Report] = asyncio.Queue()

        def report(item: Report) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(reports.put_nowait, item)

        def watch_folder() -> None:
            try:
                for changes in watch(
                    self._folder,
                    watch_filter=None,
                    debounce=DEBOUNCE_MS,
                    step=STEP_MS,
                    stop_event=stop,
                    rust_timeout=TIMEOUT_MS,
                    yield_on_timeout=True,
                    force_polling=must_poll or None,
                    ignore_permission_denied=True,
                ):
                    report({path for _, path in changes})
                report(FileNotFoundError(self._folder))
            except BaseException as error:  # noqa: BLE001 - told to the loop, which decides
                report(error)

        thread = threading.Thread(target=watch_folder, name="bonito-watch", daemon=True)
        thread.start()
        try:
            await self._follow(reports)
        finally:
            stop.set()
            for task in self._tasks:
                task.cancel()

    async def _follow(self, reports: asyncio.Queue[Report]) -> None:
        """The first report, even an empty one, says that the watch stands; what came before it a sync finds."""
        watched, is_standing = self._folder.stat().st_ino, False
        while True:
            report = await reports.get()
            if isinstance(report, BaseException):
                raise report
            if self._folder.stat().st_ino != watched:
                raise FileNotFoundError(self._folder)  # another folder of this name
            if not is_standing or len(report) > MANY:
                is_standing = True
                self._start(self._sync())
                continue
            for path in report:
                self._changed(path)

    def _changed(self, path: str) -> None:
        with suppress(ValueError):
            key = Path(path).relative_to(self._folder).as_posix()
            if key != "." and not is_ignored(key) and key not in self._resting:
                self._resting.add(key)
                self._start(self._tell(key))

    def _start(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, key: str) -> None:
        """Wait until the file rests, then have it looked at; what happens to it after that is a report of its own."""
        try:
            path = await self._rested(key)
        finally:
            self._resting.discard(key)
        if path.is_dir() and not path.is_symlink():
            await self._tell_folder(key)
            return
        kind: ChangeKind = "created" if path.exists() else "deleted"
        await self._send(ObjectChanged("local", str(self._folder), key, kind))

    async def _rested(self, key: str) -> Path:
        path = self._folder / key
        until = time.monotonic() + LONGEST_REST_S
        state = _state(path)
        while time.monotonic() < until:
            if state is not None and time.time() - state[1] / 1e9 > OLD_S:
                break
            await asyncio.sleep(REST_S)
            before, state = state, _state(path)
            if before == state:
                break
        return path

    async def _tell_folder(self, key: str) -> None:
        """A folder that was moved here is one report; its files are told of here."""
        if is_ignored(f"{key}/"):
            return
        with suppress(BonitoError):
            async for info in FolderStore(self._folder).list(f"{key}/"):
                await self._send(ObjectChanged("local", str(self._folder), info.key, "created"))

    async def _send(self, change: ObjectChanged) -> None:
        for attempt in range(TRIES):
            try:
                await object_changed(self._context, change)
            except (psycopg.Error, BonitoError) as error:
                logger.warning("A change in a folder could not be told (%s).", type(error).__name__)
                await asyncio.sleep(2.0**attempt)
            else:
                return

    async def _sync(self) -> None:
        with suppress(psycopg.Error, BonitoError):
            found = await _sources(self._context)
            bucket = str(self._folder)
            messages = [
                SyncMessage(org_id, base_id, trigger="notification")
                for org_id, base_id, each in found
                if each == bucket
            ]
            await send_all(self._context.queue, messages)


async def _sources(context: Ingestion) -> list[tuple[UUID, UUID, str]]:
    async with lookup(context.pool) as conn:
        return await (await conn.execute(FIND_SOURCES)).fetchall()


def _state(path: Path) -> State:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino
