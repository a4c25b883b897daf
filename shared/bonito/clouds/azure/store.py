"""Blob Storage: a container of a customer's account to read from, and the deployment's own for uploads."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from bonito.clouds.access import TokenAccess
from bonito.clouds.azure.credentials import AccountKey, StorageAccess, credential
from bonito.clouds.azure.failures import RETRIES, explained
from bonito.clouds.azure.listing import PAGE, info_of, is_directory, listed, version_of
from bonito.clouds.base import ObjectInfo, SignedUpload
from bonito.clouds.copying import MIB, copy_capped, too_large
from bonito.clouds.local import clean_key
from bonito.errors import AlreadyExists, DocumentError, InvalidRequest, NotFound, UpstreamError

if TYPE_CHECKING:
    from azure.storage.blob.aio import BlobClient, ContainerClient

ACCOUNT_NAME = re.compile(r"[a-z0-9]{3,24}")
PUBLIC_ENDPOINT = "https://{account}.blob.core.windows.net"

PIECE_BYTES = 4 * MIB  # of one request; what breaks is asked for again from its beginning
READ_TRIES = 4  # of a blob that changes while it is read
DELETED_AT_ONCE = 256  # the most of a batch call
# A body above 1 MiB in one piece holds up the event loop, and aiohttp warns of it.
UPLOADS: dict[str, Any] = {"max_block_size": MIB, "max_single_put_size": MIB}


class BlobStore:
    """ObjectStore over a container."""

    def __init__(self, account: str, container: str, *, access: StorageAccess, endpoint_url: str | None = None) -> None:
        """Open nothing yet.

        Args:
            account: the storage account's name.
            container: within it.
            access: what calls are signed with.
            endpoint_url: the blob service of another cloud than Azure's public one.

        Raises:
            InvalidRequest: the account's name cannot be one.
        """
        if not ACCOUNT_NAME.fullmatch(account):
            raise InvalidRequest("A storage account's name has 3 to 24 lower-case letters and digits.", param="account")
        self.account, self.container, self.access = account, container, access
        self.endpoint_url = endpoint_url or PUBLIC_ENDPOINT.format(account=account)

    async def head(self, key: str) -> ObjectInfo:
        """What lies at the key now; NotFound, DocumentError where its name cannot be asked for."""
        async with self.opened() as client:
            return await self._head(client.get_blob_client(_askable(key)), key)

    async def fetch(self, key: str, into: Path, *, max_bytes: int) -> ObjectInfo:
        """Copy the blob as it was at one moment; one that is replaced under the copy is read again.

        Raises:
            NotFound, DocumentError: as `head`; DocumentError also for a blob in the archive, or under another's key.
            DocumentTooLarge: before any of it is written.
            UpstreamError: the blob is replaced again and again.
        """
        from azure.core.exceptions import ResourceModifiedError

        async with self.opened() as client:
            blob = client.get_blob_client(_askable(key))
            for _ in range(READ_TRIES):
                info = await self._head(blob, key)
                if info.size > max_bytes:
                    raise too_large(max_bytes, info.size)
                with explained(account=self.account, container=self.container, key=key):
                    try:
                        await copy_capped(_pieces(blob, info), into, max_bytes=max_bytes)
                    except ResourceModifiedError:
                        continue
                return info
        raise UpstreamError("The blob keeps changing while it is read.", retry_after_s=2.0)

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        """Every blob whose name begins with the prefix and comes after `after`, in the order of the names' bytes."""
        async with self.opened() as client:
            with explained(account=self.account, container=self.container):
                async for info in listed(client, prefix, after):
                    yield info

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[ContainerClient]:
        """A client of the container, with connections of its own."""
        from azure.storage.blob.aio import ContainerClient

        async with ContainerClient(
            self.endpoint_url, self.container, credential=credential(self.access), **RETRIES, **UPLOADS
        ) as client:
            yield client

    async def _head(self, blob: BlobClient, key: str) -> ObjectInfo:
        with explained(account=self.account, container=self.container, key=key):
            found = await blob.get_blob_properties()
        if is_directory(found):
            raise NotFound(f"{key} is a directory.")
        return info_of(found, key)


