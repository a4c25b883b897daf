"""AWS in a box: moto's S3 and SQS over HTTP, functions under Lambda's runtime client, and what AWS does in between.

What is played here is the event source mapping, as AWS documents it: up to ten messages a batch, deleted when the
function returns, left to the visibility timeout when it fails, and with ReportBatchItemFailures only those left that it
names; an answer that cannot be read fails the whole batch.
https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
"""

from __future__ import annotations

import itertools
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from tests.emulators.lambda_runtime import ACCOUNT, REGION, Environment, Invocation

BATCH = 10
IDLE_S = 0.1


@dataclass
class Queue:
    """A queue and its dead letters."""

    sqs: Any
    name: str
    url: str
    arn: str
    dead_url: str

    def depth(self) -> int:
        """Messages that wait, are delayed, or are in somebody's hands."""
        answer = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["All"])["Attributes"]
        kinds = ("ApproximateNumberOfMessages", "NotVisible", "Delayed")
        names = [kinds[0], kinds[0] + kinds[1], kinds[0] + kinds[2]]
        return sum(int(answer[name]) for name in names)

    def send(self, body: object) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        self.sqs.send_message(QueueUrl=self.url, MessageBody=text)

    def dead_letters(self) -> list[tuple[str, str]]:
        """Body and reason of each; they are taken out."""
        found: list[tuple[str, str]] = []
        asked = {"QueueUrl": self.dead_url, "MaxNumberOfMessages": 10, "MessageAttributeNames": ["All"]}
        while messages := self.sqs.receive_message(**asked).get("Messages", []):
            for each in messages:
                reason = each.get("MessageAttributes", {}).get("reason", {}).get("StringValue", "")
                found.append((each["Body"], reason))
                self.sqs.delete_message(QueueUrl=self.dead_url, ReceiptHandle=each["ReceiptHandle"])
        return found


@dataclass
class Function:
    """A function and its warm environments."""

    make: Callable[[], Environment]
    free: list[Environment] = field(default_factory=list)
    made: list[Environment] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def invoke(self, event: Any) -> Invocation:
        with self.lock:
            environment = self.free.pop() if self.free else None
            if environment is None:
                environment = self.make()
                self.made.append(environment)
        call = environment.invoke(event)
        with self.lock:
            self.free.append(environment)
        return call

    def close(self) -> None:
        for environment in self.made:
            environment.close()


