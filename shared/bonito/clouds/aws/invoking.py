"""Calls a door of AWS as Lambda does, for a person at a terminal and for tests."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType

from bonito.clouds.aws.doors import SqsRecord

REGION, ACCOUNT = "us-east-1", "000000000000"
TIMEOUT_S = 900


@dataclass
class Context:
    """A LambdaContext of a function that has as long as Lambda gives at most."""

    function_name: str
    memory_limit_in_mb: int = 1024
    aws_request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    invoked_function_arn: str = ""
    _end_s: float = field(default_factory=lambda: time.monotonic() + TIMEOUT_S)

    def __post_init__(self) -> None:
        self.invoked_function_arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{self.function_name}"

    def get_remaining_time_in_millis(self) -> int:
        """Until the function would be ended."""
        return max(0, round((self._end_s - time.monotonic()) * 1000))


def invoke(door: ModuleType, event: Mapping[str, object]) -> object:
    """Call a door's handler.

    Args:
        door: such as `functions.ingest.aws`.
        event: a whole event of Lambda, or the body of one message, which is wrapped as SQS would.

    Returns:
        What the handler answers.
    """
    name = door.__name__.split(".")[-2]
    return door.handler(as_event(event, queue=name), Context(function_name=name))


def as_event(event: Mapping[str, object], *, queue: str) -> Mapping[str, object]:
    """The event as Lambda gets it, whatever of it was given."""
    records = event.get("Records")
    of_queue = isinstance(records, list) and all(
        isinstance(record, Mapping) and record.get("eventSource") == "aws:sqs" for record in records
    )
    if of_queue or event.get("source") in {"aws.events", "aws.scheduler"}:
        return event
    return {"Records": [_record(json.dumps(event), queue)]}


def _record(body: str, queue: str) -> SqsRecord:
    now_ms = str(round(time.time() * 1000))
    return {
        "messageId": str(uuid.uuid4()),
        "receiptHandle": "none",
        "body": body,
        "attributes": {
            "ApproximateReceiveCount": "1",
            "SentTimestamp": now_ms,
            "SenderId": ACCOUNT,
            "ApproximateFirstReceiveTimestamp": now_ms,
        },
        "messageAttributes": {},
        "md5OfBody": hashlib.md5(body.encode(), usedforsecurity=False).hexdigest(),
        "eventSource": "aws:sqs",
        "eventSourceARN": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue}",
        "awsRegion": REGION,
    }
