"""Sources: their shape per type of store, and which of them this deployment reads."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from bonito.clouds.base import StoreType
from bonito.database.pool import Connection as DatabaseConnection
from bonito.errors import InvalidRequest, NotFound
from bonito.knowledge.bases import Source
from bonito.settings import Settings
from bonito.tenancy import connections
from bonito.tenancy.connections import Cloud

StoreName = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9][A-Za-z0-9._$-]*$")]
PRINTABLE = r"^[^\x00-\x1f\x7f]*$"
Prefix = Annotated[str, StringConstraints(max_length=1024, pattern=PRINTABLE)]
Connection = Annotated[UUID | None, Field(description="The connection whose access reads the store.")]


class SourceShape(BaseModel):
    """What every shape has in common: unknown fields are refused, so that no credential is ever stored here."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class S3Source(SourceShape):
    """A bucket of Amazon S3, or the part of it below a prefix."""

    type: Literal["s3"]
    bucket: StoreName
    prefix: Prefix = ""
    region: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,32}$")] | None = None
    connection: Connection = None


class AzureBlobSource(SourceShape):
    """A container of Azure Blob Storage, or the part of it below a prefix."""

    type: Literal["azure_blob"]
    account: StoreName
    container: StoreName
    prefix: Prefix = ""
    connection: Connection = None


class GcsSource(SourceShape):
    """A bucket of Google Cloud Storage, or the part of it below a prefix."""

    type: Literal["gcs"]
    bucket: StoreName
    prefix: Prefix = ""
    connection: Connection = None


class LocalSource(SourceShape):
    """A folder of the machine that Bonito runs on, below one of the roots that its operator allowed."""

    type: Literal["local"]
    path: Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=PRINTABLE)] = Field(
        description="An absolute path."
    )


class UploadSource(SourceShape):
    """Files that are uploaded through this API."""

    type: Literal["upload"]


SourceConfig = Annotated[
    S3Source | AzureBlobSource | GcsSource | LocalSource | UploadSource, Field(discriminator="type")
]


# Where each kind of store is, and so of which cloud the connection is that reads it.
CLOUD_OF: dict[StoreType, Cloud] = {"s3": "aws", "azure_blob": "azure", "gcs": "gcp"}


