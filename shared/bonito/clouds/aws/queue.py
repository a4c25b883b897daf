"""SQS between the steps of ingestion: messages out, later tries, and the dead letters with their reasons."""

from __future__ import annotations

import json
import math
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from bonito.clouds.aws.clients import open_client
from bonito.clouds.aws.failures import of_service, unanswered
from bonito.errors import InvalidSettings
from bonito.settings import Settings

if TYPE_CHECKING:
    from aiobotocore.client import AioBaseClient

# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html and
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ChangeMessageVisibility.html
LONGEST_DELAY_S = 900
LONGEST_INVISIBILITY_S = 12 * 3600 - 60  # from when the message was received, which is a little ago
# In a message that is to wait for longer than SQS delays one: seconds since 1970. Whoever takes it before puts it back.
NOT_BEFORE = "not_before"
# Names of a dead letter's attributes, and how long a reason may be.
REASON, CODE = "reason", "code"
LONGEST_REASON = 1000


class SqsQueue:
    """MessageQueue over SQS, and what a consumer of it does with what failed."""

    def __init__(self, client: AioBaseClient, urls: Mapping[str, str]) -> None:
        """Take a client of SQS, open and the caller's to close, and the URL of each step's queue."""
        self._client, self._urls = client, urls
        self._dead_letters: dict[str, str] = {}

    async def send(self, queue: str, message: Mapping[str, object], *, delay: timedelta = timedelta()) -> None:
        """Enqueue one message, visible after `delay`; UpstreamError where it is not taken.

        Above fifteen minutes the message itself says until when it waits, and `hold_off` has it wait.
        """
        delay_s = math.ceil(delay.total_seconds())
        if delay_s > LONGEST_DELAY_S:
            message = {**message, NOT_BEFORE: time.time() + delay_s}
        with _explained():
            await self._client.send_message(
                QueueUrl=self._urls[queue],
                MessageBody=json.dumps(message),
                DelaySeconds=min(delay_s, LONGEST_DELAY_S),
            )

    async def put_back(self, source: str, receipt: str, *, pause: timedelta) -> None:
        """Let a received message become visible again after `pause`, and not when its queue's own time is up.

        Args:
            source: the ARN of the queue that it came from.
            receipt: its handle.
            pause: half a day at most; longer ones are cut.
        """
        pause_s = min(math.ceil(pause.total_seconds()), LONGEST_INVISIBILITY_S)
        with _explained():
            await self._client.change_message_visibility(
                QueueUrl=await self._url_of(source), ReceiptHandle=receipt, VisibilityTimeout=pause_s
            )

    async def bury(self, source: str, body: str, *, reason: str, code: str) -> None:
        """Put a message that can never be worked off where its queue's dead letters are, and say why.

        Args:
            source: the ARN of the queue that it came from.
            body: the message as it came.
            reason: a sentence for a person.
            code: of the error.

        Raises:
            InvalidSettings: the queue has no dead-letter queue.
            UpstreamError: SQS did not take it.
        """
        texts = {REASON: _printable(reason)[:LONGEST_REASON] or "unknown", CODE: code}
        with _explained():
            await self._client.send_message(
                QueueUrl=await self._dead_letters_of(source),
                MessageBody=body,
                MessageAttributes={name: {"DataType": "String", "StringValue": text} for name, text in texts.items()},
            )

    async def _dead_letters_of(self, source: str) -> str:
        """The URL of the queue that the source's redrive policy names, asked for once."""
        if source not in self._dead_letters:
            answer = await self._client.get_queue_attributes(
                QueueUrl=await self._url_of(source), AttributeNames=["RedrivePolicy"]
            )
            policy = json.loads(answer.get("Attributes", {}).get("RedrivePolicy", "{}"))
            if "deadLetterTargetArn" not in policy:
                raise InvalidSettings(f"The queue {_name(source)} has no dead-letter queue.")
            self._dead_letters[source] = await self._url_of(policy["deadLetterTargetArn"])
        return self._dead_letters[source]

    async def _url_of(self, arn: str) -> str:
        for url in self._urls.values():
            if url.rsplit("/", 1)[-1] == _name(arn):
                return url
        answer = await self._client.get_queue_url(QueueName=_name(arn), QueueOwnerAWSAccountId=arn.split(":")[4])
        return str(answer["QueueUrl"])


def hold_off(message: Mapping[str, object], *, now_s: float) -> timedelta | None:
    """How long a message has still to wait that was sent with a long delay; None: no longer."""
    not_before = message.get(NOT_BEFORE)
    if not isinstance(not_before, int | float) or not_before <= now_s:
        return None
    return timedelta(seconds=not_before - now_s)


@asynccontextmanager
async def open_queue(settings: Settings) -> AsyncIterator[SqsQueue]:
    """The queues that the settings name, with the rights of this process; InvalidSettings where one is not named."""
    urls = {"ingest": settings.ingest_queue, "embed": settings.embed_queue, "sync": settings.sync_queue}
    missing = ", ".join(f"BONITO_{step.upper()}_QUEUE" for step, url in urls.items() if not url)
    if missing:
        raise InvalidSettings(f"{missing}: not set; on AWS it is the URL of a queue.")
    async with open_client("sqs", access=None) as client:
        yield SqsQueue(client, urls)


@contextmanager
def _explained() -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise of_service(error.response, "SQS") from error
    except (BotoCoreError, TimeoutError) as error:
        raise unanswered(error, "SQS") from error


def _name(arn: str) -> str:
    return arn.rsplit(":", 1)[-1]


def _printable(text: str) -> str:
    """What SQS takes in an attribute: characters of XML, and none of them but a space is blank here."""
    return "".join(character if character.isprintable() else " " for character in text)
