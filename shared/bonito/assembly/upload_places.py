"""Where the uploads of a deployment lie: its own bucket in a cloud, its disk elsewhere."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, Protocol
from uuid import UUID

from bonito.clouds.base import SignedUpload, UploadStore
from bonito.errors import InvalidRequest
from bonito.knowledge import uploads
from bonito.knowledge.direct_uploads import Upload, UploadPlaces
from bonito.knowledge.upload_places import UploadFolders
from bonito.settings import Settings
from bonito.tenancy.secrets import SecretBox


class SigningStore(UploadStore, Protocol):
    """An UploadStore that gives addresses."""

    async def signed_upload(self, key: str, *, size: int, sha256: bytes, expires: timedelta) -> SignedUpload:
        """Where somebody else may put exactly this content, without credentials."""
        ...


class UploadBucket:
    """UploadPlaces in the deployment's own bucket: `uploads/ORGANIZATION/KNOWLEDGE BASE/`, with its own rights."""

    def __init__(self, cloud: Literal["aws", "azure", "gcp"], bucket: str) -> None:
        """Open nothing yet; `bucket` is named as BONITO_UPLOAD_BUCKET is."""
        self._cloud, self._bucket = cloud, bucket

    def uploads(self, org_id: UUID, knowledge_base_id: UUID) -> SigningStore:
        """The store of one knowledge base's uploads; InvalidRequest where the deployment has no bucket for them."""
        if not self._bucket:
            raise InvalidRequest("This deployment takes no uploads: its operator sets BONITO_UPLOAD_BUCKET.")
        prefix = f"uploads/{org_id}/{knowledge_base_id}/"
        if self._cloud == "aws":
            from bonito.clouds.aws.store import S3Uploads

            return S3Uploads(self._bucket, prefix)
        if self._cloud == "azure":
            from bonito.clouds.azure.credentials import OwnAccess as OwnAzure
            from bonito.clouds.azure.store import AzureUploads

            return AzureUploads(self._bucket, prefix, access=OwnAzure())
        from bonito.clouds.gcp.addresses import IamSigner
        from bonito.clouds.gcp.identity import OwnAccess as OwnGoogle
        from bonito.clouds.gcp.store import GcsUploads

        own = OwnGoogle()
        return GcsUploads(self._bucket, prefix, access=own, signer=IamSigner(own))

    async def address(self, org_id: UUID, upload: Upload, number: int, *, expires: timedelta) -> SignedUpload:
        """Where the file of that number may be put; UpstreamError, AccessDenied."""
        file = upload.files[number]
        store = self.uploads(org_id, upload.knowledge_base_id)
        return await store.signed_upload(file.path, size=file.size, sha256=file.file_hash, expires=expires)


def places_of(settings: Settings, box: SecretBox) -> UploadPlaces:
    """The places that the settings name."""
    if settings.cloud == "local":
        return UploadFolders(uploads.root_of(settings), box)
    return UploadBucket(settings.cloud, settings.upload_bucket)
