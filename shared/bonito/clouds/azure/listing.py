"""What is in a container, in the order of the names' bytes, whichever way its account lists."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from bonito.clouds.base import ObjectInfo

if TYPE_CHECKING:
    from azure.storage.blob import BlobProperties
    from azure.storage.blob.aio import ContainerClient

PAGE = 5000  # the most that a list call returns
# Accounts with a hierarchical namespace, and Hadoop on others, list a directory as an empty blob with this mark.
DIRECTORY_MARK = "hdi_isfolder"


async def listed(client: ContainerClient, prefix: str, after: str) -> AsyncIterator[ObjectInfo]:
    """The flat listing, until a directory in it tells that its order is by directories; then from there on walked.

    It begins at the service as near before `after` as is safe; what then still does not come after it is left out here.
    """
    last, begin = after, _start_from(prefix, after)
    async for blob in client.list_blobs(prefix, include=["metadata"], results_per_page=PAGE, start_from=begin):
        if is_directory(blob):
            break
        if blob.name.encode() > last.encode():
            last = blob.name
            yield info_of(blob, blob.name)
    else:
        return
    async for info in _walked(client, prefix, last):
        yield info


def _start_from(prefix: str, after: str) -> str | None:
    """A name of one level, which is all that `startFrom` is sure to take, with nothing that is asked for before it.

    A hierarchical account lists the directory `a`, and what is in it, before `a.txt`, although `a/b` comes after that
    in the order of bytes. So the name is cut where it goes on with a byte below the slash.
    """
    name = after.partition("/")[0]
    cut = next((index for index, character in enumerate(name) if character < "/"), len(name))
    return name[:cut] if name[:cut].encode() > prefix.encode() else None


async def _walked(client: ContainerClient, prefix: str, after: str) -> AsyncIterator[ObjectInfo]:
    """The listing directory by directory, in the order of the names' bytes.

    A directory is named before its siblings that its name begins (`a` before `a.txt`), but what it holds comes after
    those that continue with a byte below the slash. So it waits until they have passed.
    """
    from azure.storage.blob.aio import BlobPrefix

    waiting: list[tuple[bytes, str]] = []
    async for item in client.walk_blobs(prefix, include=["metadata"], delimiter="/", results_per_page=PAGE):
        reached = item.name.removesuffix("/").encode()
        while waiting and waiting[0][0] < reached:
            async for info in _walked(client, heapq.heappop(waiting)[1], after):
                yield info
        is_later = item.name.encode() > after.encode()
        if isinstance(item, BlobPrefix):
            if is_later or after.startswith(item.name):
                heapq.heappush(waiting, (item.name.encode(), item.name))
        elif is_later and not is_directory(item):
            yield info_of(item, item.name)
    while waiting:
        async for info in _walked(client, heapq.heappop(waiting)[1], after):
            yield info


def is_directory(blob: BlobProperties) -> bool:
    """Whether it stands for a directory and holds nothing."""
    metadata = {name.lower(): value for name, value in (blob.metadata or {}).items()}
    return metadata.get(DIRECTORY_MARK) == "true"


def info_of(blob: BlobProperties, key: str) -> ObjectInfo:
    """What we keep of the properties."""
    return ObjectInfo(key=key, size=blob.size, version=version_of(blob.etag), modified_at=blob.last_modified)


def version_of(etag: str) -> str:
    """The ETag; a listing tells it without the quotes that a head has."""
    return etag.strip('"')
