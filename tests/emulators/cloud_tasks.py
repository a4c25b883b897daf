"""Cloud Tasks and the topic of dead letters, over REST: what comes must be what Google's own types read.

A task's time is kept and not waited for: `delays` has it.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from tests.emulators.delivering import Deliveries

PARENT = "projects/bonito-tests/locations/europe-west3/queues"
DEAD_LETTERS = "projects/bonito-tests/topics/dead-letters"


@dataclass
class CloudTasks:
    """The services' state.

    Attributes:
        url: of both services.
        deliveries: to the functions.
        targets: per queue the function that it calls, as its httpTarget says.
        tasks: bodies that came, per queue.
        delays: per task, how long it was to wait.
        dead: what was published to the topic of dead letters: attributes and data.
        refuse: of the next calls so many are answered with 503.
    """

    url: str = ""
    deliveries: Deliveries = field(default_factory=Deliveries)
    targets: dict[str, str] = field(default_factory=dict)
    tasks: dict[str, list[Any]] = field(default_factory=dict)
    delays: list[float] = field(default_factory=list)
    dead: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    refuse: int = 0

    def env(self) -> dict[str, str]:
        """The settings of functions that use these queues."""
        names = {step: f"{PARENT}/{step}" for step in ("ingest", "embed", "sync")}
        return {f"BONITO_{step.upper()}_QUEUE": name for step, name in names.items()} | {
            "BONITO_DEAD_LETTER_QUEUE": DEAD_LETTERS
        }

    async def create(self, request: web.Request) -> web.Response:
        from google.cloud.tasks_v2 import Task

        if self._refuses():
            return web.json_response({"error": {"code": 503, "status": "UNAVAILABLE"}}, status=503)
        asked = await request.json()
        task = Task.from_json(json.dumps(asked["task"]))  # refuses what it does not know
        assert asked.keys() == {"task"}
        assert task.http_request.url.startswith("https://")
        queue = request.match_info["queue"]
        self.tasks.setdefault(queue, []).append(json.loads(task.http_request.body))
        waits = (task.schedule_time - datetime.now(UTC)).total_seconds() if task.schedule_time else 0.0
        self.delays.append(waits)
        name = f"{PARENT}/{queue}/tasks/{uuid.uuid4().hex}"
        self._dispatch(queue, name, task)
        return web.json_response({"name": name, "view": "BASIC"})

    async def publish(self, request: web.Request) -> web.Response:
        from google.pubsub_v1.types import PublishRequest

        if self._refuses():
            return web.json_response({"error": {"code": 503, "status": "UNAVAILABLE"}}, status=503)
        assert request.match_info["topic"] == DEAD_LETTERS.rpartition("/")[2]
        messages = PublishRequest.from_json(await request.text()).messages
        self.dead += [(dict(message.attributes), bytes(message.data)) for message in messages]
        return web.json_response({"messageIds": [uuid.uuid4().hex for _ in messages]})

    def _dispatch(self, queue: str, name: str, task: Any) -> None:
        def headers(attempt: int) -> dict[str, str]:
            return {
                **dict(task.http_request.headers),
                "user-agent": "Google-Cloud-Tasks",
                "x-cloudtasks-queuename": queue,
                "x-cloudtasks-taskname": name.rpartition("/")[2],
                "x-cloudtasks-taskretrycount": str(attempt - 1),
                "x-cloudtasks-taskexecutioncount": "0",
            }

        if queue in self.targets:
            self.deliveries.send(self.targets[queue], bytes(task.http_request.body), headers)

    def _refuses(self) -> bool:
        self.refuse -= 1
        return self.refuse >= 0


def dead_body(entry: tuple[dict[str, str], bytes]) -> Any:
    """What a dead letter held."""
    return json.loads(entry[1])


def pushed(entry: tuple[dict[str, str], bytes]) -> bytes:
    """As a subscription pushes it."""
    attributes, data = entry
    message = {"attributes": attributes, "data": base64.b64encode(data).decode(), "messageId": "1"}
    return json.dumps({"message": message, "subscription": "projects/bonito-tests/subscriptions/again"}).encode()


@asynccontextmanager
async def serving(deliveries: Deliveries | None = None) -> AsyncIterator[CloudTasks]:
    """Both services on one port."""
    state = CloudTasks(deliveries=deliveries or Deliveries())
    app = web.Application()
    app.router.add_post("/v2/projects/{project}/locations/{location}/queues/{queue}/tasks", state.create)
    app.router.add_post("/v1/projects/{project}/topics/{topic}:publish", state.publish)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    state.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield state
    finally:
        await state.deliveries.aclose()
        await runner.cleanup()
