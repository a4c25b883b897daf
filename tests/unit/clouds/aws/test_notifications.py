"""Notifications of S3: what each sample says, and what no sender sends."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonito.clouds import counters
from bonito.clouds.aws.notifications import object_changes
from bonito.clouds.base import ObjectChanged
from bonito.errors import MalformedMessage

EVENTS = Path(__file__).parents[4] / "events" / "aws"
SAMPLES = sorted(path.with_suffix("").with_suffix(".json") for path in EVENTS.glob("*.golden.json"))


def of_s3(key: str, name: str = "ObjectCreated:Put") -> dict[str, Any]:
    s3 = {"bucket": {"name": "docs"}, "object": {"key": key}}
    return {"Records": [{"eventSource": "aws:s3", "eventName": name, "s3": s3}]}


def of_eventbridge(key: str) -> dict[str, Any]:
    detail = {"bucket": {"name": "docs"}, "object": {"key": key}}
    return {"detail-type": "Object Created", "source": "aws.s3", "detail": detail}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_reads_as_its_golden_file(sample: Path) -> None:
    body, golden = json.loads(sample.read_text()), json.loads(sample.with_suffix(".golden.json").read_text())

    if isinstance(golden, str):
        with pytest.raises(MalformedMessage) as raised:
            object_changes(body)
        assert raised.value.code == golden
    else:
        assert [dataclasses.asdict(change) for change in object_changes(body)] == golden


def test_every_sample_of_a_notification_is_documented() -> None:
    documented = (EVENTS.parent / "README.md").read_text()

    assert [path.name for path in SAMPLES if f"`{path.name}`" not in documented] == []


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=200))
def test_every_key_is_decoded_exactly_once(key: str) -> None:
    assert object_changes(of_s3(quote_plus(key, safe="/"))) == [ObjectChanged("s3", "docs", key, "created")]
    assert object_changes(of_eventbridge(key)) == [ObjectChanged("s3", "docs", key, "created")]


@pytest.mark.parametrize("key", ["a%00b", "x" * 1025, quote_plus("é" * 513)])
def test_a_key_that_no_document_can_have_means_nothing(key: str) -> None:
    assert object_changes(of_s3(key)) == []


def test_half_of_a_surrogate_pair_is_no_key() -> None:
    assert object_changes(of_eventbridge("\ud83d")) == []


def test_what_is_ignored_is_counted() -> None:
    counters.take()
    object_changes(of_s3("a", name="ObjectAcl:Put"))
    object_changes({"Event": "s3:TestEvent"})
    object_changes(of_s3("a"))

    assert counters.take() == {"IgnoredNotifications": 2}
    assert counters.take() == {}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"Records": {}},
        {"Records": [None]},
        {"Records": [{"eventSource": "aws:s3"}]},
        {"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put"}]},
        {"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": []}]},
        {"Records": [{"eventName": "ObjectCreated:Put"}]},
        {"detail-type": 3},
        {"detail-type": "Object Created"},
        {"detail-type": "Object Created", "source": "aws.s3"},
        {"TopicArn": "t"},
        {"TopicArn": "t", "Type": "Notification"},
        {"TopicArn": "t", "Type": "Notification", "Message": "{"},
        {"TopicArn": "t", "Type": "Notification", "Message": "[]"},
        {"TopicArn": "t", "Type": "Notification", "Message": '{"TopicArn": "t"}'},
        of_s3("%FF"),
        of_s3(""),
    ],
    ids=str,
)
def test_what_no_sender_sends_is_malformed(body: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessage):
        object_changes(body)


Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


@given(
    st.dictionaries(
        st.sampled_from(["Records", "TopicArn", "Type", "Message", "detail-type", "source", "detail", "Event"]), Json
    )
)
def test_nothing_else_ever_comes_out_than_changes_or_a_malformed_message(body: dict[str, Any]) -> None:
    with contextlib.suppress(MalformedMessage):
        assert all(isinstance(change, ObjectChanged) for change in object_changes(body))
