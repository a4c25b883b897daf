"""Event Grid's events, as documented, read as the keys to look at."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bonito.clouds.azure.notifications import object_changes
from bonito.errors import MalformedMessage

EVENTS = Path(__file__).parents[4] / "events" / "azure"
SAMPLES = sorted(path for path in EVENTS.glob("*.json") if not path.stem.endswith(".golden"))


def read(path: Path) -> list[Mapping[str, Any]]:
    body = json.loads(path.read_text())
    return body if isinstance(body, list) else [body]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_sample_reads_as_its_golden_file(sample: Path) -> None:
    changes = [dataclasses.asdict(change) for event in read(sample) for change in object_changes(event)]

    golden = sample.with_suffix(".golden.json")
    if os.environ.get("BONITO_TEST_GOLDEN") == "write":
        golden.write_text(json.dumps(changes, indent=2, ensure_ascii=False) + "\n")
    assert changes == json.loads(golden.read_text())


def test_there_is_a_sample_of_each_documented_kind() -> None:
    kinds = {
        str(event.get("eventType") or event.get("type")).split(".")[-1] for path in SAMPLES for event in read(path)
    }

    assert kinds == {
        "AsyncOperationInitiated",
        "BlobCreated",
        "BlobDeleted",
        "BlobInventoryPolicyCompleted",
        "BlobRenamed",
        "BlobTierChanged",
        "DirectoryCreated",
        "DirectoryDeleted",
        "DirectoryRenamed",
        "SubscriptionValidationEvent",
    }


def created(**replaced: object) -> dict[str, object]:
    (event,) = read(EVENTS / "blob_created.json")
    return {**event, **replaced}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({}, id="empty"),
        pytest.param({"Records": [{"eventSource": "aws:s3"}]}, id="of-another-cloud"),
        pytest.param({"eventType": "Microsoft.Storage.BlobCreated"}, id="no-data"),
        pytest.param(created(eventType=7), id="kind-is-no-text"),
        pytest.param(created(subject="/blobServices/default/containers/handbook"), id="subject-of-a-container"),
        pytest.param(created(subject=None), id="no-subject"),
        pytest.param(created(topic="", data={"url": "nonsense"}), id="no-account"),
        pytest.param(created(eventType="Microsoft.Storage.BlobRenamed"), id="renamed-without-a-source"),
    ],
)
def test_nonsense_is_malformed(body: dict[str, object]) -> None:
    with pytest.raises(MalformedMessage):
        object_changes(body)


def test_the_account_is_that_of_the_address_where_the_topic_is_a_custom_one() -> None:
    topic = "/subscriptions/s/resourceGroups/r/providers/Microsoft.EventGrid/topics/own"

    (change,) = object_changes(created(topic=topic))

    assert change.bucket == "bonitodocs/handbook"


def test_an_accounts_name_is_matched_whatever_its_case_in_the_topic() -> None:
    topic = "/subscriptions/s/resourceGroups/r/providers/microsoft.storage/storageaccounts/BonitoDocs"

    (change,) = object_changes(created(topic=topic))

    assert change.bucket == "bonitodocs/handbook"


def test_an_unknown_kind_is_logged_without_the_names_in_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert object_changes(created(eventType="Microsoft.Storage.BlobPainted")) == []

    assert caplog.messages == ["An event of the kind Microsoft.Storage.BlobPainted asks for nothing."]
