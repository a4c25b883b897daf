"""The stores and the queue of a laptop or a server: folders, uploads on disk, and messages in Postgres."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
import stat
import unicodedata
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast

from bonito.clouds.base import ObjectInfo
from bonito.clouds.copying import MIB, copy_capped, too_large
from bonito.errors import AlreadyExists, DocumentError, InvalidRequest, NotFound, UpstreamError

if TYPE_CHECKING:
    from procrastinate import App
    from psycopg import AsyncConnection

logger = logging.getLogger(__name__)

# Hidden files (a leading dot), what editors and office programs write beside a document, and downloads under way.
IGNORED_PREFIXES = (".", "~$", "#")
IGNORED_SUFFIXES = ("~", ".swp", ".swo", ".swx", ".tmp", ".crdownload", ".part", ".partial", ".download")
IGNORED_NAMES = frozenset({"4913", "thumbs.db", "desktop.ini", "lost+found"})  # 4913: vim asks whether it may write

# A folder's name (with a slash at its end) still to be read, or a file.
Entries = list[str | ObjectInfo]

READ_TRIES = 4
READ_PAUSE_S = 0.1
MAX_KEY_BYTES = 1024  # what S3 takes; a name within it has 255 at most on every usual file system
MAX_NAME_BYTES = 255
INCOMING = ".incoming"


class FolderStore:
    """ObjectStore over a folder. A key is a path below it with forward slashes; nothing outside of it is ever read.

    Symbolic links to folders are not followed, those to files only when they stay below the root.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    async def head(self, key: str) -> ObjectInfo:
        """What lies at the key now.

        Raises:
            NotFound: no regular file, an ignored name, or something outside of the folder.
            DocumentError: the file exists and this process may not read it.
            UpstreamError: the folder itself is not there.
        """
        return await asyncio.to_thread(self._head, key)

    async def fetch(self, key: str, into: Path, *, max_bytes: int) -> ObjectInfo:
        """Copy the file as it was at one moment; a file that changes under the copy is read again.

        Raises:
            NotFound, DocumentError, UpstreamError: as `head`; UpstreamError also where the file never rests.
            DocumentTooLarge: before more than `max_bytes` are written.
        """
        for attempt in range(READ_TRIES):
            with self._opened(key) as descriptor:
                before = _info(key, os.fstat(descriptor))
                if before.size > max_bytes:
                    raise too_large(max_bytes, before.size)
                written = await copy_capped(_pieces(descriptor), into, max_bytes=max_bytes)
                after = _info(key, os.fstat(descriptor))
            if before == after and written == after.size and after == await self.head(key):
                return after
            await asyncio.sleep(READ_PAUSE_S * 2**attempt)
        raise UpstreamError("The file keeps changing while it is read.", retry_after_s=2.0)

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        """Every file whose key begins with the prefix and comes after `after`, in the order of the keys' bytes.

        Raises:
            UpstreamError: the folder, or one within it, cannot be listed; then nothing may be concluded.
        """
        pending: Entries = [""]
        while pending:
            entry = pending.pop()
            if isinstance(entry, ObjectInfo):
                yield entry
            else:
                pending.extend(reversed(await asyncio.to_thread(self._entries, entry, prefix, after)))

    def _entries(self, folder: str, prefix: str, after: str) -> Entries:
        """What lies directly in a folder, named with a slash at its end: files and folders, ascending by bytes."""
        found: dict[str, str | ObjectInfo] = {}
        try:
            with os.scandir(self._root / folder) as entries:
                for entry in entries:
                    is_folder = entry.is_dir(follow_symlinks=False)
                    key = folder + entry.name + ("/" if is_folder else "")
                    if is_ignored(key) or not _is_storable(key) or not _may_hold(key, prefix, after):
                        continue
                    described = key if is_folder else self._describe(key, entry)
                    if described is not None:
                        found[key] = described
        except FileNotFoundError:
            if not folder:
                raise _unreachable() from None
        except OSError as error:
            where = f"The folder {folder}" if folder else "The source's folder"
            raise UpstreamError(f"{where} cannot be listed: {error.strerror}.") from error
        return [found[key] for key in sorted(found, key=str.encode)]

    def _describe(self, key: str, entry: os.DirEntry[str]) -> ObjectInfo | None:
        """A file of a listing; None for what is none, or has gone since. That it can be read is not tried."""
        try:
            if entry.is_symlink():
                return self._head(key)
            status = entry.stat(follow_symlinks=False)
        except (FileNotFoundError, NotFound, DocumentError):
            return None
        return _info(key, status) if stat.S_ISREG(status.st_mode) else None

    def _head(self, key: str) -> ObjectInfo:
        with self._opened(key) as descriptor:
            return _info(key, os.fstat(descriptor))

    @contextmanager
    def _opened(self, key: str) -> Iterator[int]:
        """A descriptor of the file at the key, opened name by name so that no link leads out, not even a new one."""
        descriptor = self._open(key)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _open(self, key: str) -> int:
        parts = PurePosixPath(key).parts
        if "/".join(parts) != key or not parts or ".." in parts or "\0" in key or is_ignored(key):
            raise _absent(key)
        try:
            root = self._root.resolve(strict=True)
        except OSError:
            raise _unreachable() from None
        try:
            asked = root.joinpath(*parts)
            path = asked.resolve(strict=True)
            if asked.parent.resolve() != asked.parent or root not in path.parents:
                raise _absent(key)
            return _open_below(root, path.relative_to(root).parts, key)
        except (FileNotFoundError, NotADirectoryError, UnicodeEncodeError):
            raise _absent(key) from None
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO}:
                raise _absent(key) from None
            raise DocumentError(f"The file cannot be read: {error.strerror}.") from error
        except RuntimeError:  # a loop of links, before Python 3.13
            raise _absent(key) from None


