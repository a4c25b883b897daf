"""Customers' buckets, opened with the access of the connection that they are registered with."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from bonito.clouds.base import ObjectStore, StoreType
from bonito.tenancy.accesses import Accesses
from bonito.tenancy.connections import Cloud, Connection

STORE_OF: dict[Cloud, StoreType] = {"aws": "s3", "azure": "azure_blob", "gcp": "gcs"}


class Buckets:
    """Makes stores; nothing is asked before one of them is used."""

    def __init__(self, accesses: Accesses, *, endpoints: Mapping[Cloud, str] | None = None) -> None:
        """Take the accesses, and where other servers than the clouds' own are, their addresses."""
        self._accesses, self._endpoints = accesses, endpoints or {}

    def open(
        self, org_id: UUID, connection: Connection, bucket: str, *, region: str | None = None, is_new: bool = False
    ) -> ObjectStore:
        """The store of a bucket.

        Args:
            org_id: the organization.
            connection: the organization's, and for this bucket.
            bucket: its name, on Azure `account/container`.
            region: of the bucket, on AWS.
            is_new: with a session that nobody has used, to try the connection out.

        Raises:
            AccessDenied: this deployment cannot use the connection's credential.
        """
        endpoint = self._endpoints.get(connection.cloud)
        if connection.cloud == "aws":
            from bonito.clouds.aws.store import S3Store

            session = (self._accesses.new_aws if is_new else self._accesses.aws)(org_id, connection)
            return S3Store(bucket, access=session, region=region, endpoint_url=endpoint)
        access = (self._accesses.new_tokens if is_new else self._accesses.tokens)(org_id, connection)
        if connection.cloud == "azure":
            from bonito.clouds.azure.store import BlobStore

            account, _, container = bucket.partition("/")
            return BlobStore(account, container, access=access, endpoint_url=endpoint)
        from bonito.clouds.gcp.store import GcsStore

        return GcsStore(bucket, access=access, endpoint_url=endpoint)
