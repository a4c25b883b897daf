"""Cloud Storage: a customer's bucket, read; and the deployment's own bucket, which uploads are written to."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bonito.clouds.access import TokenAccess
from bonito.clouds.base import ObjectInfo, SignedUpload
from bonito.clouds.copying import copy_capped, too_large
from bonito.clouds.gcp.addresses import Signer, signed_url
from bonito.clouds.gcp.api import BROKEN, Api, Refused, Session
from bonito.clouds.gcp.downloads import Reading, Replaced, new_crc32c
from bonito.clouds.gcp.refusals import explained
from bonito.clouds.local import clean_key
from bonito.errors import AlreadyExists, BonitoError, NotFound, UpstreamError

ENDPOINT = "https://storage.googleapis.com"
READ = "https://www.googleapis.com/auth/devstorage.read_only"
READ_WRITE = "https://www.googleapis.com/auth/devstorage.read_write"

MAX_KEY_BYTES = 1024  # https://cloud.google.com/storage/docs/objects#naming
PAGE = 1000
FIELDS = "name,size,generation,updated"
REREADS = 4  # of an object that is replaced while it is read
DELETING_AT_ONCE = 8


class GcsStore:
    """ObjectStore over a bucket of Cloud Storage, with the rights of one organization's connection."""

    def __init__(self, bucket: str, *, access: TokenAccess, endpoint_url: str | None = None, scope: str = READ) -> None:
        """Connect to nothing yet.

        Args:
            bucket: its name.
            access: of the connection; its tokens are asked for with `scope`, which cannot write unless told so.
            endpoint_url: of Cloud Storage, where it is not Google's own.
            scope: of the tokens.
        """
        self.bucket = bucket
        self.api = Api("Cloud Storage", endpoint_url or ENDPOINT, access=access, scope=scope)
        self._objects = f"/storage/v1/b/{quote(bucket, safe='')}/o"

    async def head(self, key: str) -> ObjectInfo:
        """What lies at the key now; NotFound, AccessDenied, UpstreamError."""
        path = self.path(key)
        async with self.api.session() as session:
            try:
                return _info(await session.call("GET", path, params={"fields": FIELDS}))
            except Refused as refused:
                raise await self.refusal(session, refused, key) from refused

    async def fetch(self, key: str, into: Path, *, max_bytes: int) -> ObjectInfo:
        """Stream the object into a file, as it was at one moment, and check it against its checksum.

        A connection that breaks is resumed where it broke, of the same generation only; an object that is replaced
        meanwhile is read from its beginning. What was stored with the content encoding gzip is unpacked.

        Raises:
            NotFound, AccessDenied: as `head`.
            DocumentTooLarge: before more than `max_bytes` are written.
            DocumentError: the object is encrypted with a key that only its owner has.
            UpstreamError: the store does not answer, the object never rests, or arrives damaged.
        """
        path = self.path(key)
        async with self.api.session() as session:
            for _ in range(REREADS):
                reading = Reading(session, path, max_bytes)
                try:
                    async with aclosing(reading.content()) as content:
                        size = await copy_capped(content, into, max_bytes=max_bytes)
                    return reading.info(key, size)
                except Replaced:
                    continue
                except Refused as refused:
                    raise await self.refusal(session, refused, key) from refused
        raise UpstreamError("The object keeps changing while it is read.", retry_after_s=2.0)

    async def list(self, prefix: str, *, after: str = "") -> AsyncGenerator[ObjectInfo, None]:
        """Every object below the prefix with a key after `after`, in the order of the keys' bytes."""
        # startOffset includes its name: https://cloud.google.com/storage/docs/json_api/v1/objects/list
        params = {"prefix": prefix, "startOffset": after, "maxResults": str(PAGE), "projection": "noAcl"}
        params["fields"] = f"items({FIELDS}),nextPageToken"
        async with self.api.session() as session:
            while True:
                try:
                    page = await session.call("GET", self._objects, params=params)
                except Refused as refused:
                    raise explained(refused, self.bucket, right="storage.objects.list") from refused
                for item in page.get("items", ()):
                    if item["name"] != after:
                        yield _info(item)
                if not page.get("nextPageToken"):
                    return
                params["pageToken"] = page["nextPageToken"]

    def path(self, key: str) -> str:
        """The address of an object below the service's; NotFound for what cannot be one's name."""
        try:
            is_name = 0 < len(key.encode()) <= MAX_KEY_BYTES and key not in {".", ".."} and not set(key) & set("\0\r\n")
        except UnicodeEncodeError:
            is_name = False
        if not is_name:
            raise NotFound("There is no object of such a name.")
        return f"{self._objects}/{quote(key, safe='')}"

    async def refusal(
        self, session: Session, refused: Refused, key: str, *, right: str = "storage.objects.get"
    ) -> BonitoError:
        """The error for a refused call about one object.

        A bucket that is gone answers 404 as a missing object does, and must never look like one.
        """
        if refused.status != 404:
            return explained(refused, self.bucket, right=right)
        if not refused.text.startswith("No such object"):
            try:
                await session.call("GET", self._objects, params={"prefix": key, "maxResults": "1", "fields": "kind"})
            except Refused as again:
                if again.status == 404:
                    return explained(again, self.bucket, right=right)
        return NotFound(f"There is no object {key}.")


