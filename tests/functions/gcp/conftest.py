"""One box for a test module; its Postgres is that of the integration tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.acceptance import provider as providers
from tests.functions.gcp import box as boxes
from tests.functions.gcp.box import Base, Box
from tests.integration.conftest import Database, cluster, database
from tests.stub_provider import StubProvider

__all__ = ["cluster", "database"]


@pytest.fixture(scope="module")
def provider() -> Iterator[StubProvider]:
    with providers.running() as stub:
        yield stub


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box(
    database: Database, provider: StubProvider, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Box]:
    async with boxes.running(database, provider, tmp_path_factory.mktemp("box")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def base(box: Box) -> Base:
    return await box.base()