class AzureUploads:
    """UploadStore below a prefix of the deployment's own container; keys are names below it."""

    def __init__(
        self, bucket: str, prefix: str, *, access: TokenAccess | AccountKey, endpoint_url: str | None = None
    ) -> None:
        """Open nothing yet.

        Args:
            bucket: `account/container`.
            prefix: of one knowledge base; ends with a slash.
            access: the deployment's own.
            endpoint_url: the blob service of another cloud than Azure's public one.
        """
        account, _, container = bucket.partition("/")
        self._prefix, self._access = prefix, access
        self._store = BlobStore(account, container, access=access, endpoint_url=endpoint_url)

    async def head(self, key: str) -> ObjectInfo:
        """What lies at the key now; NotFound."""
        return replace(await self._store.head(self._prefix + key), key=key)

    async def fetch(self, key: str, into: Path, *, max_bytes: int) -> ObjectInfo:
        """Copy the file; NotFound, DocumentTooLarge."""
        return replace(await self._store.fetch(self._prefix + key, into, max_bytes=max_bytes), key=key)

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        """Every file whose key begins with the prefix and comes after `after`, in the order of the keys' bytes."""
        async for info in self._store.list(self._prefix + prefix, after=self._prefix + after if after else ""):
            yield replace(info, key=info.key.removeprefix(self._prefix))

    async def check(self, names: Iterable[str]) -> None:
        """Refuse names under which `put` could store nothing as the files lie now; AlreadyExists, InvalidRequest."""
        async with self._store.opened() as client:
            with self._explained(None):
                for name in names:
                    await self._check_place(client, clean_key(name))

    async def put(self, name: str, content: AsyncIterable[bytes], *, max_bytes: int) -> ObjectInfo:
        """Store a file under its cleaned name: its blocks are committed together, when the last one is there.

        Raises:
            InvalidRequest: the name cannot be a document's.
            DocumentTooLarge: the content is above `max_bytes`.
            AlreadyExists: the name is a folder of other files here, or lies below a file.
        """
        key, counted = clean_key(name), _Counted(content, max_bytes)
        async with self._store.opened() as client:
            with self._explained(key):
                await self._check_place(client, key)
                stored = await client.get_blob_client(self._prefix + key).upload_blob(counted.pieces(), overwrite=True)
        return ObjectInfo(key, counted.size, version_of(stored["etag"]), stored["last_modified"])

    async def delete(self, key: str) -> bool:
        """Remove a file; whether there was one."""
        try:
            async with self._store.opened() as client:
                with self._explained(key):
                    await client.get_blob_client(self._prefix + clean_key(key)).delete_blob()
        except NotFound:
            return False
        return True

    async def discard(self) -> None:
        """Remove everything; UpstreamError where something stays."""
        names: list[str] = []
        async with self._store.opened() as client:
            with self._explained(None):
                async for blob in client.list_blobs(name_starts_with=self._prefix, results_per_page=PAGE):
                    names.append(blob.name)
                    if len(names) == DELETED_AT_ONCE:
                        await _delete_all(client, names)
                        names = []
                await _delete_all(client, names)

    async def signed_upload(self, key: str, *, size: int, sha256: bytes, expires: timedelta) -> SignedUpload:
        """An address that takes this one file by PUT, for as long as `expires` from now.

        Azure binds neither size nor content to the signature: both go along as metadata, `size` in bytes and `sha256`
        in hexadecimal digits, and whoever reads the blob holds it to its own limits.
        """
        from azure.storage.blob import BlobSasPermissions, generate_blob_sas

        now = datetime.now(UTC)
        async with self._store.opened() as client:
            with self._explained(key):
                blob = client.get_blob_client(self._prefix + clean_key(key))
                signature = generate_blob_sas(
                    self._store.account,
                    self._store.container,
                    blob.blob_name,
                    permission=BlobSasPermissions(create=True, write=True),
                    expiry=now + expires,
                    **await self._signing_key(now, now + expires),
                )
        headers = {"x-ms-blob-type": "BlockBlob", "x-ms-meta-bytes": str(size), "x-ms-meta-sha256": sha256.hex()}
        return SignedUpload(f"{blob.url}?{signature}", headers)

    async def _signing_key(self, start: datetime, expiry: datetime) -> dict[str, Any]:
        """The account's key, or one that Azure gives to the deployment's identity for a while."""
        from azure.storage.blob.aio import BlobServiceClient

        if isinstance(self._access, AccountKey):
            return {"account_key": self._access.key}
        async with BlobServiceClient(
            self._store.endpoint_url, credential=credential(self._access), **RETRIES
        ) as service:
            return {"user_delegation_key": await service.get_user_delegation_key(start, expiry)}

    async def _check_place(self, client: ContainerClient, key: str) -> None:
        async for _ in client.list_blobs(name_starts_with=f"{self._prefix}{key}/", results_per_page=1):
            raise AlreadyExists(f"{key} is a folder of other files.", param="name")
        for folder in PurePosixPath(key).parents:
            if folder.name and await client.get_blob_client(f"{self._prefix}{folder}").exists():
                raise AlreadyExists(f"{folder} is a file, and no folder.", param="name")

    def _explained(self, key: str | None) -> AbstractContextManager[None]:
        return explained(account=self._store.account, container=self._store.container, key=key)


class _Counted:
    """A stream that counts what it passes on, and ends with an error above the limit."""

    def __init__(self, content: AsyncIterable[bytes], max_bytes: int) -> None:
        self._content, self._max_bytes, self.size = content, max_bytes, 0

    async def pieces(self) -> AsyncIterator[bytes]:
        async for piece in self._content:
            self.size += len(piece)
            if self.size > self._max_bytes:
                raise too_large(self._max_bytes)
            yield piece


async def _pieces(blob: BlobClient, info: ObjectInfo) -> AsyncIterator[bytes]:
    """The blob in ranges, all of the one version; the SDK asks again for a range that breaks off."""
    from azure.core import MatchConditions

    for offset in range(0, info.size, PIECE_BYTES):
        piece = await blob.download_blob(
            offset=offset,
            length=min(PIECE_BYTES, info.size - offset),
            etag=f'"{info.version}"',
            match_condition=MatchConditions.IfNotModified,
            decompress=False,
        )
        yield await piece.readall()


async def _delete_all(client: ContainerClient, names: Sequence[str]) -> None:
    if not names:
        return
    async for answer in await client.delete_blobs(*names, raise_on_any_failure=False):
        if answer.status_code not in {202, 404}:
            raise UpstreamError(f"An uploaded file could not be removed (status {answer.status_code}).")


def _askable(key: str) -> str:
    """The key; a part `.` or `..` would be resolved on the way, and another blob or container asked for."""
    if not {".", ".."}.isdisjoint(key.split("/")):
        raise DocumentError("The blob's name has a part . or .. and cannot be asked for.")
    return key
