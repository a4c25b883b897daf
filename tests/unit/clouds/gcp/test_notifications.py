"""Notifications of Cloud Storage: samples as documented, and what must not be taken for one."""

from __future__ import annotations

import base64
import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from bonito.clouds.base import ObjectChanged
from bonito.clouds.gcp.notifications import object_changes, own_message
from bonito.errors import MalformedMessage

EVENTS = Path(__file__).parents[4] / "events" / "gcp"
SAMPLES = sorted(path for path in EVENTS.glob("*.json") if not path.stem.endswith(".golden"))
STORED = {"specversion": "1.0", "type": "google.cloud.storage.object.v1.finalized", "id": "1", "source": "//x"}


def push(data: bytes | None, **attributes: str) -> dict[str, Any]:
    encoded = {} if data is None else {"data": base64.b64encode(data).decode()}
    return {"message": {"messageId": "1", "attributes": attributes, **encoded}, "subscription": "projects/p/s"}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_sample_reads_as_its_golden_file(sample: Path) -> None:
    changes = object_changes(json.loads(sample.read_text()))

    golden = json.loads(sample.with_suffix(".golden.json").read_text())
    assert [dataclasses.asdict(change) for change in changes] == golden


@pytest.mark.parametrize(
    "name", ["a+b.txt", "100%25.txt", "caf%C3%A9.md", "größe/日本 😀.md", " ", "a//b", "..", "x\ty"]
)
@pytest.mark.parametrize("is_push", [False, True])
def test_a_name_is_what_it_is_and_nothing_encoded(name: str, is_push: bool) -> None:
    if is_push:
        body = push(None, eventType="OBJECT_FINALIZE", bucketId="docs", objectId=name)
    else:
        body = {**STORED, "data": {"bucket": "docs", "name": name}}

    assert object_changes(body) == [ObjectChanged("gcs", "docs", name, "created")]


def test_an_unknown_kind_is_no_change_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert object_changes({**STORED, "type": "google.cloud.storage.object.v1.frozen", "data": "anything"}) == []
        assert object_changes(push(b"no matter", eventType="OBJECT_FROZEN")) == []

    assert len(caplog.records) == 2


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"type": "google.cloud.storage.object.v1.finalized"}, id="no-cloudevent"),
        pytest.param({"specversion": "1.0", "type": 7}, id="type-is-no-text"),
        pytest.param({**STORED, "data": None}, id="no-data"),
        pytest.param({**STORED, "data": "text"}, id="data-is-text"),
        pytest.param({**STORED, "data": {"bucket": "docs"}}, id="no-name"),
        pytest.param({**STORED, "data": {"bucket": "docs", "name": ""}}, id="empty-name"),
        pytest.param({**STORED, "data": {"bucket": 3, "name": "a"}}, id="bucket-is-no-text"),
        pytest.param({"message": None}, id="no-message"),
        pytest.param({"message": {"attributes": []}}, id="attributes-are-a-list"),
        pytest.param({"message": {"attributes": {"eventType": "OBJECT_FINALIZE"}}}, id="push-without-object"),
        pytest.param(push(b"{}"), id="push-without-event-type"),
        pytest.param({**STORED, "type": "google.cloud.pubsub.topic.v1.messagePublished", "data": 1}, id="published"),
    ],
)
def test_nonsense_is_malformed(body: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessage):
        object_changes(body)


def test_our_own_message_is_taken_out_of_a_push_however_it_comes() -> None:
    ours = {"org_id": "o", "knowledge_base_id": "k", "path": "größe.md"}
    pushed = push(json.dumps(ours).encode())
    published = {**STORED, "type": "google.cloud.pubsub.topic.v1.messagePublished", "data": pushed}

    assert own_message(ours) == ours
    assert own_message(pushed) == ours
    assert own_message(published) == ours


def test_a_notification_stays_what_it_is() -> None:
    notified = push(b"{}", eventType="OBJECT_DELETE", bucketId="docs", objectId="a")
    event = {**STORED, "data": {"bucket": "docs", "name": "a"}}

    assert own_message(notified) is notified
    assert own_message(event) is event


@pytest.mark.parametrize("data", [b"", b"no json", b"[1]", b"\xff", b"[" * 100_000])
def test_a_push_of_nonsense_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        own_message(push(data))


def test_a_push_whose_data_is_no_base64_is_malformed() -> None:
    with pytest.raises(MalformedMessage):
        own_message({"message": {"data": "%%%"}})
