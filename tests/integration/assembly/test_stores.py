"""A base's store: its connection's access to its own bucket, or a sentence that says why not (T9)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from bonito.assembly.stores import CloudStores, LocalStores
from bonito.clouds.aws.clients import open_client
from bonito.clouds.azure.store import BlobStore
from bonito.clouds.gcp.store import GcsStore
from bonito.clouds.local import UploadFolder
from bonito.database.pool import Pool, tenant
from bonito.errors import AccessDenied, InvalidRequest, UpstreamError
from bonito.knowledge import bases, uploads
from bonito.knowledge.bases import KnowledgeBase, Source
from bonito.knowledge.buckets import Buckets
from bonito.knowledge.upload_places import UploadFolders
from bonito.settings import Settings
from bonito.tenancy import connections, named_secrets
from bonito.tenancy.accesses import Accesses
from bonito.tenancy.connections import Connection, ConnectionSettings, SecretCredential
from bonito.tenancy.named_secrets import NamedSecrets, StoredSecrets
from bonito.tenancy.secrets import SecretBox
from tests.emulators import moto
from tests.integration.conftest import Database
from tests.integration.knowledge.ingesting import PINNED

BOX = SecretBox([bytes(32)])
KEYS = json.dumps({"access_key_id": "testing", "secret_access_key": "testing"})
TYPES = {"aws": "s3", "azure": "azure_blob", "gcp": "gcs"}


@pytest.fixture(scope="module")
def aws_url() -> Iterator[str]:
    with moto.serving() as url:
        yield url


@pytest.fixture
async def bucket(aws_url: str) -> AsyncIterator[str]:
    name = f"docs-{uuid4().hex}"
    async with open_client("s3", access=moto.StaticAccess(), region=moto.REGION, endpoint_url=aws_url) as s3:
        await s3.create_bucket(Bucket=name)
        await s3.put_object(Bucket=name, Key="hr/leave.md", Body=b"Thirty days.")
        yield name


def stores(pool: Pool, tmp_path: Path, aws_url: str = "", **settings: str) -> CloudStores:
    chosen = Settings.model_validate({"data_dir": tmp_path} | settings)
    accesses = Accesses(cloud="local", issuer=None, secrets=NamedSecrets(StoredSecrets(pool, BOX)))
    return CloudStores(
        chosen,
        pool,
        buckets=Buckets(accesses, endpoints={"aws": aws_url} if aws_url else None),
        uploads=UploadFolders(tmp_path / "uploads", BOX),
        local=LocalStores(chosen),
    )


async def connect(pool: Pool, org_id: UUID, cloud: Any, *buckets: str) -> Connection:
    settings = ConnectionSettings(f"c-{uuid4()}", cloud, SecretCredential(secret="keys"), buckets)
    async with tenant(pool, org_id) as conn:
        await named_secrets.put(conn, BOX, org_id=org_id, name="keys", value=KEYS)
        return await connections.create(conn, org_id=org_id, connection_id=uuid4(), settings=settings)


async def base_over(pool: Pool, org_id: UUID, connection: Connection, bucket: str, **config: str) -> KnowledgeBase:
    kind: Any = TYPES[connection.cloud]
    source = Source(kind, {"type": kind} | config, bucket, connection_id=connection.id)
    async with tenant(pool, org_id) as conn:
        return await bases.create(
            conn,
            org_id=org_id,
            knowledge_base_id=uuid4(),
            generation_id=uuid4(),
            options=bases.Options(name=f"kb-{uuid4()}"),
            source=source,
            pinned=PINNED,
        )


async def test_a_bucket_is_read_with_the_access_of_its_connection(
    pool: Pool, org_id: UUID, tmp_path: Path, aws_url: str, bucket: str
) -> None:
    connection = await connect(pool, org_id, "aws", bucket)
    base = await base_over(pool, org_id, connection, bucket, region=moto.REGION)

    store = await stores(pool, tmp_path, aws_url).store(org_id, base)
    fetched = await store.fetch("hr/leave.md", tmp_path / "into", max_bytes=100)

    assert [info.key async for info in store.list("hr/")] == ["hr/leave.md"]
    assert (fetched.size, (tmp_path / "into").read_bytes()) == (12, b"Thirty days.")


@pytest.mark.parametrize(("cloud", "kind"), [("azure", BlobStore), ("gcp", GcsStore)])
async def test_each_cloud_has_its_store(pool: Pool, org_id: UUID, tmp_path: Path, cloud: str, kind: type) -> None:
    name = "example/papers" if cloud == "azure" else "papers"
    connection = await connect(pool, org_id, cloud, name)

    store = await stores(pool, tmp_path).store(org_id, await base_over(pool, org_id, connection, name))

    assert isinstance(store, kind)


async def test_a_connection_that_lost_the_bucket_opens_nothing(
    pool: Pool, org_id: UUID, tmp_path: Path, database: Database
) -> None:
    connection = await connect(pool, org_id, "aws", "papers")
    base = await base_over(pool, org_id, connection, "papers")
    with psycopg.connect(database.superuser_url) as conn:
        conn.execute("UPDATE connections SET buckets = '{}' WHERE id = %s", [connection.id])

    with pytest.raises(AccessDenied, match="for papers"):
        await stores(pool, tmp_path).store(org_id, base)


async def test_another_organizations_connection_opens_nothing(
    pool: Pool, org_id: UUID, other_org_id: UUID, tmp_path: Path
) -> None:
    foreign = await connect(pool, other_org_id, "aws", "papers")
    own = await connect(pool, org_id, "aws", "papers")
    base = dataclasses.replace(await base_over(pool, org_id, own, "papers"), connection_id=foreign.id)

    for connection_id in (foreign.id, None, uuid4()):
        with pytest.raises(AccessDenied, match="no connection"):
            await stores(pool, tmp_path).store(org_id, dataclasses.replace(base, connection_id=connection_id))


async def test_the_deployments_own_bucket_is_not_read_even_if_it_once_was_admitted(
    pool: Pool, org_id: UUID, tmp_path: Path
) -> None:
    connection = await connect(pool, org_id, "aws", "papers")
    base = await base_over(pool, org_id, connection, "papers")

    with pytest.raises(InvalidRequest, match="deployment's own"):
        await stores(pool, tmp_path, deployment_buckets="Papers").store(org_id, base)


async def test_uploads_lie_where_they_were_put(pool: Pool, org_id: UUID, tmp_path: Path) -> None:
    opened = stores(pool, tmp_path)
    connection = await connect(pool, org_id, "aws", "papers")
    base = dataclasses.replace(await base_over(pool, org_id, connection, "papers"), source_type="upload")
    with pytest.raises(UpstreamError):
        await opened.store(org_id, base)
    await uploads.prepare(tmp_path / "uploads", org_id=org_id, knowledge_base_id=base.id)

    assert isinstance(await opened.store(org_id, base), UploadFolder)
    assert isinstance(opened.uploads(org_id, base.id), UploadFolder)
