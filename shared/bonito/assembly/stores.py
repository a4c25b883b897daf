"""Where the documents of knowledge bases lie: customers' buckets, uploads, and folders of a server or a laptop."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from uuid import UUID

from bonito.clouds.base import ObjectStore, UploadStore
from bonito.clouds.local import FolderStore, UploadFolder
from bonito.database.pool import Pool, tenant
from bonito.errors import AccessDenied, InvalidRequest, NotFound
from bonito.knowledge import uploads
from bonito.knowledge.bases import KnowledgeBase
from bonito.knowledge.buckets import Buckets
from bonito.knowledge.sources import CLOUD_OF, SourcePolicy
from bonito.knowledge.uploads import UploadStores
from bonito.settings import Settings
from bonito.tenancy import connections
from bonito.tenancy.connections import Connection


class LocalStores:
    """Stores of this machine's disk; what the settings allowed once and no longer allow is not read any more."""

    def __init__(self, settings: Settings) -> None:
        self._policy, self._uploads = SourcePolicy.of(settings), uploads.root_of(settings)

    async def store(self, org_id: UUID, base: KnowledgeBase) -> ObjectStore:
        """The base's store.

        Raises:
            InvalidRequest: this deployment does not read such a source, or not this folder (T9).
            UpstreamError: the folder of its uploads is not there.
        """
        if base.source_type == "upload":
            return self.uploads(org_id, base.id)
        if base.source_type == "local" and "local" in self._policy.readable:
            return FolderStore(self._folder(Path(base.source_bucket)))
        raise InvalidRequest(f"This deployment does not read sources of the type {base.source_type}.")

    def uploads(self, org_id: UUID, knowledge_base_id: UUID) -> UploadFolder:
        """The store of what a base was given by upload; UpstreamError where its folder is not there."""
        return uploads.store_of(self._uploads, org_id=org_id, knowledge_base_id=knowledge_base_id)

    async def discard(self, org_id: UUID, knowledge_base_id: UUID) -> None:
        """Remove what was uploaded to a deleted base."""
        await uploads.discard(self._uploads, org_id=org_id, knowledge_base_id=knowledge_base_id)

    def _folder(self, folder: Path) -> Path:
        """The folder, unless a link on the way or a change of the settings led it out of the roots since."""
        is_below = any(folder.is_relative_to(root) for root in self._policy.local_roots)
        is_private = any(private.is_relative_to(folder) for private in self._policy.private)
        if not is_below or is_private or folder.resolve() != folder:
            raise InvalidRequest(
                "The source's folder is not below one of this deployment's BONITO_LOCAL_ROOTS any more."
            )
        return folder


class CloudStores:
    """Stores of every deployment: customers' buckets, uploads, and where there is a disk the folders of it."""

    def __init__(
        self, settings: Settings, pool: Pool, *, buckets: Buckets, uploads: UploadStores, local: LocalStores
    ) -> None:
        """Put the parts together.

        Args:
            settings: of this process.
            pool: the runtime's connections; a base's connection is looked up for each piece of work.
            buckets: opens customers' buckets.
            uploads: where uploaded files lie.
            local: the folders.
        """
        self._policy, self._pool = SourcePolicy.of(settings), pool
        self._buckets, self._uploads, self._local = buckets, uploads, local

    async def store(self, org_id: UUID, base: KnowledgeBase) -> ObjectStore:
        """The base's store.

        Raises:
            InvalidRequest: this deployment does not read such a source, or it is one of its own buckets (T9).
            AccessDenied: the base has no connection that is for its bucket.
        """
        if base.source_type == "upload":
            return self.uploads(org_id, base.id)
        if base.source_type not in CLOUD_OF:
            return await self._local.store(org_id, base)
        self._policy.check_bucket(base.source_bucket, param="source.bucket")
        connection = await self._connection(org_id, base)
        region = base.source_config.get("region")
        return self._buckets.open(org_id, connection, base.source_bucket, region=region)

    def uploads(self, org_id: UUID, knowledge_base_id: UUID) -> UploadStore:
        """The store of what a base was given by upload."""
        return self._uploads.uploads(org_id, knowledge_base_id)

    async def discard(self, org_id: UUID, knowledge_base_id: UUID) -> None:
        """Remove what was uploaded to a deleted base."""
        await self.uploads(org_id, knowledge_base_id).discard()

    async def _connection(self, org_id: UUID, base: KnowledgeBase) -> Connection:
        """The base's connection, while that is for the base's bucket."""
        found = None
        if base.connection_id is not None:
            async with tenant(self._pool, org_id) as conn:
                with suppress(NotFound):
                    found = await connections.get(conn, org_id=org_id, connection_id=base.connection_id)
        if found is None or found.cloud != CLOUD_OF[base.source_type] or base.source_bucket not in found.buckets:
            raise AccessDenied(f"There is no connection of this organization that is for {base.source_bucket}.")
        return found
