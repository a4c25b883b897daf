"""S3 as a source of documents, and as the place of uploads in the deployment's own bucket."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bonito.clouds.access import AwsAccess
from bonito.clouds.aws.clients import open_client
from bonito.clouds.aws.failures import explained_s3
from bonito.clouds.aws.keys import is_storable
from bonito.clouds.base import ObjectInfo, SignedUpload
from bonito.clouds.copying import MIB, copy_capped, too_large
from bonito.clouds.local import clean_key
from bonito.errors import AlreadyExists, NotFound, UpstreamError

if TYPE_CHECKING:
    from aiobotocore.client import AioBaseClient

logger = logging.getLogger(__name__)

GET, LIST, PUT, DELETE = "s3:GetObject", "s3:ListBucket", "s3:PutObject", "s3:DeleteObject"
# A body that broke is asked for again this often in a row without a byte more, an object that changed this often.
RESUMES, RESTARTS = 4, 4
# Pages of a listing by one client; its session lasts longer, the next client gets a new one where it does not.
PAGES_OF_A_CLIENT = 100
# As many as S3 deletes at once: https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
DELETED_AT_ONCE = 1000


class S3Store:
    """ObjectStore over a bucket, with the rights of one organization's connection, never the function's own.

    An object's version is its ETag: a listing names it too.
    """

    def __init__(
        self, bucket: str, *, access: AwsAccess, region: str | None = None, endpoint_url: str | None = None
    ) -> None:
        """Nothing is asked yet.

        Args:
            bucket: its name, or an access point's ARN.
            access: a session in the account that may read it.
            region: the bucket's; None: the one that this process runs in.
            endpoint_url: of another S3 than AWS's.
        """
        self._reader = _Reader(_Bucket(bucket, access, region, endpoint_url))

    async def head(self, key: str) -> ObjectInfo:
        """What lies at the key now; NotFound."""
        return await self._reader.head(key)

    async def fetch(self, key: str, into: Path, *, max_bytes: int) -> ObjectInfo:
        """Stream the object into a file, as it was at one moment.

        Raises:
            NotFound: there is nothing at the key.
            DocumentTooLarge: it has more than `max_bytes`; no more than that are written.
            DocumentError: it is archived, or encrypted with its owner's own key.
            UpstreamError: the connection broke again and again, or the object never rests.
        """
        return await self._reader.fetch(key, into, max_bytes=max_bytes)

    def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        """Every object whose key begins with the prefix and comes after `after`, in the order of the keys' bytes."""
        return self._reader.list(prefix, after=after)


