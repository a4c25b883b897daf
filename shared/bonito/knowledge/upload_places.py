"""Where the uploads of a server or a laptop lie, and the addresses of its own API that lead there."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from uuid import UUID

from bonito.clouds.base import SignedUpload
from bonito.clouds.local import UploadFolder
from bonito.knowledge import upload_tickets
from bonito.knowledge.direct_uploads import Upload
from bonito.knowledge.upload_tickets import Ticket
from bonito.knowledge.uploads import store_of
from bonito.tenancy.secrets import SecretBox

PATH = "/api/uploads"


class UploadFolders:
    """UploadPlaces on this machine's disk."""

    def __init__(self, root: Path, box: SecretBox) -> None:
        """Take the folder of all organizations' uploads (`uploads.root_of`), and what signs addresses."""
        self._root, self._box = root, box

    def uploads(self, org_id: UUID, knowledge_base_id: UUID) -> UploadFolder:
        """The store of one knowledge base's uploads."""
        return store_of(self._root, org_id=org_id, knowledge_base_id=knowledge_base_id)

    async def address(self, org_id: UUID, upload: Upload, number: int, *, expires: timedelta) -> SignedUpload:
        """Where the file of that number may be put, for as long as the upload is open."""
        ticket = Ticket(org_id, upload.id, number, upload.expires_at)
        return SignedUpload(f"{PATH}?ticket={upload_tickets.issue(self._box, ticket)}", {})
