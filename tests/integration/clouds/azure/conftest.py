"""Azurite for the session, a container for each test."""

from __future__ import annotations

import ssl
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
from azure.core.credentials import AzureNamedKeyCredential
from azure.storage.blob.aio import ContainerClient

from bonito.clouds.azure.store import UPLOADS, BlobStore
from tests.emulators import azurite
from tests.emulators.azurite import ACCOUNT, KEY, Azurite
from tests.integration.clouds.azure import tls


@pytest.fixture(scope="session")
def emulator() -> Iterator[Azurite]:
    with azurite.running() as started:
        yield started


@pytest.fixture
async def container(emulator: Azurite) -> AsyncIterator[ContainerClient]:
    """A container of its own, and what a person does in it."""
    credential = AzureNamedKeyCredential(ACCOUNT, KEY)
    name = f"c{uuid.uuid4().hex}"
    async with ContainerClient(emulator.blob_url, name, credential=credential, **UPLOADS) as client:
        await client.create_container()
        yield client


@pytest.fixture
def store(emulator: Azurite, container: ContainerClient) -> BlobStore:
    return BlobStore(ACCOUNT, container.container_name, access=emulator.access, endpoint_url=emulator.blob_url)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    return tls.trusted_certificate(tmp_path_factory.mktemp("tls"))
