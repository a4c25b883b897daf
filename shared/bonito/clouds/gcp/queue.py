"""Messages between the steps through Cloud Tasks; what can never be worked off ends on a topic of Pub/Sub.

Cloud Tasks and not Pub/Sub, since messages here must be able to wait: a sync that finds another one listing comes
again in some seconds, and chunks whose model asked for a pause come when it is over. A task has a time of its own; a
message of Pub/Sub has none, and would come again at once for as long as the cause lasts. Cloud Tasks also bounds how
many messages are in work at once, which the database needs. It has no place for dead letters; those need no delay.

A queue knows where its tasks go and who they are from (its `httpTarget`: the function's address, and an OIDC token of
an account that may call it), so that a function knows nothing but names:
https://cloud.google.com/tasks/docs/reference/rest/v2/projects.locations.queues#HttpTarget
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta

from bonito.clouds.access import TokenAccess
from bonito.clouds.gcp.api import Api, Refused, Session
from bonito.clouds.gcp.identity import OwnAccess
from bonito.errors import AccessDenied, BonitoError, InvalidSettings, UpstreamError
from bonito.settings import Settings

TASKS = "https://cloudtasks.googleapis.com"
PUBSUB = "https://pubsub.googleapis.com"

DEAD = "dead"
QUEUE = re.compile(r"projects/[a-z0-9:.-]+/locations/[a-z0-9-]+/queues/[A-Za-z0-9-]+")
TOPIC = re.compile(r"projects/[a-z0-9:.-]+/topics/[A-Za-z][A-Za-z0-9._~+%-]+")

# Required of every task and replaced by the queue's httpTarget; where a queue has none, the name says what is wrong.
UNROUTED = "https://queue-without-http-target.invalid/"
DISPATCH_DEADLINE = "1800s"  # the longest there is
MAX_ATTRIBUTE_BYTES = 1024  # https://cloud.google.com/pubsub/quotas#resource_limits


class CloudTasksQueue:
    """MessageQueue over Cloud Tasks. The queue `dead` takes what is given up, with its `body` as text."""

    def __init__(self, queues: Mapping[str, str], dead_letters: str, *, tasks: Session, pubsub: Session) -> None:
        """Put the parts together.

        Args:
            queues: the resource name of each step's queue.
            dead_letters: the resource name of a topic.
            tasks: of Cloud Tasks.
            pubsub: of Pub/Sub.
        """
        self._queues, self._dead_letters = queues, dead_letters
        self._tasks, self._pubsub = tasks, pubsub

    async def send(self, queue: str, message: Mapping[str, object], *, delay: timedelta = timedelta()) -> None:
        """Enqueue one message, visible after `delay`; AccessDenied, UpstreamError where it is not taken."""
        if queue == DEAD:
            await self._bury(message)
            return
        request = {"url": UNROUTED, "httpMethod": "POST", "headers": {"Content-Type": "application/json"}}
        task: dict[str, object] = {"httpRequest": request | {"body": _encoded(message)}}
        task["dispatchDeadline"] = DISPATCH_DEADLINE
        if delay > timedelta():
            task["scheduleTime"] = (datetime.now(UTC) + delay).isoformat().replace("+00:00", "Z")
        try:
            await self._tasks.call("POST", f"/v2/{self._queues[queue]}/tasks", body={"task": task})
        except Refused as refused:
            raise _explained(refused, self._queues[queue], "cloudtasks.tasks.create") from refused

    async def _bury(self, message: Mapping[str, object]) -> None:
        """As it came, so that a subscription can push it to its door again; why goes beside it."""
        data = base64.b64encode(str(message["body"]).encode()).decode()
        attributes = {name: _attribute(value) for name, value in message.items() if name != "body"}
        published = {"messages": [{"data": data, "attributes": attributes}]}
        try:
            await self._pubsub.call("POST", f"/v1/{self._dead_letters}:publish", body=published)
        except Refused as refused:
            raise _explained(refused, self._dead_letters, "pubsub.topics.publish") from refused


@asynccontextmanager
async def open_queue(
    settings: Settings,
    *,
    access: TokenAccess | None = None,
    tasks_url: str = TASKS,
    pubsub_url: str = PUBSUB,
) -> AsyncIterator[CloudTasksQueue]:
    """The queues that the settings name, with the function's own rights.

    Args:
        settings: BONITO_INGEST_QUEUE, _EMBED_QUEUE, _SYNC_QUEUE and _DEAD_LETTER_QUEUE count.
        access: whose rights; None: the function's service account.
        tasks_url: of Cloud Tasks.
        pubsub_url: of Pub/Sub.

    Raises:
        InvalidSettings: one of them is missing or no resource name.
    """
    names = {"ingest": settings.ingest_queue, "embed": settings.embed_queue, "sync": settings.sync_queue}
    for step, name in names.items():
        if QUEUE.fullmatch(name) is None:
            raise InvalidSettings(
                f"BONITO_{step.upper()}_QUEUE is not projects/PROJECT/locations/LOCATION/queues/QUEUE."
            )
    if TOPIC.fullmatch(settings.dead_letter_queue) is None:
        raise InvalidSettings("BONITO_DEAD_LETTER_QUEUE is not projects/PROJECT/topics/TOPIC.")
    access = access or OwnAccess()
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(Api("Cloud Tasks", tasks_url, access=access).session())
        pubsub = await stack.enter_async_context(Api("Pub/Sub", pubsub_url, access=access).session())
        yield CloudTasksQueue(names, settings.dead_letter_queue, tasks=tasks, pubsub=pubsub)


def _encoded(value: object) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def _attribute(value: object) -> str:
    return str(value).encode()[:MAX_ATTRIBUTE_BYTES].decode(errors="ignore")


def _explained(refused: Refused, name: str, right: str) -> BonitoError:
    if refused.status in {401, 403}:
        return AccessDenied(f"The function's service account lacks {right} on {name}.")
    if refused.status == 404:
        return UpstreamError(f"There is no {name}.")
    return UpstreamError(f"The message was not taken by {name} ({refused.status}).")