class GcsUploads:
    """UploadStore in the deployment's own bucket, below a prefix that one knowledge base has for itself."""

    def __init__(
        self,
        bucket: str,
        prefix: str,
        *,
        access: TokenAccess,
        signer: Signer,
        endpoint_url: str | None = None,
    ) -> None:
        """Connect to nothing yet.

        Args:
            bucket: the deployment's.
            prefix: ends with a slash; keys are told without it.
            access: of the function itself.
            signer: for addresses that a caller uploads to.
            endpoint_url: of Cloud Storage, where it is not Google's own.
        """
        self._store = GcsStore(bucket, access=access, endpoint_url=endpoint_url, scope=READ_WRITE)
        self._prefix, self._signer = prefix, signer

    async def head(self, key: str) -> ObjectInfo:
        """As `GcsStore.head`."""
        return self._own(await self._store.head(self._prefix + key))

    async def fetch(self, key: str, into: Path, *, max_bytes: int) -> ObjectInfo:
        """As `GcsStore.fetch`."""
        return self._own(await self._store.fetch(self._prefix + key, into, max_bytes=max_bytes))

    async def list(self, prefix: str, *, after: str = "") -> AsyncGenerator[ObjectInfo, None]:
        """As `GcsStore.list`."""
        async with aclosing(self._store.list(self._prefix + prefix, after=self._prefix + after)) as found:
            async for info in found:
                yield self._own(info)

    async def check(self, names: Iterable[str]) -> None:
        """Refuse names under which `put` could store nothing as the files lie now; AlreadyExists, InvalidRequest."""
        for name in names:
            await self._check_name(clean_key(name))

    async def put(self, name: str, content: AsyncIterable[bytes], *, max_bytes: int) -> ObjectInfo:
        """Store a file under its cleaned name, whole or not at all; one that lies there already is replaced.

        An object exists when its upload has ended, so that one which breaks off leaves nothing.

        Raises:
            InvalidRequest: the name cannot be a document's.
            DocumentTooLarge: the content is above `max_bytes`.
            AlreadyExists: the name is a folder of other files here, or lies below a file.
            AccessDenied, UpstreamError: the store refuses, or does not answer; the content is not sent again.
        """
        cleaned = clean_key(name)
        await self._check_name(cleaned)
        key = self._prefix + cleaned
        path = f"/upload{self._store.path(key).rpartition('/')[0]}"
        counted = _Counted(content, max_bytes)
        async with self._store.api.session() as session:
            try:
                async with session.opened(
                    "POST",
                    path,
                    params={"uploadType": "media", "name": key, "fields": f"{FIELDS},crc32c"},
                    headers={"content-type": "application/octet-stream"},
                    data=counted.pieces(),
                ) as response:
                    stored = await session.json(response)
            except Refused as refused:
                raise explained(refused, self._store.bucket, right="storage.objects.create") from refused
            except BROKEN as error:
                raise counted.failure or session.broken(error) from error
        if stored.get("crc32c") != counted.crc32c():
            raise UpstreamError("The file arrived damaged in the store; send it again.")
        return self._own(_info(stored))

    async def delete(self, key: str) -> bool:
        """Remove a file; whether there was one."""
        async with self._store.api.session() as session:
            return await self._delete(session, self._prefix + clean_key(key))

    async def discard(self) -> None:
        """Remove everything."""
        async with self._store.api.session() as session, asyncio.TaskGroup() as group:
            room = asyncio.Semaphore(DELETING_AT_ONCE)

            async def remove(key: str) -> None:
                try:
                    await self._delete(session, key)
                finally:
                    room.release()

            async for info in self._store.list(self._prefix):
                await room.acquire()
                group.create_task(remove(info.key))

    async def signed_upload(self, key: str, *, size: int, sha256: bytes, expires: timedelta) -> SignedUpload:
        """Where somebody else may put exactly this content, without credentials.

        Args:
            key: the file's cleaned name.
            size: its bytes; Cloud Storage takes no other number of them.
            sha256: of the content; the signature covers it.
            expires: how long the address is good for, a week at most.
        """
        headers = {"x-goog-content-length-range": f"{size},{size}", "x-goog-content-sha256": sha256.hex()}
        resource = f"/{quote(self._store.bucket, safe='')}/{quote(self._prefix + key, safe='/~')}"
        address = await signed_url(
            self._signer,
            self._store.api.base_url,
            resource,
            headers=headers,
            expires=expires,
            now=datetime.now(UTC),
        )
        return SignedUpload(address, headers)

    async def _check_name(self, key: str) -> None:
        """A bucket would take a file below a file; a knowledge base is the same on all clouds."""
        parts = key.split("/")
        above = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
        is_folder = False
        async with aclosing(self._store.list(f"{self._prefix}{key}/")) as below:
            async for _ in below:
                is_folder = True
                break
        if is_folder or any(await asyncio.gather(*(self._is_there(name) for name in above))):
            raise AlreadyExists(f"{key} would be a file and a folder at once.", param="name")

    async def _is_there(self, key: str) -> bool:
        try:
            await self.head(key)
        except NotFound:
            return False
        return True

    async def _delete(self, session: Session, key: str) -> bool:
        try:
            await session.call("DELETE", self._store.path(key))
        except Refused as refused:
            error = await self._store.refusal(session, refused, key, right="storage.objects.delete")
            if isinstance(error, NotFound):
                return False
            raise error from refused
        return True

    def _own(self, info: ObjectInfo) -> ObjectInfo:
        return replace(info, key=info.key.removeprefix(self._prefix))


class _Counted:
    """A content on its way out: no more of it than allowed, and its checksum."""

    def __init__(self, content: AsyncIterable[bytes], max_bytes: int) -> None:
        self._content, self._max_bytes, self._sent = content, max_bytes, 0
        self._checksum = new_crc32c()
        self.failure: Exception | None = None

    async def pieces(self) -> AsyncIterator[bytes]:
        """What may be sent; a failure to read it, or too much of it, breaks the upload off and is kept."""
        try:
            async for piece in self._content:
                self._sent += len(piece)
                if self._sent > self._max_bytes:
                    raise too_large(self._max_bytes)
                self._checksum.update(piece)
                yield piece
        except Exception as error:
            self.failure = error
            raise

    def crc32c(self) -> str:
        """Of what was sent, as Cloud Storage writes it."""
        return base64.b64encode(self._checksum.digest()).decode()


def _info(item: Mapping[str, Any]) -> ObjectInfo:
    modified_at = datetime.fromisoformat(item["updated"]).replace(microsecond=0)  # as finely as a download tells it
    return ObjectInfo(item["name"], int(item.get("size", 0)), str(item["generation"]), modified_at)
