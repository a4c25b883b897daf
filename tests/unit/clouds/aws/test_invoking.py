"""Samples become events as Lambda hands them over."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

from bonito.clouds.aws import invoking
from bonito.clouds.aws.invoking import as_event, invoke

EVENTS = Path(__file__).parents[4] / "events" / "aws"


def sample(name: str) -> Any:
    return json.loads((EVENTS / f"{name}.json").read_text())


def test_a_notification_is_wrapped_as_sqs_does() -> None:
    event: Any = as_event(sample("s3-put"), queue="ingest")

    (record,) = event["Records"]
    assert json.loads(record["body"]) == sample("s3-put")
    assert record.keys() == sample("sqs-batch")["Records"][0].keys()
    assert record["eventSourceARN"].endswith(":ingest")


def test_what_lambda_gets_as_it_is_stays_so() -> None:
    for name in ("sqs-batch", "schedule-tick"):
        assert as_event(sample(name), queue="ingest") == sample(name)


def test_a_notification_through_eventbridge_is_no_schedule() -> None:
    event: Any = as_event(sample("eventbridge-object-created"), queue="ingest")

    assert json.loads(event["Records"][0]["body"])["detail-type"] == "Object Created"


def test_a_door_gets_the_event_and_time() -> None:
    door, got = ModuleType("functions.ingest.aws"), []

    def handler(event: object, context: invoking.Context) -> str:
        got.append((event, context.function_name, context.get_remaining_time_in_millis()))
        return "done"

    door.handler = handler  # type: ignore[attr-defined]
    assert invoke(door, sample("schedule-tick")) == "done"
    ((event, name, left_ms),) = got
    assert (event, name) == (sample("schedule-tick"), "ingest")
    assert 800_000 < left_ms <= 900_000
