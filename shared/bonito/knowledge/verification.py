"""Trying a connection out: does the account give a session, and does that list the buckets?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

from bonito.clouds.base import ObjectStore
from bonito.errors import BonitoError
from bonito.knowledge.buckets import Buckets
from bonito.tenancy.accesses import Accesses
from bonito.tenancy.connections import Connection, FederatedAws, FederatedAzure, FederatedCredential

STORAGE_SCOPES = {
    "azure": "https://storage.azure.com/.default",
    "gcp": "https://www.googleapis.com/auth/devstorage.read_only",
}
AT_ONCE = 8


@dataclass(frozen=True)
class Tried:
    """What came of it.

    Attributes:
        error: why there was no session; None: there was one.
        buckets: for each that was tried, what is missing; None: it was listed.
    """

    error: str | None = None
    buckets: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def is_verified(self) -> bool:
        """Whether every step went well."""
        return self.error is None and not any(self.buckets.values())


async def verify(
    accesses: Accesses,
    buckets: Buckets,
    org_id: UUID,
    connection: Connection,
    *,
    prefix: str = "",
    region: str | None = None,
) -> Tried:
    """Obtain a session that nobody has used, then list the beginning of each bucket.

    What the cloud says is an answer, not an error.

    Args:
        accesses: of this process.
        buckets: opens what the connection is for.
        org_id: the organization.
        connection: the organization's.
        prefix: listed below it, where the account allows no more.
        region: of the buckets, on AWS.
    """
    try:
        open_bucket = await _entered(accesses, buckets, org_id, connection, region)
    except BonitoError as error:
        return Tried(error=error.message)
    places = asyncio.Semaphore(AT_ONCE)

    async def tried(bucket: str) -> str | None:
        async with places:
            try:
                await _list(open_bucket(bucket), prefix)
            except BonitoError as error:
                return error.message
            return None

    found = await asyncio.gather(*(tried(bucket) for bucket in connection.buckets))
    return Tried(buckets=dict(zip(connection.buckets, found, strict=True)))


def audience(credential: FederatedCredential) -> str:
    """Whom Bonito's tokens for this credential are addressed to."""
    from bonito.clouds.aws import access as aws
    from bonito.clouds.azure import access as azure
    from bonito.clouds.gcp import access as gcp

    federated = credential.federated
    if isinstance(federated, FederatedAws):
        return aws.AUDIENCE
    return azure.AUDIENCE if isinstance(federated, FederatedAzure) else gcp.audience_of(federated.provider)


async def _entered(
    accesses: Accesses, buckets: Buckets, org_id: UUID, connection: Connection, region: str | None
) -> Callable[[str], ObjectStore]:
    """Obtain a session, and give what opens buckets with it."""
    if connection.cloud == "aws":
        session = accesses.new_aws(org_id, connection)
        await session.credentials()
        return partial(buckets.on_aws, session, region=region)
    tokens = accesses.new_tokens(org_id, connection)
    await tokens.token(STORAGE_SCOPES[connection.cloud])
    return partial(buckets.elsewhere, connection.cloud, tokens)


async def _list(store: ObjectStore, prefix: str) -> None:
    """Ask for the first object; that there is none is an answer too."""
    async with aclosing(store.list(prefix)) as listed:  # type: ignore[type-var]  # each store's is a generator
        async for _ in listed:
            break
