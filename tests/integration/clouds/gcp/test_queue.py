"""Messages through Cloud Tasks, and dead letters, over the documented REST APIs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from bonito.clouds.gcp.queue import CloudTasksQueue, open_queue
from bonito.errors import AccessDenied, InvalidSettings, UpstreamError
from bonito.settings import Settings
from tests.emulators import cloud_tasks
from tests.emulators.cloud_tasks import CloudTasks
from tests.emulators.google import Google, StaticAccess, refusing


def settings(**changed: str) -> Settings:
    return Settings.from_environ(CloudTasks().env() | changed)


@pytest.fixture
async def tasks() -> AsyncIterator[CloudTasks]:
    async with cloud_tasks.serving() as serving:
        yield serving


@pytest.fixture
async def queue(tasks: CloudTasks) -> AsyncIterator[CloudTasksQueue]:
    async with open_queue(settings(), access=StaticAccess(), tasks_url=tasks.url, pubsub_url=tasks.url) as opened:
        yield opened


@pytest.mark.parametrize("step", ["ingest", "embed", "sync"])
async def test_a_message_lands_in_its_steps_queue(tasks: CloudTasks, queue: CloudTasksQueue, step: str) -> None:
    message = {"path": "größe 100%.md", "priority": 20, "is_bulk": False}

    await queue.send(step, message)

    assert tasks.tasks == {step: [message]}
    assert tasks.delays == [0.0]


async def test_a_delay_is_the_tasks_own_time(tasks: CloudTasks, queue: CloudTasksQueue) -> None:
    await queue.send("sync", {}, delay=timedelta(seconds=90))

    assert 60 < tasks.delays[0] <= 90


async def test_a_queue_that_is_out_of_order_is_tried_again(tasks: CloudTasks, queue: CloudTasksQueue) -> None:
    tasks.refuse = 2

    await queue.send("ingest", {"a": 1})

    assert tasks.tasks == {"ingest": [{"a": 1}]}


async def test_a_dead_letter_keeps_what_came_and_why(tasks: CloudTasks, queue: CloudTasksQueue) -> None:
    body = json.dumps({"path": "größe.md"})
    await queue.send("dead", {"body": body, "reason": "ü" * 1000, "code": "malformed_message", "attempt": 3})

    (entry,) = tasks.dead
    assert cloud_tasks.dead_body(entry) == {"path": "größe.md"}
    assert entry[0] == {"reason": "ü" * 512, "code": "malformed_message", "attempt": "3"}


@pytest.mark.parametrize(
    ("status", "expected", "sentence"),
    [
        (403, AccessDenied, "lacks cloudtasks.tasks.create on projects/"),
        (404, UpstreamError, "There is no projects/"),
        (400, UpstreamError, "was not taken"),
        (500, UpstreamError, "out of order"),
    ],
)
async def test_what_is_not_taken_is_an_error(
    server: Google, status: int, expected: type[Exception], sentence: str
) -> None:
    server.says(refusing(status, "no"))

    async with open_queue(settings(), access=StaticAccess(), tasks_url=server.url, pubsub_url=server.url) as queue:
        with pytest.raises(expected, match=sentence):
            await queue.send("ingest", {})
        with pytest.raises(UpstreamError):
            await queue.send("dead", {"body": ""})


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"BONITO_EMBED_QUEUE": ""}, "BONITO_EMBED_QUEUE"),
        ({"BONITO_SYNC_QUEUE": "sync"}, "BONITO_SYNC_QUEUE"),
        ({"BONITO_INGEST_QUEUE": "projects/p/locations/l/queues/../q"}, "BONITO_INGEST_QUEUE"),
        ({"BONITO_DEAD_LETTER_QUEUE": "projects/p/queues/q"}, "BONITO_DEAD_LETTER_QUEUE"),
    ],
)
async def test_a_queue_that_is_not_named_stops_the_start(changed: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidSettings, match=named):
        async with open_queue(settings(**changed), access=StaticAccess()):
            pass
