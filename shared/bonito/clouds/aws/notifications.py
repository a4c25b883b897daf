"""What S3 tells of its objects, on the three ways to a queue: straight, through SNS, through EventBridge.

- https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
- https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html
- https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from urllib.parse import unquote_plus

from bonito.clouds import counters
from bonito.clouds.aws.keys import is_storable
from bonito.clouds.base import ChangeKind, ObjectChanged
from bonito.errors import MalformedMessage

logger = logging.getLogger(__name__)

# The beginnings of `eventName`; what follows the colon tells how it came to that. Of what is restored from an archive
# only the end of it makes the object readable.
KINDS: Mapping[str, ChangeKind] = {
    "ObjectCreated:": "created",
    "ObjectRemoved:": "deleted",
    "LifecycleExpiration:": "deleted",
    "ReducedRedundancyLostObject": "unknown",
    "ObjectRestore:Completed": "unknown",
}
DETAIL_TYPES: Mapping[str, ChangeKind] = {
    "Object Created": "created",
    "Object Deleted": "deleted",
    "Object Restore Completed": "unknown",
}

TEST_EVENT = "s3:TestEvent"


def object_changes(body: Mapping[str, object]) -> list[ObjectChanged]:
    """The objects that a message of a queue says to look at, in its order.

    Kinds that mean nothing to us, known or not, give none: they are logged and counted.

    Raises:
        MalformedMessage: it is nothing that S3, SNS or EventBridge sends.
    """
    if body.get("Event") == TEST_EVENT:  # sent once, when somebody sets notifications up
        return _ignore(TEST_EVENT)
    if "Records" in body:
        return _of_s3(body["Records"])
    if "detail-type" in body:
        return _of_eventbridge(body)
    if "TopicArn" in body:
        return _of_sns(body)
    raise MalformedMessage("The message is no notification of S3, SNS or EventBridge, and none of Bonito's own.")


def _of_s3(records: object) -> list[ObjectChanged]:
    if not isinstance(records, list):
        raise MalformedMessage("The notification's Records are no list.", param="Records")
    return [change for record in records for change in _of_record(record)]


def _of_record(record: object) -> list[ObjectChanged]:
    name = _text(record, "eventName").removeprefix("s3:")
    kind = next((kind for beginning, kind in KINDS.items() if name.startswith(beginning)), None)
    if kind is None or _text(record, "eventSource") != "aws:s3":
        return _ignore(name)
    s3 = _member(record, "s3")
    return _change(_text(_member(s3, "bucket"), "name"), _decoded(_text(_member(s3, "object"), "key")), kind)


def _of_eventbridge(body: Mapping[str, object]) -> list[ObjectChanged]:
    """EventBridge's keys are not URL-encoded: https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html."""
    name = _text(body, "detail-type")
    kind = DETAIL_TYPES.get(name)
    if kind is None or _text(body, "source") != "aws.s3":
        return _ignore(name)
    detail = _member(body, "detail")
    return _change(_text(_member(detail, "bucket"), "name"), _text(_member(detail, "object"), "key"), kind)


def _of_sns(body: Mapping[str, object]) -> list[ObjectChanged]:
    """A topic's envelope; without `RawMessageDelivery` the notification is a text within it."""
    kind = _text(body, "Type")
    if kind != "Notification":  # a subscription that a person has to confirm, or one that ended
        return _ignore(f"SNS {kind}")
    try:
        message = json.loads(_text(body, "Message"))
    except ValueError:
        raise MalformedMessage("The topic's Message is no JSON.", param="Message") from None
    if not isinstance(message, dict) or "TopicArn" in message:
        raise MalformedMessage("The topic's Message is no notification.", param="Message")
    return object_changes(message)


def _change(bucket: str, key: str, kind: ChangeKind) -> list[ObjectChanged]:
    if not is_storable(key):
        return _ignore("of a key that no document can have")
    return [ObjectChanged("s3", bucket, key, kind)]


def _ignore(kind: str) -> list[ObjectChanged]:
    logger.info("A notification is acknowledged and means nothing here: %.100s", kind)
    counters.count("IgnoredNotifications")
    return []


def _decoded(key: str) -> str:
    """S3 writes a key as in a query string: a space as `+`, everything unusual as `%` and the bytes of UTF-8."""
    try:
        return unquote_plus(key, errors="strict")
    except UnicodeDecodeError:
        raise MalformedMessage("The object's key is not UTF-8.", param="key") from None


def _member(value: object, name: str) -> Mapping[str, object]:
    found = value.get(name) if isinstance(value, Mapping) else None
    if not isinstance(found, Mapping):
        raise MalformedMessage(f"The notification has no {name}.", param=name)
    return found


def _text(value: object, name: str) -> str:
    found = value.get(name) if isinstance(value, Mapping) else None
    if not isinstance(found, str) or not found:
        raise MalformedMessage(f"The notification has no {name}.", param=name)
    return found
