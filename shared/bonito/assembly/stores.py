"""Where the documents of a server's or a laptop's knowledge bases lie: folders below its roots, and uploads."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from bonito.clouds.base import ObjectStore
from bonito.clouds.local import FolderStore, UploadFolder
from bonito.errors import InvalidRequest
from bonito.knowledge import uploads
from bonito.knowledge.bases import KnowledgeBase
from bonito.knowledge.sources import SourcePolicy
from bonito.settings import Settings


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
