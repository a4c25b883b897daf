"""Eventarc: what fake-gcs-server publishes through Pub/Sub is posted to functions as CloudEvents in binary mode."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from concurrent import futures
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.emulators.delivering import Deliveries

KINDS = {
    "OBJECT_FINALIZE": "finalized",
    "OBJECT_DELETE": "deleted",
    "OBJECT_METADATA_UPDATE": "metadataUpdated",
    "OBJECT_ARCHIVE": "archived",
}


@dataclass
class Eventarc:
    """The triggers' state.

    Attributes:
        port: of the Pub/Sub publisher that a storage server is given.
        deliveries: to the functions.
        targets: per bucket the function that its trigger calls.
        published: per kind, bucket, name and generation, set when that was published.
        holding: while it is set, events are kept here instead of delivered.
    """

    port: int = 0
    deliveries: Deliveries = field(default_factory=Deliveries)
    targets: dict[str, str] = field(default_factory=dict)
    published: defaultdict[tuple[str, str, str, str], asyncio.Event] = field(
        default_factory=lambda: defaultdict(asyncio.Event)
    )
    holding: list[tuple[dict[str, str], bytes]] | None = None

    def accept(self, attributes: dict[str, str], data: bytes) -> None:
        """One notification, on the loop."""
        names = ("eventType", "bucketId", "objectId", "objectGeneration")
        kind, bucket, name, generation = (attributes[each] for each in names)
        self.published[kind, bucket, name, generation].set()
        if self.holding is not None:
            self.holding.append((attributes, data))
        else:
            self.deliver(attributes, data)

    def deliver(self, attributes: dict[str, str], data: bytes) -> None:
        """Post it; its name in the subject is written as HTTP headers carry text that is not ASCII."""
        bucket, name, event_id = attributes["bucketId"], attributes["objectId"], uuid.uuid4().hex
        headers = {
            "ce-id": event_id,
            "ce-specversion": "1.0",
            "ce-type": f"google.cloud.storage.object.v1.{KINDS[attributes['eventType']]}",
            "ce-source": f"//storage.googleapis.com/projects/_/buckets/{bucket}",
            "ce-subject": f"objects/{name}".encode().decode("latin-1"),
            "ce-time": json.loads(data)["timeCreated"],
            "ce-bucket": bucket,
            "content-type": "application/json",
        }
        if bucket in self.targets:
            self.deliveries.send(self.targets[bucket], data, lambda attempt: headers)


@asynccontextmanager
async def serving(deliveries: Deliveries) -> AsyncIterator[Eventarc]:
    """A publisher on a port of its own, over gRPC as Google's."""
    import grpc
    from google.pubsub_v1.types import GetTopicRequest, PublishRequest, PublishResponse, Topic

    loop, state = asyncio.get_running_loop(), Eventarc(deliveries=deliveries)

    def publish(data: bytes, context: Any) -> bytes:
        messages = PublishRequest.deserialize(data).messages
        for message in messages:
            loop.call_soon_threadsafe(state.accept, dict(message.attributes), bytes(message.data))
        return PublishResponse.serialize(PublishResponse(message_ids=[uuid.uuid4().hex for _ in messages]))  # type: ignore[no-any-return]

    def topic(data: bytes, context: Any) -> bytes:
        return Topic.serialize(Topic(name=GetTopicRequest.deserialize(data).topic))  # type: ignore[no-any-return]

    def unary(method: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(method, lambda content: content, lambda content: content)

    methods = {"Publish": unary(publish), "GetTopic": unary(topic), "CreateTopic": unary(topic)}
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("google.pubsub.v1.Publisher", methods)])
    state.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield state
    finally:
        await asyncio.to_thread(server.stop(None).wait)
        await deliveries.aclose()
