"""Storage Queues between the steps of ingestion."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from bonito.clouds.azure.credentials import OwnAccess, credential
from bonito.clouds.azure.failures import RETRIES
from bonito.errors import InvalidSettings, UpstreamError
from bonito.settings import Settings

if TYPE_CHECKING:
    from azure.storage.queue.aio import QueueClient, QueueServiceClient

# Where the Functions host puts what failed too often, and we what cannot succeed.
POISON = "-poison"
LONGEST_DELAY = timedelta(days=7)
FOR_EVER = -1  # otherwise a message that nobody takes is lost after a week


class StorageQueue:
    """MessageQueue over the queues of one storage account.

    Messages are JSON in base64, which the Functions host expects of a queue unless host.json says otherwise, and in
    which Event Grid delivers too. `STEP-poison` is the queue beside a step's, made when it is first needed.
    """

    def __init__(self, service: QueueServiceClient, names: Mapping[str, str]) -> None:
        """Take an open client, and the name of each step's queue."""
        self._service, self._names = service, names

    async def send(self, queue: str, message: Mapping[str, object], *, delay: timedelta = timedelta()) -> None:
        """Enqueue one message, visible after `delay`, seven days at most; UpstreamError where it is not taken."""
        from azure.core.exceptions import AzureError, ResourceNotFoundError

        step = queue.removesuffix(POISON)
        client = self._service.get_queue_client(self._names[step] + queue[len(step) :])
        content = base64.b64encode(json.dumps(message).encode()).decode()
        try:
            try:
                await _put(client, content, delay)
            except ResourceNotFoundError:
                if not queue.endswith(POISON):
                    raise
                await _create(client)
                await _put(client, content, delay)
        except AzureError as error:
            raise UpstreamError("The message could not be queued.") from error


@asynccontextmanager
async def open_queue(settings: Settings) -> AsyncIterator[StorageQueue]:
    """The queues that the settings name, with the deployment's own identity or the connection string's key.

    Raises:
        InvalidSettings: the service or one of the queues is not named.
    """
    from azure.storage.queue.aio import QueueServiceClient

    names = {"ingest": settings.ingest_queue, "embed": settings.embed_queue, "sync": settings.sync_queue}
    missing = [f"BONITO_{step.upper()}_QUEUE" for step, name in names.items() if not name]
    if settings.queue_service is None or missing:
        unset = [*missing, *([] if settings.queue_service else ["BONITO_QUEUE_SERVICE"])]
        raise InvalidSettings(f"{', '.join(unset)}: not set; a function on Azure needs its queues.")
    where = settings.queue_service.get_secret_value()
    if where.startswith("https://"):
        service = QueueServiceClient(where, credential=credential(OwnAccess()), **RETRIES)
    else:
        try:
            service = QueueServiceClient.from_connection_string(where, **RETRIES)
        except ValueError:
            raise InvalidSettings("BONITO_QUEUE_SERVICE: neither an https address nor a connection string.") from None
    async with service:
        yield StorageQueue(service, names)


async def _put(client: QueueClient, content: str, delay: timedelta) -> None:
    seconds = int(min(delay, LONGEST_DELAY).total_seconds())
    await client.send_message(content, visibility_timeout=seconds, time_to_live=FOR_EVER)


async def _create(client: QueueClient) -> None:
    from azure.core.exceptions import ResourceExistsError

    with suppress(ResourceExistsError):
        await client.create_queue()
