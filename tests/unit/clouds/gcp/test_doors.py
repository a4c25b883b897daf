"""The edge on Google Cloud: which answers make a message come again, and which messages end as dead letters."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from cloudevents.http import CloudEvent

from bonito.clouds.gcp import doors
from bonito.errors import BonitoError, DocumentError, MalformedMessage, Overloaded, RateLimited, UpstreamError

NOTIFIED = {"bucket": "docs", "name": "größe.md", "generation": "7"}
TYPE = "google.cloud.storage.object.v1.finalized"


@dataclass
class Queue:
    sent: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    failure: Exception | None = None

    async def send(self, queue: str, message: Mapping[str, object], *, delay: timedelta = timedelta()) -> None:
        if self.failure is not None:
            raise self.failure
        self.sent.append((queue, dict(message)))


@dataclass
class Shared:
    """What a step works with, and what it was given."""

    queue: Queue = field(default_factory=Queue)
    bodies: list[Mapping[str, object]] = field(default_factory=list)
    failure: Exception | None = None

    async def step(self, shared: Shared, body: Mapping[str, object]) -> None:
        self.bodies.append(body)
        if self.failure is not None:
            raise self.failure

    def run(self, work: Callable[[Shared], Awaitable[None]]) -> None:
        async def working() -> None:
            await work(self)

        asyncio.run(working())


@dataclass
class Request:
    content: bytes
    headers: dict[str, str] = field(default_factory=dict)

    def get_data(self) -> bytes:
        return self.content


def request(body: Any, **headers: str) -> Request:
    return Request(json.dumps(body).encode(), {name.replace("_", "-"): value for name, value in headers.items()})


def push(body: Any, **more: Any) -> dict[str, Any]:
    message = {"data": base64.b64encode(json.dumps(body).encode()).decode(), "messageId": "1"}
    return {"message": message, "subscription": "s"} | more


@pytest.fixture
def shared() -> Shared:
    return Shared()


def test_a_tasks_body_is_the_message(shared: Shared) -> None:
    assert doors.answer(request({"path": "a"}, X_CloudTasks_TaskRetryCount="0"), shared.run, shared.step)[1] == 204

    assert shared.bodies == [{"path": "a"}]


def test_a_cloudevent_reads_the_same_in_every_mode(shared: Shared) -> None:
    attributes = {"id": "1", "source": "//storage", "specversion": "1.0", "type": TYPE}
    binary = request(NOTIFIED, **{f"Ce_{name.capitalize()}": value for name, value in attributes.items()})
    structured = request({**attributes, "data": NOTIFIED}, content_type="application/cloudevents+json")

    doors.answer(binary, shared.run, shared.step)
    doors.answer(structured, shared.run, shared.step)
    doors.handle(CloudEvent(attributes, NOTIFIED), shared.run, shared.step)

    for body in shared.bodies:
        assert (body["type"], body["specversion"], body["data"]) == (TYPE, "1.0", NOTIFIED)
    assert len(shared.bodies) == 3


def test_a_pushed_message_of_ours_is_unwrapped(shared: Shared) -> None:
    doors.answer(request(push({"path": "a"})), shared.run, shared.step)

    assert shared.bodies == [{"path": "a"}]


@pytest.mark.parametrize(
    "failure", [UpstreamError("no answer"), ValueError("unforeseen"), MemoryError(), TimeoutError()]
)
def test_a_failure_that_may_pass_makes_the_message_come_again(shared: Shared, failure: Exception) -> None:
    shared.failure = failure

    assert doors.answer(request({}), shared.run, shared.step) == ("", 500, {})
    with pytest.raises(type(failure)):
        doors.handle(CloudEvent({"type": TYPE, "source": "s"}, NOTIFIED), shared.run, shared.step)
    assert shared.queue.sent == []


@pytest.mark.parametrize("failure", [RateLimited, Overloaded])
def test_a_time_that_a_failure_names_is_handed_on(shared: Shared, failure: type[BonitoError]) -> None:
    shared.failure = failure("later", retry_after_s=17.3)

    assert doors.answer(request({}), shared.run, shared.step) == ("", 429, {"Retry-After": "17"})


def test_a_failure_that_cannot_pass_ends_as_a_dead_letter_with_its_reason(shared: Shared) -> None:
    shared.failure = DocumentError("Gave up after 8 tries: the store does not answer.")

    assert doors.answer(request({"path": "a"}, x_cloudtasks_taskretrycount="2"), shared.run, shared.step)[1] == 204
    doors.handle(CloudEvent({"type": TYPE, "source": "s"}, NOTIFIED), shared.run, shared.step)

    (name, dead), (_, event) = shared.queue.sent
    assert name == "dead"
    assert dead["reason"] == "Gave up after 8 tries: the store does not answer."
    assert (dead["code"], dead["attempt"]) == ("document_error", 3)
    assert json.loads(str(dead["body"])) == {"path": "a"}
    assert json.loads(str(event["body"]))["data"] == NOTIFIED


@pytest.mark.parametrize("content", [b"", b"no json", b"[]", b"\xff\xfe", json.dumps(push(1)).encode()])
def test_what_cannot_be_read_ends_as_a_dead_letter_as_it_came(shared: Shared, content: bytes) -> None:
    assert doors.answer(Request(content), shared.run, shared.step)[1] == 204

    ((_, dead),) = shared.queue.sent
    assert dead["code"] == "malformed_message"
    assert dead["body"] == content.decode(errors="replace")
    assert shared.bodies == []


@pytest.mark.parametrize(
    "poison",
    [request({"path": "a"}, x_cloudtasks_taskretrycount="60"), request(push({"path": "a"}, deliveryAttempt=61))],
)
def test_what_ends_its_process_every_time_is_not_begun_for_ever(shared: Shared, poison: Request) -> None:
    assert doors.answer(poison, shared.run, shared.step)[1] == 204

    ((_, dead),) = shared.queue.sent
    assert (dead["code"], dead["attempt"]) == ("gave_up", 61)
    assert json.loads(str(dead["body"])) == {"path": "a"}
    assert shared.bodies == []


def test_a_message_whose_dead_letter_is_not_kept_comes_again(shared: Shared) -> None:
    shared.failure, shared.queue.failure = MalformedMessage("nonsense"), UpstreamError("no topic")

    assert doors.answer(request({}), shared.run, shared.step)[1] == 500


def test_a_process_that_does_not_start_answers_with_an_error(shared: Shared) -> None:
    def run(work: Callable[[Shared], Awaitable[None]]) -> None:
        raise ConnectionError("no database")

    assert doors.answer(request({}), run, shared.step)[1] == 500


def test_a_call_without_a_message_is_answered_alike() -> None:
    def broken() -> None:
        raise UpstreamError("no answer", retry_after_s=0.2)

    assert doors.called(lambda: None) == ("", 204, {})
    assert doors.called(broken) == ("", 429, {"Retry-After": "1"})