@dataclass(frozen=True)
class SourcePolicy:
    """Which sources this deployment reads.

    Attributes:
        readable: types of store; every other one is refused, not stored and then never read.
        local_roots: folders, resolved, below which `local` sources may lie.
        private: Bonito's own folders, resolved, which no source may contain or lie in.
        own_buckets: the deployment's, in small letters; on Azure `account/container`, or an account with all it has.
    """

    readable: frozenset[StoreType]
    local_roots: tuple[Path, ...] = ()
    private: tuple[Path, ...] = ()
    own_buckets: frozenset[str] = frozenset()

    @classmethod
    def of(cls, settings: Settings) -> SourcePolicy:
        """The policy of a deployment.

        Buckets of customers are read everywhere, through their connections. In a cloud there is no folder to read (T9),
        and uploads need a bucket.
        """
        own_buckets = frozenset(
            name.strip().lower()
            for name in (settings.upload_bucket, *settings.deployment_buckets.split(","))
            if name.strip()
        )
        if settings.cloud != "local":
            uploads: frozenset[StoreType] = frozenset({"upload"} if settings.upload_bucket else ())
            return cls(readable=frozenset(CLOUD_OF) | uploads, own_buckets=own_buckets)
        named = [Path(root) for root in settings.local_roots.split(os.pathsep) if root]
        return cls(
            readable=frozenset({"local", "upload", *CLOUD_OF}),
            local_roots=tuple(root.resolve() for root in named),
            private=(settings.data_dir.resolve(),),
            own_buckets=own_buckets,
        )

    def admit(self, config: SourceConfig, *, knowledge_base_id: UUID) -> Source:
        """The source as it is stored and matched.

        Args:
            config: what the caller asks for.
            knowledge_base_id: of the base; uploads lie in a store of their own under this name.

        Raises:
            InvalidRequest: this deployment does not read such a source, or the folder is not one it may read.
        """
        if config.type not in self.readable:
            known = ", ".join(sorted(self.readable))
            raise InvalidRequest(
                f"This deployment does not read sources of the type {config.type}; it reads: {known}.",
                param="source.type",
            )
        if isinstance(config, LocalSource):
            folder = self.folder(config.path)
            return Source(type="local", config={"type": "local", "path": str(folder)}, bucket=str(folder))
        if isinstance(config, UploadSource):
            return Source(type="upload", config={"type": "upload"}, bucket=str(knowledge_base_id))
        return self._of_cloud(config)

    def check_bucket(self, bucket: str, *, param: str) -> None:
        """Refuse a bucket of the deployment itself: nobody's source, whatever access he brings (T9); InvalidRequest."""
        name = bucket.lower()
        if name in self.own_buckets or name.partition("/")[0] in self.own_buckets:
            raise InvalidRequest(f"{bucket} is this deployment's own.", param=param)

    def _of_cloud(self, config: S3Source | AzureBlobSource | GcsSource) -> Source:
        if config.connection is None:
            raise InvalidRequest(
                "A source in a cloud names the connection that may read it; `POST /api/connections` makes one.",
                param="source.connection",
            )
        bucket = f"{config.account}/{config.container}" if isinstance(config, AzureBlobSource) else config.bucket
        bucket = connections.canonical(CLOUD_OF[config.type], bucket)
        self.check_bucket(bucket, param="source.container" if config.type == "azure_blob" else "source.bucket")
        return Source(
            type=config.type,
            config=config.model_dump(mode="json", exclude_none=True),
            bucket=bucket,
            prefix=config.prefix,
            connection_id=config.connection,
        )

    def folder(self, path: str) -> Path:
        """The folder of a `local` source, symbolic links followed; InvalidRequest unless it may be read.

        Whether a folder outside of the roots exists is not told.
        """
        asked = Path(path)
        if not asked.is_absolute():
            raise InvalidRequest("The path of a local source is absolute.", param="source.path")
        try:
            folder = asked.resolve()
        except (OSError, RuntimeError):  # a loop of symbolic links, a component that is too long
            raise self._outside() from None
        root = next((root for root in self.local_roots if folder.is_relative_to(root)), None)
        if root is None:
            raise self._outside()
        for private in self.private:
            lies_in = folder.is_relative_to(private) and not root.is_relative_to(private)
            if lies_in or private.is_relative_to(folder):
                raise InvalidRequest("Bonito keeps its own data in or below this folder.", param="source.path")
        if not os.path.isdir(folder):
            raise InvalidRequest("There is no folder at this path.", param="source.path")
        return folder

    def _outside(self) -> InvalidRequest:
        if not self.local_roots:
            return InvalidRequest(
                "This deployment allows no local source; its operator names folders in BONITO_LOCAL_ROOTS.",
                param="source.path",
            )
        return InvalidRequest(
            "The folder is not below one of this deployment's BONITO_LOCAL_ROOTS.", param="source.path"
        )


async def check_connection(conn: DatabaseConnection, *, org_id: UUID, source: Source) -> None:
    """Refuse a source whose connection does not reach it; until the transaction ends the connection stays as it is.

    Raises:
        InvalidRequest: there is no such connection, it is of another cloud, or does not allow the bucket.
    """
    if source.connection_id is None:
        return
    try:
        connection = await connections.share(conn, org_id=org_id, connection_id=source.connection_id)
    except NotFound as error:
        raise InvalidRequest(error.message, param="source.connection") from error
    if connection.cloud != CLOUD_OF[source.type]:
        raise InvalidRequest(
            f"The connection {connection.name} is of {connection.cloud}, the source is not.", param="source.connection"
        )
    if source.bucket not in connection.buckets:
        raise InvalidRequest(
            f"The connection {connection.name} is not for {source.bucket}; add that to its buckets.",
            param="source.connection",
        )