class S3Uploads:
    """UploadStore below a prefix of the deployment's own bucket, with the rights of this process itself."""

    def __init__(self, bucket: str, prefix: str, *, region: str | None = None, endpoint_url: str | None = None) -> None:
        """Nothing is asked yet.

        Args:
            bucket: the deployment's.
            prefix: of one knowledge base's files; ends with a slash.
            region: the bucket's; None: the one that this process runs in.
            endpoint_url: of another S3 than AWS's.
        """
        self._bucket, self._prefix = _Bucket(bucket, None, region, endpoint_url), prefix
        self._reader = _Reader(self._bucket)

    async def head(self, key: str) -> ObjectInfo:
        """What lies at the key now; NotFound."""
        return replace(await self._reader.head(self._prefix + key if key else ""), key=key)

    async def fetch(self, key: str, into: Path, *, max_bytes: int) -> ObjectInfo:
        """Copy the file; NotFound, DocumentTooLarge."""
        found = await self._reader.fetch(self._prefix + key if key else "", into, max_bytes=max_bytes)
        return replace(found, key=key)

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        """Every file whose key begins with the prefix and comes after `after`, in the order of the keys' bytes."""
        async for info in self._reader.list(self._prefix + prefix, after=self._prefix + after if after else ""):
            yield replace(info, key=info.key.removeprefix(self._prefix))

    async def check(self, names: Iterable[str]) -> None:
        """Refuse names under which `put` could store nothing as the files lie now; AlreadyExists, InvalidRequest."""
        for name in names:
            await self._check_name(clean_key(name))

    async def put(self, name: str, content: AsyncIterable[bytes], *, max_bytes: int) -> ObjectInfo:
        """Store a file under its cleaned name, whole or not at all; one that lies there already is replaced.

        Raises:
            InvalidRequest: the name cannot be a document's.
            DocumentTooLarge: the content is above `max_bytes`.
            AlreadyExists: the name is a folder of other files here, or lies below a file.
        """
        key = clean_key(name)
        with tempfile.TemporaryDirectory(prefix="bonito-") as directory:
            file = Path(directory) / "upload"
            await copy_capped(content, file, max_bytes=max_bytes)
            await self._check_name(key)
            digest = await asyncio.to_thread(_sha256, file)
            async with self._bucket.open(PUT, key) as s3:
                with file.open("rb") as body:
                    await s3.put_object(
                        Bucket=self._bucket.name, Key=self._prefix + key, Body=body, ChecksumSHA256=digest
                    )
        return await self.head(key)

    async def delete(self, key: str) -> bool:
        """Remove a file; whether there was one."""
        key = clean_key(key)
        try:
            await self.head(key)
        except NotFound:
            return False
        async with self._bucket.open(DELETE, key) as s3:
            await s3.delete_object(Bucket=self._bucket.name, Key=self._prefix + key)
        return True

    async def discard(self) -> None:
        """Remove everything."""
        keys: list[str] = []
        async for info in self._reader.list(self._prefix):
            keys.append(info.key)
            if len(keys) == DELETED_AT_ONCE:
                await self._delete_all(keys)
                keys = []
        if keys:
            await self._delete_all(keys)

    async def signed_upload(self, key: str, *, size: int, sha256: bytes, expires: timedelta) -> SignedUpload:
        """Where somebody else may put exactly this content, without credentials.

        Args:
            key: the file's cleaned name.
            size: its bytes; S3 takes no other number of them.
            sha256: of the content; S3 takes no other.
            expires: how long the address is good for; no longer than the session that signs it, and a week at most.
        """
        checksum = base64.b64encode(sha256).decode()
        where = {"Bucket": self._bucket.name, "Key": self._prefix + key}
        async with self._bucket.open(PUT, key) as s3:
            address = await s3.generate_presigned_url(
                "put_object",
                Params={**where, "ContentLength": size, "ChecksumSHA256": checksum},
                ExpiresIn=round(expires.total_seconds()),
            )
        return SignedUpload(address, {"content-length": str(size), "x-amz-checksum-sha256": checksum})

    async def _check_name(self, key: str) -> None:
        """A bucket would take a file below a file; a knowledge base is the same on all clouds."""
        parts = key.split("/")
        above = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
        async for _ in self.list(key + "/"):
            raise AlreadyExists(f"{key} would be a file and a folder at once.", param="name")
        for folder in above:
            async for info in self.list(folder):
                if info.key == folder:
                    raise AlreadyExists(f"{folder} would be a file and a folder at once.", param="name")
                break  # the shortest key with this beginning comes first

    async def _delete_all(self, keys: Sequence[str]) -> None:
        objects = [{"Key": key} for key in keys]
        async with self._bucket.open(DELETE, "") as s3:
            answer = await s3.delete_objects(Bucket=self._bucket.name, Delete={"Objects": objects, "Quiet": True})
        if answer.get("Errors"):
            code = answer["Errors"][0].get("Code")
            raise UpstreamError(f"{len(answer['Errors'])} uploaded files could not be removed ({code}).")


@dataclass(frozen=True)
class _Bucket:
    name: str
    access: AwsAccess | None
    region: str | None
    endpoint_url: str | None

    @asynccontextmanager
    async def open(self, right: str, key: str) -> AsyncIterator[AioBaseClient]:
        """A client; what it is refused is explained."""
        with explained_s3(self.name, right=right, key=key):
            opening = open_client("s3", access=self.access, region=self.region, endpoint_url=self.endpoint_url)
            async with opening as s3:
                yield s3


class _Changed(Exception):
    """The object was replaced while it was read."""


