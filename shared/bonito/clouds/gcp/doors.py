"""The edge of a function on Google Cloud: what calls it in, and the answer that decides whether it is called again.

Cloud Tasks, Eventarc and Pub/Sub all bring one message at a time and take any answer of 2xx as done; after every other
one they come again, with a back-off that they are configured with. So a failure that may pass is answered with an
error, and nothing else is: what can never succeed goes to the dead letters with its reason, and is done.

- https://cloud.google.com/tasks/docs/creating-http-target-tasks#handler (its headers)
- https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from bonito.clouds.base import MessageQueue
from bonito.clouds.gcp.notifications import own_message, parsed
from bonito.clouds.gcp.queue import DEAD
from bonito.errors import BonitoError

logger = logging.getLogger(__name__)

# Documents and batches are given up by their own counts; this ends messages that kill their process each time.
MAX_ATTEMPTS = 60
MAX_KEPT_BYTES = 2**20  # of a dead letter

Answer = tuple[str, int, dict[str, str]]


class Headers(Protocol):
    """A request's headers."""

    def items(self) -> Iterable[tuple[str, str]]:
        """Names, in any case, and values."""
        ...


class Request(Protocol):
    """As Flask hands it to a function of the signature `http`."""

    @property
    def headers(self) -> Headers:
        """Of the request."""
        ...

    def get_data(self) -> bytes:
        """The body."""
        ...


class CloudEvent(Protocol):
    """As the framework hands it to a function of the signature `cloudevent`."""

    @property
    def data(self) -> object:
        """What the event tells."""
        ...

    def get_attributes(self) -> Mapping[str, object]:
        """Everything else."""
        ...


class Working(Protocol):
    """What steps share; its queue takes dead letters too."""

    @property
    def queue(self) -> MessageQueue:
        """To the next step."""
        ...


@dataclass(frozen=True)
class Delivery:
    """A message that came, for the `attempt`-th time as far as its carrier tells."""

    body: Mapping[str, object]
    attempt: int = 1


Shared = TypeVar("Shared", bound=Working)
Step = Callable[[Shared, Mapping[str, object]], Awaitable[object]]
Run = Callable[[Callable[[Shared], Awaitable[None]]], None]


def answer(request: Request, run: Run[Shared], step: Step[Shared]) -> Answer:
    """Do a step with the message of a request.

    Args:
        request: of Cloud Tasks, Eventarc, Pub/Sub or Cloud Scheduler.
        run: runs on the process's loop with what its steps share.
        step: gets the message's body.

    Returns:
        204 when the message is done with, also where it ended as a dead letter; otherwise 429 with Retry-After where
        the failure named a time, or 500.
    """
    content = request.get_data()
    try:
        run(lambda shared: _work(shared, content, lambda: received(request.headers, content), step))
    except Exception as error:  # noqa: BLE001 - the edge: whatever it is, the message comes again
        _log(error)
        return _again(error)
    return "", 204, {}


def handle(event: CloudEvent, run: Run[Shared], step: Step[Shared]) -> None:
    """Do a step with a CloudEvent; whatever is raised makes the platform send it again."""
    body = {**event.get_attributes(), "data": event.data}
    content = json.dumps(body, default=str).encode()
    try:
        run(lambda shared: _work(shared, content, lambda: Delivery(own_message(body)), step))
    except Exception as error:
        _log(error)
        raise


def called(work: Callable[[], object]) -> Answer:
    """Do what a call without a message asks for, such as one of Cloud Scheduler; answered as `answer` does."""
    try:
        work()
    except Exception as error:  # noqa: BLE001 - the edge, as above
        _log(error)
        return _again(error)
    return "", 204, {}


def received(headers: Headers, content: bytes) -> Delivery:
    """The message of a request: a CloudEvent in binary or structured mode, a push of Pub/Sub, or a task's body.

    Raises:
        MalformedMessage: it is not JSON, or something was pushed that is not.
    """
    body, named = parsed(content), {name.lower(): value for name, value in headers.items()}
    pushed, retries = body.get("deliveryAttempt"), named.get("x-cloudtasks-taskretrycount", "")
    attempt = int(retries) + 1 if retries.isdecimal() else pushed if isinstance(pushed, int) else 1
    if "ce-type" in named:
        attributes = {name.removeprefix("ce-"): value for name, value in named.items() if name.startswith("ce-")}
        body = {**attributes, "data": body}
    return Delivery(own_message(body), attempt)


async def _work(shared: Shared, content: bytes, receive: Callable[[], Delivery], step: Step[Shared]) -> None:
    """The step; a failure that cannot pass ends here, once the dead letter is kept."""
    attempt = 1
    try:
        delivery = receive()
        content, attempt = json.dumps(delivery.body).encode(), delivery.attempt
        if attempt <= MAX_ATTEMPTS:
            await step(shared, delivery.body)
            return
        code, reason = "gave_up", f"Gave up after {MAX_ATTEMPTS} deliveries, none of which came to an end."
    except BonitoError as error:
        if error.retryable:
            raise
        code, reason = error.code, error.message
    logger.error("A message can never be worked off (%s): %s", code, reason)
    kept = content[:MAX_KEPT_BYTES].decode(errors="replace")
    await shared.queue.send(DEAD, {"reason": reason, "code": code, "attempt": attempt, "body": kept})


def _again(error: Exception) -> Answer:
    wait_s = error.retry_after_s if isinstance(error, BonitoError) else None
    if wait_s is None:
        return "", 500, {}
    # Cloud Tasks heeds it of 429 and 503: https://cloud.google.com/tasks/docs/reference/rest/v2/projects.locations.queues.tasks#httprequest
    return "", 429, {"Retry-After": str(max(1, round(wait_s)))}


def _log(error: Exception) -> None:
    if isinstance(error, BonitoError):
        logger.warning("A message is to come again (%s): %s", error.code, error.message)
    else:
        logger.warning("A message is to come again.", exc_info=error)
