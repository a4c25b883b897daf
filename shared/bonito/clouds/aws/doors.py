"""The edge of a function on AWS: a batch of SQS's messages in, the ids of those that come again out.

What may succeed later is put back for its own pause and named, so that SQS keeps it; what never can goes to the
dead-letter queue with its reason and counts as done. So no message holds up its neighbours, and maxReceiveCount of a
queue only ends messages that kill their process each time.

A queue's visibility timeout is above the function's timeout, which AWS demands and six times of which it advises:
what is in work cannot come a second time meanwhile, and nothing has to be extended.
https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Generic, Protocol, TypedDict, TypeGuard, TypeVar

from bonito.clouds import counters
from bonito.clouds.aws.observing import observed, publish
from bonito.clouds.aws.queue import SqsQueue, hold_off
from bonito.clouds.base import MessageQueue
from bonito.errors import BonitoError, MalformedMessage

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

logger = logging.getLogger(__name__)

# Messages of a batch that are in work at once: as many as the pool has connections.
IN_HAND = 4
# Before the deadline: what is not begun by then is returned; what is in work by then is ended and returned.
BEGIN_RESERVE_S, END_RESERVE_S = 10.0, 3.0
# What was ended comes again when the lease of its work has run out (`knowledge.retries.Leases`), so that it counts as
# a failed try: a document that always takes too long is given up.
ENDED_PAUSE = timedelta(seconds=90)


class SqsRecord(TypedDict):
    """A message as Lambda hands it over: https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html."""

    messageId: str
    receiptHandle: str
    body: str
    attributes: dict[str, str]
    messageAttributes: dict[str, object]
    md5OfBody: str
    eventSource: str
    eventSourceARN: str
    awsRegion: str


class SqsEvent(TypedDict):
    """A batch of them."""

    Records: list[SqsRecord]


# EventBridge Scheduler's and EventBridge's own: https://docs.aws.amazon.com/eventbridge/latest/ref/events-structure.html
ScheduledEvent = TypedDict("ScheduledEvent", {"source": str, "detail-type": str, "time": str})


class BatchItemFailure(TypedDict):
    """A message that SQS keeps."""

    itemIdentifier: str


class BatchResponse(TypedDict):
    """The messages that SQS keeps; it deletes the others."""

    batchItemFailures: list[BatchItemFailure]


class LambdaContext(Protocol):
    """What we use of the context that Lambda hands over."""

    function_name: str
    memory_limit_in_mb: int
    invoked_function_arn: str
    aws_request_id: str

    def get_remaining_time_in_millis(self) -> int:
        """Until the function is ended."""
        ...


class Working(Protocol):
    """What steps share; its queue is SQS's."""

    @property
    def queue(self) -> MessageQueue:
        """To the next step."""
        ...


Shared = TypeVar("Shared", bound=Working)
Step = Callable[[Shared, Mapping[str, object]], Awaitable[object]]
Run = Callable[[Callable[[Shared], Awaitable[None]]], None]
Pause = Callable[[BaseException, int], timedelta | None]


class ComesAgain(Exception):
    """The message was not worked off, and SQS keeps it."""


def run_batch(
    event: SqsEvent,
    context: LambdaContext,
    run: Run[Shared],
    step: Step[Shared],
    *,
    pause: Pause,
) -> BatchResponse:
    """Work off a batch of messages.

    Args:
        event: of SQS.
        context: of Lambda.
        run: runs on the process's loop with what its steps share.
        step: works off one message's body.
        pause: how long to keep back after a failure, by what it was and how many tries there were; None: for ever.

    Returns:
        The messages that come again.
    """
    deadline_s = time.monotonic() + context.get_remaining_time_in_millis() / 1000

    def handle(event: SqsEvent, context: LambdaContext) -> BatchResponse:
        from aws_lambda_powertools.utilities.batch import (
            AsyncBatchProcessor,
            EventType,
            async_process_partial_response,
        )

        batch = _Batch(run, step, pause, deadline_s)
        in_hand = asyncio.Semaphore(IN_HAND)

        async def work(record: SQSRecord) -> None:
            async with in_hand:
                await asyncio.to_thread(batch.work, record)

        processor = AsyncBatchProcessor(EventType.SQS, raise_on_entire_batch_failure=False)
        return async_process_partial_response(dict(event), work, processor)  # type: ignore[return-value]

    response = observed(handle, event, context)
    publish(counters.take(), function=context.function_name)
    return response


