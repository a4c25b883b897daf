"""A message of a Storage Queue: read however it was encoded, sent again or buried when it fails, never in the way."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from bonito.clouds.azure import doors
from bonito.errors import DocumentError, MalformedMessage, UpstreamError
from bonito.knowledge.retries import next_pause

Sent = tuple[str, Mapping[str, object], timedelta]


@dataclass
class Queue:
    sent: list[Sent] = field(default_factory=list)
    is_away: bool = False

    async def send(self, queue: str, message: Mapping[str, object], *, delay: timedelta = timedelta()) -> None:
        if self.is_away:
            raise UpstreamError("The message could not be queued.")
        self.sent.append((queue, message, delay))


@dataclass
class Message:
    content: object
    dequeue_count: int | None = 1

    def get_body(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else json.dumps(self.content).encode()


@dataclass
class Steps:
    """Does nothing with a body, or what the test says."""

    failures: dict[str, Exception] = field(default_factory=dict)
    done: list[object] = field(default_factory=list)

    async def __call__(self, body: Mapping[str, object]) -> None:
        if failure := self.failures.get(str(body.get("path"))):
            raise failure
        self.done.append(body)


async def work_off(queue: Queue, content: object, steps: Steps, *, dequeued: int = 1) -> None:
    await doors.work_off(queue, "ingest", Message(content, dequeued), steps, pause=next_pause)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b'{"path": "a"}', id="json"),
        pytest.param(base64.b64encode(b'{"path": "a"}'), id="base64"),
        pytest.param(b' [{"path": "a"}]', id="array"),
        pytest.param(b'\n {"path": "a"}\n', id="spaces"),
    ],
)
async def test_a_message_is_read_however_it_was_encoded(content: bytes) -> None:
    queue, steps = Queue(), Steps()

    await work_off(queue, content, steps)

    assert steps.done == [{"path": "a"}]
    assert queue.sent == []


async def test_only_the_event_that_failed_comes_again() -> None:
    queue, steps = Queue(), Steps({"b": UpstreamError("The store is away.", retry_after_s=8)})

    await work_off(queue, [{"path": "a"}, {"path": "b"}, {"path": "c"}], steps)

    assert steps.done == [{"path": "a"}, {"path": "c"}]
    ((name, message, delay),) = queue.sent
    assert (name, message) == ("ingest", {"path": "b", "deliveries": 1})
    assert timedelta(seconds=8) <= delay <= timedelta(seconds=12)


async def test_pauses_grow_over_the_deliveries_that_a_message_carries() -> None:
    queue, steps = Queue(), Steps({"a": UpstreamError("The store is away.")})

    delays = []
    for _ in range(6):
        body = queue.sent[-1][1] if queue.sent else {"path": "a"}
        await work_off(queue, body, steps)
        delays.append(queue.sent[-1][2])

    assert queue.sent[-1][1]["deliveries"] == 6
    assert delays[-1] > 8 * delays[0]


async def test_deliveries_by_the_host_count_too() -> None:
    queue, steps = Queue(), Steps({"a": UpstreamError("The store is away.")})

    await work_off(queue, {"path": "a", "deliveries": 3}, steps, dequeued=2)

    assert queue.sent[-1][1]["deliveries"] == 5


async def test_a_final_failure_is_buried_at_once_with_its_reason() -> None:
    queue, steps = Queue(), Steps({"a": DocumentError("Gave up after 8 tries: no.")})

    await work_off(queue, {"path": "a"}, steps)

    ((name, message, delay),) = queue.sent
    assert (name, delay) == ("ingest-poison", timedelta())
    assert (message["reason"], message["code"]) == ("Gave up after 8 tries: no.", "document_error")
    assert message["message"] == {"path": "a"}


async def test_a_message_that_fails_for_ever_is_buried_in_the_end() -> None:
    queue, steps = Queue(), Steps({"a": RuntimeError("secret")})

    await work_off(queue, {"path": "a", "deliveries": 59}, steps)

    ((name, message, _),) = queue.sent
    assert (name, message["reason"]) == ("ingest-poison", "Unforeseen: RuntimeError.")


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"nonsense", b'"text"', b"[1]", b"[" * 100_000, b"{" + b"x" * 60_000, b"\xff" * 60_000],
)
async def test_nonsense_is_buried_unread_and_fits_into_a_message(content: bytes) -> None:
    queue, steps = Queue(), Steps()

    await work_off(queue, content, steps)

    ((name, message, _),) = queue.sent
    assert (name, message["code"], steps.done) == ("ingest-poison", "malformed_message", [])
    assert len(base64.b64encode(json.dumps(message).encode())) < 64 * 1024


async def test_a_malformed_event_does_not_harm_its_neighbours() -> None:
    queue, steps = Queue(), Steps({"b": MalformedMessage("The event names no blob.")})

    await work_off(queue, [{"path": "a"}, {"path": "b"}], steps)

    assert steps.done == [{"path": "a"}]
    assert [name for name, _, _ in queue.sent] == ["ingest-poison"]


async def test_what_takes_too_long_is_ended_and_comes_again() -> None:
    queue = Queue()

    async def never(body: Mapping[str, object]) -> None:
        await asyncio.Event().wait()

    await doors.work_off(queue, "ingest", Message({"path": "a"}), never, pause=next_pause, budget_s=0.01)

    assert [name for name, _, _ in queue.sent] == ["ingest"]


async def test_the_host_delivers_again_what_could_not_be_sent_again() -> None:
    queue, steps = Queue(is_away=True), Steps({"a": UpstreamError("The store is away.")})

    with pytest.raises(UpstreamError):
        await work_off(queue, {"path": "a"}, steps)


async def test_no_content_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    queue, steps = Queue(), Steps({"pay/salaries.md": UpstreamError("Away."), "pay/raise.md": DocumentError("Gone.")})

    with caplog.at_level(logging.INFO):
        await work_off(queue, [{"path": "pay/salaries.md"}, {"path": "pay/raise.md"}], steps)

    assert len(caplog.records) == 2
    assert "pay/" not in caplog.text
