"""A batch at a door: what is done, what comes again and when, and what ends among the dead letters with its reason."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from bonito.assembly.process import Process
from bonito.clouds.aws import doors
from bonito.clouds.aws.clients import open_client
from bonito.clouds.aws.queue import SqsQueue
from bonito.errors import DocumentError, Overloaded
from bonito.knowledge.retries import next_pause
from tests.emulators.moto import REGION, StaticAccess
from tests.integration.clouds.aws.conftest import Queues


@dataclass
class Shared:
    queue: SqsQueue
    opened: AsyncExitStack


@dataclass
class Context:
    """What a test needs of Lambda's."""

    left_s: float = 60.0
    function_name: str = "ingest"
    memory_limit_in_mb: int = 512
    invoked_function_arn: str = "arn:aws:lambda:us-east-1:123456789012:function:ingest"
    aws_request_id: str = "request-1"

    def get_remaining_time_in_millis(self) -> int:
        return round(self.left_s * 1000)


Body = Mapping[str, object]
Step = Callable[[Shared, Body], Awaitable[None]]


class Door:
    """A door over a queue, and its batches."""

    def __init__(self, queues: Queues, url: str, step: Step) -> None:
        @asynccontextmanager
        async def making() -> AsyncIterator[Shared]:
            async with AsyncExitStack() as opened:
                opening = open_client("sqs", access=StaticAccess(), region=REGION, endpoint_url=url)
                client = await opened.enter_async_context(opening)
                yield Shared(SqsQueue(client, {"ingest": queues.url}), opened)

        self.queues, self._process, self._step = queues, Process(making), step

    async def batch(self, *bodies: object) -> doors.SqsEvent:
        """Send messages, and receive them as Lambda hands them over."""
        for body in bodies:
            text = body if isinstance(body, str) else json.dumps(body)
            await self.queues.client.send_message(QueueUrl=self.queues.url, MessageBody=text)
        records = [
            {
                "messageId": each["MessageId"],
                "receiptHandle": each["ReceiptHandle"],
                "body": each["Body"],
                "attributes": each["Attributes"],
                "messageAttributes": {},
                "md5OfBody": each["MD5OfBody"],
                "eventSource": "aws:sqs",
                "eventSourceARN": self.queues.arn,
                "awsRegion": REGION,
            }
            for each in await self.queues.received()
        ]
        return {"Records": records}  # type: ignore[typeddict-item]

    async def handle(self, event: doors.SqsEvent, *, left_s: float = 60.0) -> list[str]:
        """The bodies of the messages that come again."""
        response = await asyncio.to_thread(
            doors.run_batch, event, Context(left_s), self._process.run, self._step, pause=next_pause
        )
        again = {failure["itemIdentifier"] for failure in response["batchItemFailures"]}
        return [record["body"] for record in event["Records"] if record["messageId"] in again]

    async def close(self) -> None:
        """What Lambda does not do: leave nothing open."""
        await asyncio.to_thread(self._process.run, lambda shared: shared.opened.aclose())


@pytest.fixture
async def door_of(queues: Queues, aws_url: str) -> AsyncIterator[Callable[[Step], Door]]:
    made: list[Door] = []

    def make(step: Step) -> Door:
        made.append(Door(queues, aws_url, step))
        return made[-1]

    yield make
    for door in made:
        await door.close()


def metrics_of(output: str) -> dict[str, Any]:
    """The metrics among what was printed."""
    (line,) = [line for line in output.splitlines() if '"_aws"' in line]
    metrics: dict[str, Any] = json.loads(line)
    return metrics