def run_once(event: SqsEvent | ScheduledEvent, context: LambdaContext, work: Callable[[], object]) -> None:
    """Do what a call without messages asks for, such as a schedule's; what it raises makes Lambda try again."""

    def handle(event: object, context: LambdaContext) -> None:
        work()

    observed(handle, event, context)
    publish(counters.take(), function=context.function_name)


def is_batch(event: SqsEvent | ScheduledEvent) -> TypeGuard[SqsEvent]:
    """Whether a queue calls, and no schedule."""
    return "Records" in event


@dataclass(frozen=True)
class _Batch(Generic[Shared]):
    run: Run[Shared]
    step: Step[Shared]
    pause: Pause
    deadline_s: float

    def work(self, record: SQSRecord) -> None:
        """Work off one message; ComesAgain where SQS has to keep it."""
        try:
            self.run(lambda shared: self._work(shared, record))
        except ComesAgain:
            raise
        except Exception as error:
            # Nothing could even be begun, or the queue itself failed: the message comes when its visibility ends.
            reason = error.message if isinstance(error, BonitoError) else type(error).__name__
            logger.error("The message %s stays: %s", record.message_id, reason, exc_info=_unforeseen(error))
            counters.count("MessagesFailed")
            raise ComesAgain from error

    async def _work(self, shared: Shared, record: SQSRecord) -> None:
        queue = shared.queue
        if not isinstance(queue, SqsQueue):
            raise TypeError("The door's queue is not SQS.")
        if self._left_s() < BEGIN_RESERVE_S:
            await self._put_back(queue, record, timedelta(), counted="MessagesOutOfTime")
        ending = asyncio.timeout(max(0.0, self._left_s() - END_RESERVE_S))
        try:
            body = _body(record)
            wait = hold_off(body, now_s=time.time())
            if wait is not None:
                await self._put_back(queue, record, wait, counted="MessagesHeldOff")
            async with ending:
                await self.step(shared, body)
        except ComesAgain:
            raise
        except Exception as error:  # noqa: BLE001 - the one place on AWS that answers for the unexpected
            if ending.expired():
                await self._put_back(queue, record, ENDED_PAUSE, counted="MessagesOutOfTime")
            await self._settle(queue, record, error)
        else:
            counters.count("MessagesDone")

    async def _settle(self, queue: SqsQueue, record: SQSRecord, error: Exception) -> None:
        """Put back what failed, or bury it."""
        kind = error.code if isinstance(error, BonitoError) else type(error).__name__
        pause = self.pause(error, int(record.attributes.approximate_receive_count))
        if pause is not None:
            logger.warning("The message %s comes again: %s", record.message_id, kind, exc_info=_unforeseen(error))
            await self._put_back(queue, record, pause, counted="MessagesPutBack")
        logger.error(
            "The message %s goes to the dead letters: %s", record.message_id, kind, exc_info=_unforeseen(error)
        )
        reason = error.message if isinstance(error, BonitoError) else f"Unforeseen: {type(error).__name__}."
        await queue.bury(record.event_source_arn, record.body, reason=reason, code=kind)
        counters.count("MessagesBuried")

    async def _put_back(self, queue: SqsQueue, record: SQSRecord, pause: timedelta, *, counted: str) -> None:
        """Return a message to its queue; always raises ComesAgain."""
        counters.count(counted)
        try:
            await queue.put_back(record.event_source_arn, record.receipt_handle, pause=pause)
        except BonitoError as error:  # then it comes when the queue's own visibility timeout ends
            logger.warning("The message %s comes again, but not when it should: %s", record.message_id, error.code)
        raise ComesAgain

    def _left_s(self) -> float:
        return self.deadline_s - time.monotonic()


def _unforeseen(error: Exception) -> Exception | None:
    """What the log has to tell the place of; what Bonito raises on purpose explains itself."""
    return None if isinstance(error, BonitoError) else error


def _body(record: SQSRecord) -> Mapping[str, object]:
    try:
        body = json.loads(record.body)
    except (ValueError, RecursionError):
        raise MalformedMessage("The message is no JSON.") from None
    if not isinstance(body, dict):
        raise MalformedMessage("The message is no JSON object.")
    return body
