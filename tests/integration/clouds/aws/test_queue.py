"""SQS between the steps, as moto plays it."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from bonito.clouds.aws.clients import open_client
from bonito.clouds.aws.queue import SqsQueue, hold_off, open_queue
from bonito.errors import InvalidSettings, UpstreamError
from bonito.settings import Settings
from tests.emulators.moto import REGION, StaticAccess
from tests.integration.clouds.aws.conftest import Queues


async def test_a_message_arrives_as_json(queues: Queues) -> None:
    await queues.queue.send("ingest", {"path": "größe 😀.txt", "priority": 20})

    (message,) = await queues.received()
    assert json.loads(message["Body"]) == {"path": "größe 😀.txt", "priority": 20}


async def test_a_delayed_message_waits(queues: Queues) -> None:
    await queues.queue.send("ingest", {}, delay=timedelta(minutes=5))

    assert await queues.received() == []
    assert await queues.count("Delayed") == 1


async def test_a_message_with_a_long_delay_says_until_when_it_waits(queues: Queues) -> None:
    sent: list[dict[str, Any]] = []

    class Watching:
        async def send_message(self, **message: Any) -> None:
            sent.append(message)

    queue = SqsQueue(Watching(), {"ingest": queues.url})
    await queue.send("ingest", {"a": 1}, delay=timedelta(hours=2))

    (message,) = sent
    body = json.loads(message["MessageBody"])
    assert message["DelaySeconds"] == 900
    assert hold_off(body, now_s=body["not_before"] - 6300) == timedelta(seconds=6300)
    assert hold_off(body, now_s=body["not_before"]) is None
    assert hold_off({"a": 1}, now_s=0) is None


async def test_a_message_is_put_back_for_its_own_pause(queues: Queues) -> None:
    await queues.queue.send("ingest", {"a": 1})
    (message,) = await queues.received()
    assert await queues.received() == []

    await queues.queue.put_back(queues.arn, message["ReceiptHandle"], pause=timedelta(hours=20))
    assert await queues.received() == []
    await queues.queue.put_back(queues.arn, message["ReceiptHandle"], pause=timedelta())

    (again,) = await queues.received()
    assert again["MessageId"] == message["MessageId"]
    assert again["Attributes"]["ApproximateReceiveCount"] == "2"


async def test_a_dead_letter_says_why(queues: Queues) -> None:
    await queues.queue.bury(
        queues.arn, "not json\n", reason="It is\0no JSON: 😀." + "x" * 2000, code="malformed_message"
    )

    (letter,) = await queues.received(queues.dead_url)
    attributes = {name: value["StringValue"] for name, value in letter["MessageAttributes"].items()}
    assert letter["Body"] == "not json\n"
    assert attributes["code"] == "malformed_message"
    assert attributes["reason"].startswith("It is no JSON: 😀.xx")
    assert len(attributes["reason"]) == 1000


async def test_a_queue_without_dead_letters_is_said(queues: Queues) -> None:
    with pytest.raises(InvalidSettings, match="has no dead-letter queue"):
        await queues.queue.bury(queues.lonely_arn, "x", reason="x", code="x")


async def test_a_queue_that_does_not_take_a_message_is_an_upstream_failure(queues: Queues) -> None:
    with pytest.raises(UpstreamError, match="SQS answered 400"):
        await SqsQueue(queues.client, {"ingest": queues.url + "-gone"}).send("ingest", {})


async def test_the_settings_name_the_queues(queues: Queues, aws_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws_url)
    settings = Settings(ingest_queue=queues.url, embed_queue=queues.url, sync_queue=queues.url)

    async with open_queue(settings) as queue:
        await queue.send("embed", {"a": 1})

    assert len(await queues.received()) == 1
    with pytest.raises(InvalidSettings, match="BONITO_EMBED_QUEUE, BONITO_SYNC_QUEUE: not set"):
        async with open_queue(Settings(ingest_queue=queues.url)):
            pass


async def test_nobody_at_the_address_is_an_upstream_failure() -> None:
    opening = open_client("sqs", access=StaticAccess(), region=REGION, endpoint_url="http://127.0.0.1:9")
    async with opening as client:
        with pytest.raises(UpstreamError, match="SQS did not answer"):
            await SqsQueue(client, {"ingest": "http://127.0.0.1:9/1/x"}).send("ingest", {})
