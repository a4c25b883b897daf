"""The files that are deployed, under Google's framework, with nothing put into them but settings."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import functions_framework
import psycopg
import pytest

from bonito.settings import is_setting
from tests.emulators.cloud_tasks import CloudTasks
from tests.emulators.functions_framework import ROOT, function
from tests.integration.conftest import Database

SAMPLES = ROOT / "events" / "gcp"
DOORS = [
    ("ingest", "notified"),
    ("ingest", "ingest"),
    ("embed", "embed"),
    ("sync", "sync"),
    ("sync", "tick"),
    ("maintenance", "maintain"),
]


@pytest.fixture
def env(database: Database) -> dict[str, str]:
    return CloudTasks().env() | {
        "BONITO_CLOUD": "gcp",
        "BONITO_DATABASE_URL": database.runtime_url,
        "BONITO_MAINTENANCE_DATABASE_URL": database.maintenance_url,
        "BONITO_ENCRYPTION_KEY": base64.b64encode(bytes(32)).decode(),
    }


@pytest.fixture
def started() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def start(stack: ExitStack, unit: str, target: str, folder: Path, env: dict[str, str]) -> str:
    source = ROOT / "functions" / unit / "gcp.py"
    return stack.enter_context(function(source, target, folder=folder, env=env)).url


async def post(url: str, content: bytes, **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with aiohttp.ClientSession() as http, http.post(url, data=content, headers=named) as response:
        return response.status


@pytest.mark.parametrize("target", ["notified", "ingest"])
async def test_every_sample_of_a_bucket_that_nobody_registered_is_done_with(
    started: ExitStack, tmp_path: Path, env: dict[str, str], target: str
) -> None:
    url = start(started, "ingest", target, tmp_path, env)

    for sample in sorted(SAMPLES.glob("*.json")):
        if sample.stem.endswith(".golden") or (target == "notified" and sample.stem.startswith("push-")):
            continue
        status = await post(url, sample.read_bytes(), content_type="application/cloudevents+json")
        assert (sample.stem, status) == (sample.stem, 200 if target == "notified" else 204)


async def test_what_a_push_to_an_event_function_holds_is_read_where_the_framework_can(
    started: ExitStack, tmp_path: Path, env: dict[str, str]
) -> None:
    url = start(started, "ingest", "notified", tmp_path, env)
    payload = (SAMPLES / "push-finalize.json").read_bytes()

    assert await post(url, payload, content_type="application/json") == 200


async def test_schedules_and_maintenance_are_done_with_the_rights_that_each_has(
    started: ExitStack, tmp_path: Path, env: dict[str, str], database: Database
) -> None:
    runtime_only = {name: value for name, value in env.items() if name != "BONITO_MAINTENANCE_DATABASE_URL"}
    owner_only = {name: value for name, value in env.items() if name.startswith("BONITO_MAINTENANCE")}

    assert await post(start(started, "sync", "tick", tmp_path, runtime_only), b"") == 204
    assert await post(start(started, "maintenance", "maintain", tmp_path, owner_only), b"") == 204
    with psycopg.connect(database.superuser_url) as connection:
        found = connection.execute(
            "SELECT count(*) FROM pg_inherits WHERE inhparent = 'public.gateway_requests'::regclass"
        ).fetchone()
    assert found is not None
    assert found[0] >= 3


@pytest.mark.parametrize(("unit", "target"), DOORS)
def test_without_its_settings_a_door_asks_for_another_try(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, unit: str, target: str
) -> None:
    for name in os.environ:
        if is_setting(name):
            monkeypatch.delenv(name)
    app = functions_framework.create_app(target, str(ROOT / "functions" / unit / "gcp.py"))
    event = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": {}}

    answer = app.test_client().post("/", json=event, headers={"content-type": "application/cloudevents+json"})

    assert answer.status_code == 500
    assert "DATABASE_URL is not set" in caplog.text