async def test_one_poisoned_message_does_not_harm_its_neighbours(
    door_of: Callable[[Step], Door], capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[object] = []

    async def step(shared: Shared, body: Body) -> None:
        if body.get("path") == "poison":
            raise DocumentError("This can never be read.")
        if body.get("path") == "later":
            raise Overloaded("Later.", retry_after_s=100)
        done.append(body["path"])

    door = door_of(step)
    event = await door.batch({"path": "a"}, {"path": "poison"}, {"path": "later"}, "not json", "[]", {"path": "b"})
    again = await door.handle(event)

    assert sorted(map(str, done)) == ["a", "b"]
    assert again == ['{"path": "later"}']
    letters = {
        letter["Body"]: letter["MessageAttributes"]["reason"]["StringValue"]
        for letter in await door.queues.received(door.queues.dead_url)
    }
    assert letters == {
        '{"path": "poison"}': "This can never be read.",
        "not json": "The message is no JSON.",
        "[]": "The message is no JSON object.",
    }
    metrics = metrics_of(capsys.readouterr().out)
    assert (metrics["MessagesDone"], metrics["MessagesPutBack"], metrics["MessagesBuried"]) == ([2.0], [1.0], [3.0])
    assert metrics["function"] == "ingest"


async def test_what_comes_again_comes_after_its_own_pause(
    door_of: Callable[[Step], Door], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[int] = []
    put_back = SqsQueue.put_back

    async def watched(self: SqsQueue, source: str, receipt: str, *, pause: timedelta) -> None:
        pauses.append(round(pause.total_seconds()))
        await put_back(self, source, receipt, pause=timedelta())

    monkeypatch.setattr(SqsQueue, "put_back", watched)

    async def step(shared: Shared, body: Body) -> None:
        raise Overloaded("Later.", retry_after_s=100) if body["path"] == "asked" else ConnectionError("lost")

    door = door_of(step)
    assert len(await door.handle(await door.batch({"path": "asked"}))) == 1
    assert 100 <= pauses[0] <= 126
    assert len(await door.handle(await door.batch())) == 1, "at once again, since the test cut the pause"
    assert len(await door.handle(await door.batch({"path": "lost"}))) == 2
    assert any(2 <= pause <= 4 for pause in pauses[2:])


async def test_a_message_that_failed_too_often_ends_among_the_dead_letters(door_of: Callable[[Step], Door]) -> None:
    async def step(shared: Shared, body: Body) -> None:
        raise ConnectionError("a secret of the driver")

    door = door_of(step)
    event = await door.batch({"path": "a"})
    event["Records"][0]["attributes"]["ApproximateReceiveCount"] = "60"

    assert await door.handle(event) == []
    (letter,) = await door.queues.received(door.queues.dead_url)
    assert letter["MessageAttributes"]["reason"]["StringValue"] == "Unforeseen: ConnectionError."


async def test_before_the_deadline_nothing_is_begun_any_more(door_of: Callable[[Step], Door]) -> None:
    begun: list[object] = []

    async def step(shared: Shared, body: Body) -> None:
        begun.append(body)

    door = door_of(step)
    event = await door.batch({"path": "a"}, {"path": "b"})

    assert len(await door.handle(event, left_s=9.0)) == 2
    assert begun == []
    assert len(await door.queues.received()) == 2, "returned at once, for somebody who has time"


async def test_what_is_still_in_work_at_the_deadline_is_ended_and_comes_again(
    door_of: Callable[[Step], Door], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doors, "BEGIN_RESERVE_S", 3.0)
    ended = asyncio.Event()

    async def step(shared: Shared, body: Body) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.set()
            raise

    door = door_of(step)
    began_s = time.monotonic()
    again = await door.handle(await door.batch({"path": "endless"}), left_s=3.2)

    assert again == ['{"path": "endless"}']
    assert ended.is_set()
    assert time.monotonic() - began_s < 60
    assert await door.queues.received() == [], "not before the lease of its work has run out"


async def test_a_message_that_is_to_wait_is_not_begun(door_of: Callable[[Step], Door]) -> None:
    begun: list[object] = []

    async def step(shared: Shared, body: Body) -> None:
        begun.append(body)

    door = door_of(step)
    event = await door.batch({"not_before": time.time() + 3000}, {"not_before": time.time() - 1})

    assert len(await door.handle(event)) == 1
    assert len(begun) == 1


async def test_four_messages_are_in_work_at_once(door_of: Callable[[Step], Door]) -> None:
    gate, working, most = asyncio.Event(), 0, 0

    async def step(shared: Shared, body: Body) -> None:
        nonlocal working, most
        working += 1
        most = max(most, working)
        if working == doors.IN_HAND:
            gate.set()
        await gate.wait()
        working -= 1

    door = door_of(step)
    assert await door.handle(await door.batch(*({"number": number} for number in range(10)))) == []
    assert most == doors.IN_HAND


async def test_a_process_that_cannot_start_keeps_its_messages(queues: Queues) -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[Shared]:
        raise ConnectionError("no database")
        yield Shared(queues.queue, AsyncExitStack())

    async def step(shared: Shared, body: Body) -> None: ...

    door = Door(queues, "", step)
    door._process = Process(broken)

    assert len(await door.handle(await door.batch({"path": "a"}, {"path": "b"}))) == 2
    assert await queues.received(queues.dead_url) == []


async def test_the_log_is_structured_and_holds_nothing_of_a_message(
    door_of: Callable[[Step], Door], capsys: pytest.CaptureFixture[str]
) -> None:
    async def step(shared: Shared, body: Body) -> None:
        raise DocumentError("canary-reason")

    door = door_of(step)
    await door.handle(await door.batch({"path": "canary-path"}))

    output = capsys.readouterr().out
    assert "canary" not in output
    lines = [json.loads(line) for line in output.splitlines()]
    (buried,) = [line for line in lines if line.get("level") == "ERROR"]
    assert buried["message"].endswith("goes to the dead letters: document_error")
    assert buried["function_request_id"] == "request-1"


async def test_a_schedules_call_that_fails_is_lambdas_to_repeat() -> None:
    event: doors.ScheduledEvent = {"source": "aws.events", "detail-type": "Scheduled Event", "time": ""}
    called: list[int] = []
    doors.run_once(event, Context(), lambda: called.append(1))
    assert called == [1]

    def fails() -> None:
        raise ConnectionError("no database")

    with pytest.raises(ConnectionError):
        doors.run_once(event, Context(), fails)
