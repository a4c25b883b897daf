"""An organization's claim to a bucket: without one, nothing that happens there concerns its knowledge bases."""

from __future__ import annotations

from typing import Literal
from uuid import UUID, uuid4

from bonito.database.pool import Pool, tenant
from bonito.tenancy import connections
from bonito.tenancy.connections import ConnectionSettings, SecretCredential


async def claim(pool: Pool, org_id: UUID, *, cloud: Literal["aws", "azure", "gcp"], bucket: str) -> UUID:
    """Make a connection that may be used for the bucket; the emulators' doors open it by themselves."""
    connection_id = uuid4()
    settings = ConnectionSettings(
        name=f"box {connection_id.hex}", cloud=cloud, credential=SecretCredential(secret="of-the-box"), buckets=[bucket]
    )
    async with tenant(pool, org_id) as conn:
        await connections.create(conn, org_id=org_id, connection_id=connection_id, settings=settings)
    return connection_id
