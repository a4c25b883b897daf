"""What Cloud Storage and Pub/Sub send, read as changes of objects.

A change comes as a CloudEvent through Eventarc, or as a Pub/Sub message of a bucket's notification configuration; then
it says everything that matters in its attributes, and its data may be absent (payload format NONE). Names of objects
are plain Unicode in both, never encoded: a percent sign or a plus is one.

- https://cloud.google.com/eventarc/docs/cloudevents-json (CloudEvents, `google.events.cloud.storage.v1`)
- https://cloud.google.com/storage/docs/pubsub-notifications (attributes)
- https://cloud.google.com/pubsub/docs/push (the wrapping of a push)
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import Mapping

from bonito.clouds.base import ChangeKind, ObjectChanged
from bonito.errors import MalformedMessage

logger = logging.getLogger(__name__)

STORAGE_EVENT = "google.cloud.storage.object.v1."
PUBLISHED = "google.cloud.pubsub.topic.v1.messagePublished"

# By the last part of a CloudEvent's type, and by the attribute `eventType` of a notification. An object is archived
# where its bucket keeps old versions: then nothing lies at its name any more, or a newer version does.
KINDS: Mapping[str, ChangeKind] = {
    "finalized": "created",
    "deleted": "deleted",
    "archived": "deleted",
    "metadataUpdated": "unknown",
    "OBJECT_FINALIZE": "created",
    "OBJECT_DELETE": "deleted",
    "OBJECT_ARCHIVE": "deleted",
    "OBJECT_METADATA_UPDATE": "unknown",
}


def object_changes(body: Mapping[str, object]) -> list[ObjectChanged]:
    """The changes that a notification tells of: one, or none where it is of a kind that means nothing to us.

    Args:
        body: a CloudEvent with its attributes and its `data` beside each other, or a Pub/Sub push.

    Raises:
        MalformedMessage: it is neither, or one that does not name its object.
    """
    message = pushed_message(body)
    if message is not None:
        return _notified(message)
    kind = body.get("type")
    if not isinstance(kind, str) or "specversion" not in body:
        raise MalformedMessage("The message is no CloudEvent and no push of Pub/Sub.")
    if not kind.startswith(STORAGE_EVENT) or kind.removeprefix(STORAGE_EVENT) not in KINDS:
        return _unknown(kind)
    data = _mapping(body.get("data"), "data")
    return [_change(KINDS[kind.removeprefix(STORAGE_EVENT)], data.get("bucket"), data.get("name"))]


def pushed_message(body: Mapping[str, object]) -> Mapping[str, object] | None:
    """The Pub/Sub message of a push, or of the CloudEvent that Eventarc makes of one; None where it is neither."""
    if body.get("type") == PUBLISHED:
        body = _mapping(body.get("data"), "data")
    elif "specversion" in body or "message" not in body:
        return None
    return _mapping(body.get("message"), "message")


def own_message(body: Mapping[str, object]) -> Mapping[str, object]:
    """The body, or the message of ours that was pushed in it.

    Raises:
        MalformedMessage: something was pushed that is neither a notification nor JSON.
    """
    message = pushed_message(body)
    if message is None or "eventType" in _attributes(message):
        return body
    return parsed(_data(message))


def parsed(content: bytes) -> Mapping[str, object]:
    """A JSON object; MalformedMessage."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        raise MalformedMessage("The message is not JSON.") from None
    return _mapping(value, "content")


def _notified(message: Mapping[str, object]) -> list[ObjectChanged]:
    attributes = _attributes(message)
    event = attributes.get("eventType")
    if not isinstance(event, str):
        raise MalformedMessage("The Pub/Sub message is no notification of Cloud Storage: it has no eventType.")
    if event not in KINDS:
        return _unknown(event)
    # The old version of what was overwritten is deleted, too: something lies at its name.
    kind = "unknown" if "overwrittenByGeneration" in attributes else KINDS[event]
    return [_change(kind, attributes.get("bucketId"), attributes.get("objectId"))]


def _change(kind: ChangeKind, bucket: object, name: object) -> ObjectChanged:
    if not isinstance(bucket, str) or not bucket or not isinstance(name, str) or not name:
        raise MalformedMessage("The notification does not name a bucket and an object.")
    return ObjectChanged("gcs", bucket, name, kind)


def _unknown(kind: str) -> list[ObjectChanged]:
    logger.warning("An event of an unknown kind is acknowledged and not acted on: %.200s", kind)
    return []


def _attributes(message: Mapping[str, object]) -> Mapping[str, object]:
    return _mapping(message.get("attributes") or {}, "attributes")


def _data(message: Mapping[str, object]) -> bytes:
    data = message.get("data")
    try:
        if isinstance(data, str) and data:
            return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise MalformedMessage("The Pub/Sub message has no data in base64.", param="data")


def _mapping(value: object, name: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise MalformedMessage(f"The message's {name} is no JSON object.", param=name)
    return value
