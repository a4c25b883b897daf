"""Storage Queues as Azurite plays them."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from azure.storage.queue.aio import QueueServiceClient

from bonito.clouds.azure.queue import open_queue
from bonito.errors import InvalidSettings, UpstreamError
from bonito.settings import Settings
from tests.emulators.azurite import Azurite


@pytest.fixture
async def service(emulator: Azurite) -> AsyncIterator[QueueServiceClient]:
    async with QueueServiceClient.from_connection_string(emulator.connection_string) as client:
        yield client


@pytest.fixture
async def settings(emulator: Azurite, service: QueueServiceClient) -> Settings:
    names = {f"{step}_queue": f"{step}-{uuid.uuid4().hex}" for step in ("ingest", "embed", "sync")}
    for name in names.values():
        await service.create_queue(name)
    return Settings.model_validate({"queue_service": emulator.connection_string, **names})


async def waiting(service: QueueServiceClient, name: str) -> list[Any]:
    messages = service.get_queue_client(name).receive_messages()
    return [json.loads(base64.b64decode(message.content)) async for message in messages]


async def test_a_message_lies_in_its_steps_queue_as_the_functions_host_decodes_it(
    settings: Settings, service: QueueServiceClient
) -> None:
    async with open_queue(settings) as queue:
        await queue.send("ingest", {"path": "größe.md", "priority": 20})
        await queue.send("sync", {"unique": "sync:1"})

    assert await waiting(service, settings.ingest_queue) == [{"path": "größe.md", "priority": 20}]
    assert await waiting(service, settings.sync_queue) == [{"unique": "sync:1"}]
    assert await waiting(service, settings.embed_queue) == []


@pytest.mark.parametrize("delay", [timedelta(hours=1), timedelta(days=30)])
async def test_a_delayed_message_waits_unseen(
    settings: Settings, service: QueueServiceClient, delay: timedelta
) -> None:
    async with open_queue(settings) as queue:
        await queue.send("ingest", {"path": "a"}, delay=delay)

    client = service.get_queue_client(settings.ingest_queue)
    assert [message async for message in client.receive_messages()] == []
    assert (await client.get_queue_properties()).approximate_message_count == 1


async def test_poison_lies_beside_its_queue_which_is_made_for_it(
    settings: Settings, service: QueueServiceClient
) -> None:
    async with open_queue(settings) as queue:
        for number in range(2):
            await queue.send("ingest-poison", {"reason": f"{number}"})

    assert await waiting(service, f"{settings.ingest_queue}-poison") == [{"reason": "0"}, {"reason": "1"}]


async def test_a_queue_that_is_not_there_is_no_silent_loss(settings: Settings, service: QueueServiceClient) -> None:
    await service.delete_queue(settings.ingest_queue)

    async with open_queue(settings) as queue:
        with pytest.raises(UpstreamError, match="could not be queued"):
            await queue.send("ingest", {"path": "a"})


async def test_a_message_that_is_too_large_is_an_error(settings: Settings) -> None:
    async with open_queue(settings) as queue:
        with pytest.raises(UpstreamError):
            await queue.send("ingest", {"path": "x" * 70_000})


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "BONITO_INGEST_QUEUE, BONITO_EMBED_QUEUE, BONITO_SYNC_QUEUE, BONITO_QUEUE_SERVICE"),
        ({"queue_service": "https://a.queue.core.windows.net", "ingest_queue": "i", "sync_queue": "s"}, "BONITO_EMBED"),
        ({"ingest_queue": "i", "embed_queue": "e", "sync_queue": "s"}, "BONITO_QUEUE_SERVICE"),
        ({"queue_service": "x", "ingest_queue": "i", "embed_queue": "e", "sync_queue": "s"}, "connection string"),
    ],
)
async def test_what_is_not_set_is_named(values: dict[str, str], says: str) -> None:
    with pytest.raises(InvalidSettings, match=says):
        async with open_queue(Settings.model_validate(values)):
            pass
