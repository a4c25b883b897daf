"""A fake-gcs-server per test module, and a server that says what a test wants."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from bonito.clouds.gcp import api
from tests.emulators import gcs, google


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[gcs.CloudStorage]:
    folder: Path = tmp_path_factory.mktemp("gcs")
    with gcs.running(folder) as running:
        yield running


@pytest.fixture
async def server() -> AsyncIterator[google.Google]:
    async with google.serving() as serving:
        yield serving


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "FIRST_PAUSE_S", 0.001)
