"""Customers' buckets, opened with the access of the connection that they are registered with."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Literal
from uuid import UUID

from bonito.clouds.access import AwsAccess, TokenAccess
from bonito.clouds.base import ObjectStore
from bonito.errors import UpstreamError
from bonito.tenancy.accesses import Accesses
from bonito.tenancy.connections import Cloud, Connection

# What a cloud's stores are made with, which the extra of its name brings; a laptop's set has none of them.
NEEDED: dict[Cloud, str] = {"aws": "aiobotocore", "azure": "azure.storage.blob", "gcp": "google_crc32c"}


class Buckets:
    """Makes stores; nothing is asked before one of them is used."""

    def __init__(self, accesses: Accesses, *, endpoints: Mapping[Cloud, str] | None = None) -> None:
        """Take the accesses, and where other servers than the clouds' own are, their addresses."""
        self._accesses, self._endpoints = accesses, endpoints or {}

    def open(self, org_id: UUID, connection: Connection, bucket: str, *, region: str | None = None) -> ObjectStore:
        """The store of a bucket.

        Args:
            org_id: the organization.
            connection: the organization's, and for this bucket.
            bucket: its name, on Azure `account/container`.
            region: of the bucket, on AWS.

        Raises:
            AccessDenied: this deployment cannot use the connection's credential.
            UpstreamError: what reads the cloud's buckets is not installed here.
        """
        if connection.cloud == "aws":
            return self.on_aws(self._accesses.aws(org_id, connection), bucket, region=region)
        return self.elsewhere(connection.cloud, self._accesses.tokens(org_id, connection), bucket)

    def on_aws(self, access: AwsAccess, bucket: str, *, region: str | None) -> ObjectStore:
        """A bucket of S3, with this access; UpstreamError as `open`."""
        check_installed("aws")
        from bonito.clouds.aws.store import S3Store

        return S3Store(bucket, access=access, region=region, endpoint_url=self._endpoints.get("aws"))

    def elsewhere(self, cloud: Literal["azure", "gcp"], access: TokenAccess, bucket: str) -> ObjectStore:
        """A container of Azure or a bucket of Google Cloud, with this access; UpstreamError as `open`."""
        check_installed(cloud)
        endpoint = self._endpoints.get(cloud)
        if cloud == "azure":
            from bonito.clouds.azure.store import BlobStore

            account, _, container = bucket.partition("/")
            return BlobStore(account, container, access=access, endpoint_url=endpoint)
        from bonito.clouds.gcp.store import GcsStore

        return GcsStore(bucket, access=access, endpoint_url=endpoint)


def check_installed(cloud: Cloud) -> None:
    """Refuse a cloud whose buckets this installation cannot read; UpstreamError says what to install."""
    try:
        is_there = importlib.util.find_spec(NEEDED[cloud]) is not None
    except ModuleNotFoundError:  # not even the package around it
        is_there = False
    if not is_there:
        raise UpstreamError(f"This installation does not read buckets of this cloud; it needs bonito[{cloud}].")
