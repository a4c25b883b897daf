"""The edge to Azure Functions: a queue's message is read and worked off, and what fails comes again or is buried."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from bonito.clouds.azure.queue import POISON
from bonito.clouds.base import MessageQueue
from bonito.errors import BonitoError, MalformedMessage

logger = logging.getLogger(__name__)

# Shorter than `functionTimeout` in host.json: what takes longer is ended here and comes again, before the host ends
# the process and all that is in work in it.
BUDGET_S = 540.0
# Of a message that could not be read, in the poison queue: 64 KiB in base64 hold as many even where all are escaped.
KEPT_CHARACTERS = 4_000
DELIVERIES = "deliveries"

Body = Mapping[str, object]
Step = Callable[[Body], Awaitable[None]]
Pause = Callable[[Exception, int], timedelta | None]


class QueueMessage(Protocol):
    """What we use of `azure.functions.QueueMessage`."""

    @property
    def dequeue_count(self) -> int | None:
        """How often the host took it from the queue, this time included."""
        ...

    def get_body(self) -> bytes:
        """The content, as the host decoded it."""
        ...


async def work_off(
    queue: MessageQueue, name: str, message: QueueMessage, step: Step, *, pause: Pause, budget_s: float = BUDGET_S
) -> None:
    """Work off one message of a queue, which may hold several of Event Grid's events.

    What fails is sent again with its own delay, since the host knows only one for the whole queue, and is then done
    with; what cannot succeed goes to the poison queue at once, with its reason. Should the process die in between, the
    host delivers the message again.

    Args:
        queue: takes what comes again, and poison.
        name: of the queue's step.
        message: as the host delivers it.
        step: works off one body.
        pause: how long to keep back after a failure, by what it was and how many tries there were; None: for ever.
        budget_s: how long the step may take, in seconds.

    Raises:
        UpstreamError: the queue took neither; the host delivers the message again.
    """
    try:
        bodies = read(message.get_body())
    except MalformedMessage as error:
        text = message.get_body().decode(errors="replace")
        await _bury(queue, name, error, {"text": text[:KEPT_CHARACTERS]})
        return
    for body in bodies:
        try:
            async with asyncio.timeout(budget_s):
                await step(body)
        except Exception as error:  # noqa: BLE001 - the one place on Azure that answers for the unexpected
            await _settle(queue, name, error, body, delivered=message.dequeue_count or 1, pause=pause)


def read(content: bytes) -> list[Body]:
    """The JSON objects of a message, in base64 or not.

    The host decodes once; a sender that encoded twice, or a queue with `messageEncoding` none, leaves base64.

    Raises:
        MalformedMessage: it is no JSON object and no array of them.
    """
    try:
        found = json.loads(_decoded(content))
    except (ValueError, RecursionError):
        raise MalformedMessage("The message is no JSON.") from None
    bodies: list[Any] = found if isinstance(found, list) else [found]
    if not all(isinstance(body, dict) for body in bodies):
        raise MalformedMessage("The message is no JSON object and no array of them.")
    return bodies


def _decoded(content: bytes) -> bytes:
    if content.lstrip()[:1] in {b"{", b"["}:
        return content
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error:
        return content


async def _settle(
    queue: MessageQueue, name: str, error: Exception, body: Body, *, delivered: int, pause: Pause
) -> None:
    """Send what failed again, or bury it."""
    carried = body.get(DELIVERIES)
    deliveries = delivered + (carried if isinstance(carried, int) else 0)
    delay = pause(error, deliveries)
    if delay is None:
        await _bury(queue, name, error, body)
        return
    # What Bonito raises on purpose explains itself; of the rest the log has to tell where it happened.
    unforeseen = None if isinstance(error, BonitoError) else error
    logger.warning("A message of the queue %s comes again: %s", name, type(error).__name__, exc_info=unforeseen)
    await queue.send(name, {**body, DELIVERIES: deliveries}, delay=delay)


async def _bury(queue: MessageQueue, name: str, error: Exception, body: Body) -> None:
    logger.error("A message of the queue %s is poison: %s", name, type(error).__name__, exc_info=error)
    reason = error.message if isinstance(error, BonitoError) else f"Unforeseen: {type(error).__name__}."
    code = error.code if isinstance(error, BonitoError) else "internal_error"
    at = datetime.now(UTC).isoformat()
    await queue.send(f"{name}{POISON}", {"reason": reason, "code": code, "failed_at": at, "message": body})