class Mapped:
    """An event source mapping from a queue to a function, with as many pollers as invocations at once."""

    def __init__(self, queue: Queue, function: Function, *, concurrency: int) -> None:
        self._queue, self._function = queue, function
        self._is_open = threading.Event()
        self._is_open.set()
        self.errors: list[Mapping[str, Any]] = []
        self._pollers = [threading.Thread(target=self._poll, daemon=True) for _ in range(concurrency)]
        for poller in self._pollers:
            poller.start()

    def stop(self) -> None:
        self._is_open.clear()
        for poller in self._pollers:
            poller.join()

    def _poll(self) -> None:
        sqs = self._queue.sqs
        while self._is_open.is_set():
            answer = sqs.receive_message(
                QueueUrl=self._queue.url,
                MaxNumberOfMessages=BATCH,
                AttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
            messages = answer.get("Messages", [])
            if not messages:
                time.sleep(IDLE_S)
                continue
            call = self._function.invoke({"Records": [self._record(each) for each in messages]})
            kept = self._kept(call, {each["MessageId"] for each in messages})
            for each in messages:
                if each["MessageId"] not in kept:
                    sqs.delete_message(QueueUrl=self._queue.url, ReceiptHandle=each["ReceiptHandle"])

    def _record(self, message: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": message["Attributes"],
            "messageAttributes": {},
            "md5OfBody": message["MD5OfBody"],
            "eventSource": "aws:sqs",
            "eventSourceARN": self._queue.arn,
            "awsRegion": REGION,
        }

    def _kept(self, call: Invocation, everything: set[str]) -> set[str]:
        if call.error is not None:
            self.errors.append(call.error)
            return everything
        try:
            named = {item["itemIdentifier"] for item in call.value["batchItemFailures"]}
        except (KeyError, TypeError):
            return everything
        return named if named <= everything else everything


class Box:
    """S3, SQS, functions and mappings; everything ends with the box."""

    def __init__(self, root: Path, logs: Path) -> None:
        """`root` is the folder that functions run in, `logs` takes what they print."""
        import boto3
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        port = _free_port()
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
        self._server.start()
        self.url, self._root, self.logs = f"http://127.0.0.1:{port}", root, logs
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        self.s3 = boto3.client("s3", region_name=REGION, endpoint_url=self.url, **keys)
        self.sqs = boto3.client("sqs", region_name=REGION, endpoint_url=self.url, **keys)
        self._functions: list[Function] = []
        self.mappings: list[Mapped] = []

    def close(self) -> None:
        for mapping in self.mappings:
            mapping.stop()
        for function in self._functions:
            function.close()
        self.s3.close()
        self.sqs.close()
        self._server.stop()

    def queue(self, name: str, *, visibility_s: int = 60, max_receive: int = 100) -> Queue:
        dead_url = self.sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
        target = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}-dead"
        policy = json.dumps({"deadLetterTargetArn": target, "maxReceiveCount": max_receive})
        attributes = {"VisibilityTimeout": str(visibility_s), "RedrivePolicy": policy}
        url = self.sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        return Queue(self.sqs, name, url, f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}", dead_url)

    def function(
        self, handler: str, environ: Mapping[str, str], *, timeout_s: float = 60.0, is_traced: bool = False
    ) -> Function:
        """A function by its handler's dotted name; its own SDK finds the box by AWS_ENDPOINT_URL."""
        log = self.logs / f"{handler}.log"

        def make() -> Environment:
            own = {"AWS_ENDPOINT_URL": self.url, **environ}
            return Environment(handler, root=self._root, environ=own, timeout_s=timeout_s, log=log, is_traced=is_traced)

        self._functions.append(Function(make))
        return self._functions[-1]

    def map(self, queue: Queue, function: Function, *, concurrency: int = 1) -> Mapped:
        self.mappings.append(Mapped(queue, function, concurrency=concurrency))
        return self.mappings[-1]

    def bucket(self, name: str, queue: Queue) -> None:
        """A bucket that tells a queue what is made and removed."""
        self.s3.create_bucket(Bucket=name)
        events = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
        notified = {"QueueArn": queue.arn, "Events": events}
        self.s3.put_bucket_notification_configuration(
            Bucket=name, NotificationConfiguration={"QueueConfigurations": [notified]}
        )


@contextmanager
def running(root: Path, logs: Path) -> Iterator[Box]:
    """A box, whose S3 tells of objects as the real one does."""
    with _real_records():
        box = Box(root, logs)
        try:
            yield box
        finally:
            box.close()


@contextmanager
def _real_records() -> Iterator[None]:
    """moto's records lack a sequencer and the version, and encode slashes too."""
    from moto.s3 import notifications

    plain, numbers = notifications._get_s3_event, itertools.count(0x617F08299329D189)

    def real(event_name: str, bucket: Any, key: Any, notification_id: str) -> dict[str, Any]:
        event: dict[str, Any] = plain(event_name, bucket, key, notification_id)
        described = event["Records"][0]["s3"]["object"]
        described["key"] = quote_plus(key.name, safe="/")
        described["sequencer"] = f"{next(numbers):018X}"
        if bucket.is_versioned:
            described["versionId"] = key.version_id
        return event

    notifications._get_s3_event = real
    try:
        yield
    finally:
        notifications._get_s3_event = plain


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port: int = opened.getsockname()[1]
        return port