class _Reader:
    """Reads a bucket."""

    def __init__(self, bucket: _Bucket) -> None:
        self._bucket = bucket

    async def head(self, key: str) -> ObjectInfo:
        where = self._where(key)
        async with self._bucket.open(GET, key) as s3:
            try:
                answer = await s3.head_object(**where)
            except s3.exceptions.ClientError:
                # A HEAD's error has no body, so that a missing bucket looks like a missing object.
                answer = await s3.get_object(**where)
                answer["Body"].close()
        return _info(key, answer["ContentLength"], answer["ETag"], answer["LastModified"])

    async def fetch(self, key: str, into: Path, *, max_bytes: int) -> ObjectInfo:
        where = self._where(key)
        async with self._bucket.open(GET, key) as s3:
            for _ in range(RESTARTS):
                download = _Download(s3, where)
                try:
                    info = _info(key, *await download.begin())
                    if info.size > max_bytes:
                        raise too_large(max_bytes, info.size)
                    await copy_capped(download.pieces(), into, max_bytes=max_bytes)
                except _Changed:
                    continue
                finally:
                    download.close()
                return info
        raise UpstreamError("The object keeps changing while it is read.", retry_after_s=2.0)

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        asked: dict[str, Any] = {"Bucket": self._bucket.name, "Prefix": prefix}
        if after:
            asked["StartAfter"] = after
        is_whole = False
        while not is_whole:
            async with self._bucket.open(LIST, "") as s3:
                for _ in range(PAGES_OF_A_CLIENT):
                    page = await s3.list_objects_v2(**asked)
                    for info in _listed(page):
                        yield info
                    is_whole = not page["IsTruncated"]
                    if is_whole:
                        break
                    asked["ContinuationToken"] = page["NextContinuationToken"]

    def _where(self, key: str) -> dict[str, str]:
        if not is_storable(key):
            raise NotFound("There is no such object in the bucket.")
        return {"Bucket": self._bucket.name, "Key": key}


class _Download:
    """The bytes of one version of an object, over as many connections as it takes."""

    def __init__(self, s3: AioBaseClient, where: Mapping[str, str]) -> None:
        self._s3, self._where = s3, where
        self._body: Any = None
        self._etag, self._size, self._position = "", 0, 0

    async def begin(self) -> tuple[int, str, datetime]:
        """Ask for the object: its size, ETag and time."""
        answer = await self._s3.get_object(**self._where)
        self._body, self._etag, self._size = answer["Body"], answer["ETag"], answer["ContentLength"]
        return self._size, self._etag, answer["LastModified"]

    async def pieces(self) -> AsyncIterator[bytes]:
        """All of them, in order; _Changed where the rest of this version is gone."""
        failures = 0
        while self._position < self._size:
            piece = await self._read()
            if piece:
                failures = 0
                self._position += len(piece)
                yield piece
            elif failures == RESUMES:
                raise UpstreamError("S3 broke the connection again and again.")
            else:
                failures += 1
                await self._resume()

    def close(self) -> None:
        """Leave what is not read."""
        if self._body is not None:
            self._body.close()

    async def _read(self) -> bytes:
        """The next piece; empty where the connection broke, whether or not it said so."""
        try:
            piece: bytes = await self._body.read(MIB)
        except _broken_connections() as error:
            logger.info("A download from S3 broke off: %s", type(error).__name__)
            return b""
        return piece

    async def _resume(self) -> None:
        from botocore.exceptions import ClientError

        self.close()
        try:
            answer = await self._s3.get_object(**self._where, Range=f"bytes={self._position}-", IfMatch=self._etag)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in {412, 416}:
                raise _Changed from error
            raise
        self._body = answer["Body"]
        if not answer.get("ContentRange", "").startswith(f"bytes {self._position}-"):
            raise _Changed


def _listed(page: Mapping[str, Any]) -> Sequence[ObjectInfo]:
    objects = page.get("Contents", [])
    storable = [each for each in objects if is_storable(each["Key"])]
    if len(storable) < len(objects):
        logger.warning("Objects of a bucket are skipped whose keys no document can have.")
    return [_info(each["Key"], each["Size"], each["ETag"], each["LastModified"]) for each in storable]


def _info(key: str, size: int, etag: str, modified_at: datetime) -> ObjectInfo:
    """What is told of an object; a listing tells milliseconds, a header does not."""
    return ObjectInfo(key, size, etag.strip('"'), modified_at.astimezone(UTC).replace(microsecond=0))


def _broken_connections() -> tuple[type[Exception], ...]:
    from aiohttp import ClientError
    from botocore.exceptions import HTTPClientError, IncompleteReadError

    return (HTTPClientError, IncompleteReadError, ClientError, TimeoutError, ConnectionError)


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return base64.b64encode(hashlib.file_digest(opened, "sha256").digest()).decode()