class UploadFolder:
    """The files that one knowledge base was given by upload: an UploadStore below one folder.

    Only `put` makes the folder. A file of a folder that is not there may lie on a disk that is not mounted, and is not
    taken for gone: UpstreamError.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._folder = root, FolderStore(root)

    async def head(self, key: str) -> ObjectInfo:
        """What lies at the key now; NotFound."""
        return await self._folder.head(key)

    async def fetch(self, key: str, into: Path, *, max_bytes: int) -> ObjectInfo:
        """Copy the file; NotFound, DocumentTooLarge."""
        return await self._folder.fetch(key, into, max_bytes=max_bytes)

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        """Every file whose key begins with the prefix and comes after `after`, in the order of the keys' bytes."""
        if not await asyncio.to_thread(self._root.exists):
            return  # nothing was stored yet, or all of it was discarded; and a listing removes nothing
        async for info in self._folder.list(prefix, after=after):
            yield info

    async def check(self, names: Iterable[str]) -> None:
        """Refuse names under which `put` could store nothing as the files lie now; AlreadyExists, InvalidRequest."""
        await asyncio.to_thread(self._check, [clean_key(name) for name in names])

    async def put(self, name: str, content: AsyncIterable[bytes], *, max_bytes: int) -> ObjectInfo:
        """Store a file under its cleaned name, whole or not at all; one that lies there already is replaced.

        Raises:
            InvalidRequest: the name cannot be a document's.
            DocumentTooLarge: the content is above `max_bytes`.
            AlreadyExists: the name is a folder of other files here, or lies below a file.
        """
        key = clean_key(name)
        incoming = self._root / INCOMING / uuid.uuid4().hex
        incoming.parent.mkdir(parents=True, exist_ok=True)
        try:
            await copy_capped(content, incoming, max_bytes=max_bytes)
            await asyncio.to_thread(_move_durably, incoming, self._root / key)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise _taken(key) from error
        finally:
            incoming.unlink(missing_ok=True)
        return await self._folder.head(key)

    async def delete(self, key: str) -> bool:
        """Remove a file; whether there was one. UpstreamError where it is there and stays."""
        return await asyncio.to_thread(self._delete, clean_key(key))

    async def discard(self) -> None:
        """Remove everything."""
        await asyncio.to_thread(shutil.rmtree, self._root, ignore_errors=True)

    def _check(self, keys: Iterable[str]) -> None:
        for key in keys:
            path = self._root / key
            folders = list(path.parents)[: key.count("/")]
            if path.is_dir() or any(folder.exists() and not folder.is_dir() for folder in folders):
                raise _taken(key)

    def _delete(self, key: str) -> bool:
        path = self._root / key
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            if path.is_dir():  # which macOS calls a lack of permission
                return False
            raise UpstreamError(f"The file cannot be deleted: {error.strerror}.") from error
        for parent in path.parents:
            if parent == self._root:
                break
            try:
                parent.rmdir()
            except OSError:
                break  # holds other files
        return True


def is_ignored(key: str) -> bool:
    """Whether a key is none of a person's documents: hidden, a folder's placeholder, or some program's own file."""
    if key.endswith("/"):
        key = key.rstrip("/")
        return any(_is_ignored_name(name, is_folder=True) for name in key.split("/"))
    *folders, name = key.split("/")
    return _is_ignored_name(name, is_folder=False) or any(_is_ignored_name(part, is_folder=True) for part in folders)


