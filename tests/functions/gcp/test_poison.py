"""Messages that can never be worked off end with their reason, block nobody, and can be brought back."""

from __future__ import annotations

import json
from uuid import uuid4

import aiohttp
import pytest

from tests.emulators.cloud_tasks import dead_body, pushed
from tests.functions.gcp.box import Base, Box

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def post(url: str, content: bytes, **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with aiohttp.ClientSession() as http, http.post(url, data=content, headers=named) as response:
        return response.status


async def test_a_malformed_message_is_kept_with_its_reason_and_done_with(box: Box) -> None:
    box.tasks.dead.clear()
    for step in ("ingest", "embed", "sync"):
        await box.send(step, {"what": "is this"})
    await box.settle()

    reasons = {entry[0]["reason"] for entry in box.tasks.dead}
    assert "The message is no CloudEvent and no push of Pub/Sub." in reasons
    assert {"The message has no org_id."} <= reasons
    assert all(dead_body(entry) == {"what": "is this"} for entry in box.tasks.dead)
    assert box.tasks.deliveries.dropped == []


@pytest.mark.parametrize("content", [b"", b"no json at all", b"\xff\xfe\x00", b'{"message": {"data": "%%"}}'])
async def test_bytes_that_are_no_message_are_kept_as_they_came(box: Box, content: bytes) -> None:
    box.tasks.dead.clear()

    assert await post(box.functions["ingest"].url, content) == 204
    ((attributes, data),) = box.tasks.dead
    assert attributes["code"] == "malformed_message"
    assert data == content.decode(errors="replace").encode()


async def test_an_event_without_an_object_is_kept_with_its_reason(box: Box) -> None:
    box.tasks.dead.clear()
    event = {"ce_id": "1", "ce_source": "//storage", "ce_specversion": "1.0", "content_type": "application/json"}
    event["ce_type"] = "google.cloud.storage.object.v1.finalized"

    assert await post(box.functions["notified"].url, b'{"bucket": "docs"}', **event) == 200
    ((attributes, _),) = box.tasks.dead
    assert attributes["reason"] == "The notification does not name a bucket and an object."


async def test_an_event_of_another_kind_is_acknowledged(box: Box) -> None:
    box.tasks.dead.clear()
    event = {"ce_id": "1", "ce_source": "//audit", "ce_specversion": "1.0", "content_type": "application/json"}
    event["ce_type"] = "google.cloud.audit.log.v1.written"

    assert await post(box.functions["notified"].url, b"{}", **event) == 200
    assert await post(box.functions["ingest"].url, b"{}", **event) == 204
    assert box.tasks.dead == []


async def test_a_poisoned_message_does_not_hold_up_its_neighbours(box: Box, base: Base) -> None:
    box.tasks.dead.clear()
    await box.send("ingest", {"knowledge_base_id": "no id", "path": "x", "org_id": str(uuid4())})
    for number in range(20):
        await base.put(f"{number}.md", f"File {number}.")
    await box.settle()

    assert len(await base.served()) == 20
    assert {entry[0]["code"] for entry in box.tasks.dead} == {"malformed_message"}


async def test_a_document_that_cannot_be_read_says_so_and_is_no_poison(box: Box, base: Base) -> None:
    box.tasks.dead.clear()
    await base.put("broken.pdf", b"%PDF-1.7 and nothing else")
    await base.put("good.md", "The good file.")
    await box.settle()

    status, error = (await base.documents())["broken.pdf"]
    assert (status, bool(error)) == ("error", True)
    assert await base.served() == {"good.md": "The good file."}
    assert box.tasks.dead == []


async def test_a_message_that_never_comes_to_an_end_is_given_up_by_its_count(box: Box, base: Base) -> None:
    box.tasks.dead.clear()
    message = {"org_id": str(base.org_id), "knowledge_base_id": str(base.id), "path": "a.md"}

    assert (
        await post(box.functions["ingest"].url, json.dumps(message).encode(), X_CloudTasks_TaskRetryCount="60") == 204
    )
    ((attributes, data),) = box.tasks.dead
    assert attributes["code"] == "gave_up"
    assert json.loads(data) == message


async def test_a_dead_letter_that_is_pushed_to_its_door_is_worked_off(box: Box, base: Base) -> None:
    box.tasks.dead.clear()
    box.eventarc.targets.pop(base.bucket.name)
    await base.put("a.md", "The file that was given up.")
    message = {"org_id": str(base.org_id), "knowledge_base_id": str(base.id), "path": "a.md"}
    await post(box.functions["ingest"].url, json.dumps(message).encode(), X_CloudTasks_TaskRetryCount="60")
    (letter,) = box.tasks.dead

    assert await post(box.functions["ingest"].url, pushed(letter)) == 204
    await box.settle()

    assert await base.served() == {"a.md": "The file that was given up."}


async def test_queues_that_are_out_of_order_lose_nothing(box: Box, base: Base) -> None:
    box.tasks.refuse = 12  # more than one call's tries

    await base.put("a.md", "The file that came at a bad time.")
    await box.settle()

    assert await base.served() == {"a.md": "The file that came at a bad time."}
