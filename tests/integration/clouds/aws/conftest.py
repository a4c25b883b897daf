"""moto, and a bucket of its own for each test."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from bonito.clouds.aws import observing
from bonito.clouds.aws.clients import open_client
from bonito.clouds.aws.queue import SqsQueue
from tests.emulators import moto


@pytest.fixture(scope="module")
def aws_url() -> Iterator[str]:
    with moto.serving() as url:
        yield url


@pytest.fixture(autouse=True)
def own_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Lambda gives a function: keys and a region in its environment."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": moto.REGION,
        "AWS_REGION": moto.REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(autouse=True)
def own_logger() -> Iterator[None]:
    """What a door does to the log is undone: other tests run in this process."""
    yield
    observing._logger.cache_clear()
    logger = logging.getLogger(observing.SERVICE)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)
    for name in [name for name in vars(logger) if name == "init" or name.startswith("powertools")]:
        delattr(logger, name)  # by which powertools knows a logger that it has set up


@pytest.fixture
async def s3(aws_url: str) -> AsyncIterator[Any]:
    """A client of the buckets' owner."""
    async with open_client("s3", access=moto.StaticAccess(), region=moto.REGION, endpoint_url=aws_url) as client:
        yield client


@pytest.fixture
async def bucket(s3: Any) -> str:
    name = f"docs-{uuid.uuid4().hex}"
    await s3.create_bucket(Bucket=name)
    return name


@dataclass
class Queues:
    """A queue with its dead letters, and one without."""

    client: Any
    url: str
    arn: str
    dead_url: str
    lonely_arn: str
    queue: SqsQueue

    async def received(self, url: str | None = None) -> list[dict[str, Any]]:
        answer = await self.client.receive_message(
            QueueUrl=url or self.url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], AttributeNames=["All"]
        )
        messages: list[dict[str, Any]] = answer.get("Messages", [])
        return messages

    async def count(self, which: str) -> int:
        answer = await self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=["All"])
        return int(answer["Attributes"][f"ApproximateNumberOfMessages{which}"])


@pytest.fixture
async def queues(aws_url: str) -> AsyncIterator[Queues]:
    name = uuid.uuid4().hex
    async with open_client("sqs", access=moto.StaticAccess(), region=moto.REGION, endpoint_url=aws_url) as client:

        async def make(name: str, **attributes: str) -> tuple[str, str]:
            url = (await client.create_queue(QueueName=name, Attributes=attributes))["QueueUrl"]
            answer = await client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
            return url, answer["Attributes"]["QueueArn"]

        dead_url, dead_arn = await make(f"{name}-dead")
        policy = json.dumps({"deadLetterTargetArn": dead_arn, "maxReceiveCount": 100})
        url, arn = await make(name, VisibilityTimeout="600", RedrivePolicy=policy)
        _, lonely_arn = await make(f"{name}-lonely")
        yield Queues(client, url, arn, dead_url, lonely_arn, SqsQueue(client, {"ingest": url}))
