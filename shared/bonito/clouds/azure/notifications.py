"""What Event Grid tells of a storage account, in its own schema and as CloudEvents: which keys to look at.

The events are those of "Azure Blob Storage as an Event Grid source"
(https://learn.microsoft.com/azure/event-grid/event-schema-blob-storage).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from bonito.clouds.base import ChangeKind, ObjectChanged
from bonito.errors import MalformedMessage

logger = logging.getLogger(__name__)

SUBJECT = re.compile(r"/blobServices/default/containers/(?P<container>[^/]+)/blobs/(?P<key>.+)", re.DOTALL)
ACCOUNT = re.compile(r"/providers/Microsoft\.Storage/storageAccounts/(?P<account>[^/]+)", re.IGNORECASE)
# No URL parser: Event Grid leaves `#` and `?` of a name as they are (https://github.com/Azure/azure-sdk-for-net/issues/23634).
ADDRESS = re.compile(r"https?://(?P<account>[^./:]+)[^/]*/(?P<container>[^/]+)/(?P<key>.+)", re.DOTALL)

# These only open an empty file; what is written into it is told by FlushWithClose or SftpCommit.
OPENING_APIS = frozenset({"CreateFile", "SftpCreate"})


@dataclass(frozen=True)
class Event:
    """An event in either schema.

    Attributes:
        kind: `eventType`, or `type` of a CloudEvent.
        source: the resource id of the account: `topic`, or `source`.
        subject: names container and blob.
        data: what the service adds.
    """

    kind: str
    source: str
    subject: str
    data: Mapping[str, object]

    @classmethod
    def of(cls, body: Mapping[str, object]) -> Event:
        """Read it; MalformedMessage where it is of neither schema."""
        kind, source = ("type", "source") if "specversion" in body else ("eventType", "topic")
        data = body.get("data")
        if not isinstance(body.get(kind), str) or not isinstance(data, Mapping):
            raise MalformedMessage("The message is no event of Event Grid and no CloudEvent.")
        return cls(str(body[kind]), _text(body, source), _text(body, "subject"), data)


@dataclass(frozen=True)
class Place:
    """Where a blob or a directory lies, in one reading of its name."""

    account: str
    container: str
    key: str

    def changed(self, kind: ChangeKind) -> ObjectChanged:
        """That it is to be looked at; a directory's key ends with a slash."""
        key = f"{self.key.rstrip('/')}/" if kind == "folder" else self.key
        return ObjectChanged("azure_blob", f"{self.account.lower()}/{self.container}", key, kind)


def object_changes(body: Mapping[str, object]) -> list[ObjectChanged]:
    """The keys that an event of Event Grid asks to look at.

    A directory that was renamed or deleted stands for all that is below it, of which Azure tells nothing more: its
    change is of the kind `folder`. Events that mean nothing to us give none and are logged.

    Raises:
        MalformedMessage: the message is no such event, or one about a blob that it does not name.
    """
    event = Event.of(body)
    match event.kind:
        case "Microsoft.Storage.BlobCreated" if not _only_opens(event.data):
            return _at_subject(event, "created")
        case "Microsoft.Storage.BlobDeleted":
            return _at_subject(event, "deleted")
        case "Microsoft.Storage.BlobRenamed":
            return [*_at_source(event, "deleted"), *_at_subject(event, "created")]
        case "Microsoft.Storage.BlobTierChanged" if event.data.get("previousTier") == "Archive":
            return _at_subject(event, "created")
        case "Microsoft.Storage.DirectoryDeleted":
            return _at_subject(event, "folder")
        case "Microsoft.Storage.DirectoryRenamed":
            return [*_at_source(event, "folder"), *_at_subject(event, "folder")]
    logger.info("An event of the kind %.100s asks for nothing.", event.kind)
    return []


def _only_opens(data: Mapping[str, object]) -> bool:
    return data.get("api") in OPENING_APIS and data.get("contentLength") == 0


def _at_subject(event: Event, kind: ChangeKind) -> list[ObjectChanged]:
    """The blob that the subject names, in every reading of its name.

    The subject holds the name as it is, as far as Azure's pages tell; where its address or its escapes may mean
    another one (characters outside of the basic plane were seen lost in subjects), the store decides on both.
    """
    subject = SUBJECT.fullmatch(event.subject)
    if subject is None:
        raise MalformedMessage("The event's subject names no blob.", param="subject")
    address = ADDRESS.fullmatch(_text(event.data, "destinationUrl") or _text(event.data, "url"))
    owner = ACCOUNT.search(event.source) or address
    if owner is None:
        raise MalformedMessage("The event names no storage account.", param="topic")
    keys = [subject["key"], unquote(subject["key"])]
    if address is not None and address["key"] != subject["key"]:
        keys.append(unquote(address["key"]))
    return [Place(owner["account"], subject["container"], key).changed(kind) for key in dict.fromkeys(keys)]


def _at_source(event: Event, kind: ChangeKind) -> list[ObjectChanged]:
    """What was renamed, by its address: whether that is escaped is not documented, so both readings."""
    address = ADDRESS.fullmatch(_text(event.data, "sourceUrl"))
    if address is None:
        raise MalformedMessage("The event does not say what was renamed.", param="sourceUrl")
    owner = ACCOUNT.search(event.source) or address
    keys = dict.fromkeys([address["key"], unquote(address["key"])])
    return [Place(owner["account"], address["container"], key).changed(kind) for key in keys]


def _text(values: Mapping[str, object], name: str) -> str:
    value = values.get(name)
    return value if isinstance(value, str) else ""