def clean_key(name: str) -> str:
    """The key under which an uploaded file is stored: forward slashes, composed characters, nothing that climbs.

    Raises:
        InvalidRequest: empty, too long, with `..` or control characters, or a name that is ignored in folders.
    """
    try:
        key = unicodedata.normalize("NFC", name)
        encoded = key.encode()
    except UnicodeEncodeError:
        raise InvalidRequest("The file's name is not valid Unicode.", param="name") from None
    parts = [part for part in key.replace("\\", "/").split("/") if part not in {"", "."}]
    if not parts or ".." in parts:
        raise InvalidRequest("A file needs a name, and no name leads upwards.", param="name")
    if any(unicodedata.category(character) == "Cc" for character in key):
        raise InvalidRequest("Control characters are not allowed in a file's name.", param="name")
    if len(encoded) > MAX_KEY_BYTES or any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        raise InvalidRequest(
            f"The file's name is too long: {MAX_NAME_BYTES} bytes each part, {MAX_KEY_BYTES} in all.", param="name"
        )
    cleaned = "/".join(parts)
    if is_ignored(cleaned):
        raise InvalidRequest("Hidden and temporary files are not read; give the file another name.", param="name")
    return cleaned


def _is_ignored_name(name: str, *, is_folder: bool) -> bool:
    if is_folder:
        return name.startswith(".") or name.lower() in IGNORED_NAMES
    lower = name.lower()
    return not name or lower.startswith(IGNORED_PREFIXES) or lower.endswith(IGNORED_SUFFIXES) or lower in IGNORED_NAMES


def _may_hold(key: str, prefix: str, after: str) -> bool:
    """Whether a file, or some file in a folder, is asked for."""
    is_above = key.endswith("/") and (prefix.startswith(key) or after.startswith(key))
    return is_above or (key.startswith(prefix) and key.encode() > after.encode())


def _is_storable(key: str) -> bool:
    try:
        is_short = len(key.encode()) <= MAX_KEY_BYTES
    except UnicodeEncodeError:
        is_short = False
    if not is_short:
        logger.warning(
            "A file of a local source is skipped: its path is not UTF-8 or has more than %d bytes.", MAX_KEY_BYTES
        )
    return is_short


def _info(key: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(
        key=key,
        size=status.st_size,
        version=f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}",
        modified_at=datetime.fromtimestamp(status.st_mtime, UTC),
    )


def _open_below(root: Path, parts: tuple[str, ...], key: str) -> int:
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        descriptor = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _absent(key)
    return descriptor


async def _pieces(descriptor: int) -> AsyncIterator[bytes]:
    """The file from its beginning, by position: a cancelled read may end after the descriptor was closed."""
    position = 0
    while piece := await asyncio.to_thread(os.pread, descriptor, MIB, position):
        yield piece
        position += len(piece)


def _move_durably(source: Path, target: Path) -> None:
    """Rename within one file system, content first and the folder's entry after it safe on the disk."""
    with source.open("rb") as file:
        os.fsync(file.fileno())
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _taken(key: str) -> AlreadyExists:
    return AlreadyExists(f"{key} would be a file and a folder at once.", param="name")


def _absent(key: str) -> NotFound:
    return NotFound(f"There is no file {key}.")


def _unreachable() -> UpstreamError:
    return UpstreamError("The source's folder is not there; it may have been moved or unmounted.")


class ProcrastinateQueue:
    """MessageQueue in Postgres, worked off by `bonito worker` or `bonito up`.

    A message may carry two members that concern the queue alone: `priority` (an integer, the higher is served first,
    0 where absent) and `unique` (a text; while a message with the same one still waits, another is superfluous).
    """

    def __init__(self, app: App) -> None:
        self.app = app

    async def send(self, queue: str, message: Mapping[str, object], *, delay: timedelta = timedelta()) -> None:
        """Enqueue one message, visible after `delay`; UpstreamError where the database does not take it."""
        from procrastinate.exceptions import AlreadyEnqueued, ConnectorException

        priority, unique = message.get("priority"), message.get("unique")
        options: dict[str, Any] = {"priority": priority if isinstance(priority, int) else 0}
        if isinstance(unique, str):
            options["queueing_lock"] = unique
        if delay > timedelta():
            options["schedule_in"] = {"milliseconds": round(delay.total_seconds() * 1000)}
        try:
            await self.app.configure_task(queue, queue=queue, **options).defer_async(message=cast("Any", message))
        except AlreadyEnqueued:
            return
        except ConnectorException as error:
            raise UpstreamError("The message could not be queued.") from error


@asynccontextmanager
async def open_queue(url: str, *, pool_size: int = 4) -> AsyncIterator[ProcrastinateQueue]:
    """The queue over connections of its own, which keep no session state: it works behind a transaction-pooling proxy.

    Args:
        url: the runtime login's.
        pool_size: connections at most.
    """
    from procrastinate import App, PsycopgConnector

    async def configure(connection: AsyncConnection[Any]) -> None:
        connection.prepare_threshold = None  # a proxy may hand the next statement to another server
        await connection.set_autocommit(True)

    connector = PsycopgConnector(conninfo=url, min_size=1, max_size=pool_size, configure=configure)
    async with App(connector=connector).open_async() as app:
        yield ProcrastinateQueue(app)
