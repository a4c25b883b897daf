"""Messages: they survive the way through a queue, and nonsense is refused."""

from __future__ import annotations

import json
from uuid import UUID

import pytest

from bonito.errors import MalformedMessage
from bonito.knowledge.messages import EmbedMessage, IngestMessage, Message, SyncMessage

ONE, TWO = UUID(int=1), UUID(int=2)


@pytest.mark.parametrize(
    "message",
    [
        IngestMessage(ONE, TWO, "a b+%é😀/\n.txt"),
        IngestMessage(ONE, TWO, "a.txt", is_bulk=True),
        EmbedMessage(ONE, TWO, 64, number=2, is_bulk=True),
        SyncMessage(ONE, TWO, retry_failed=True),
    ],
)
def test_a_message_comes_out_as_it_went_in(message: Message) -> None:
    assert type(message).from_json(json.loads(json.dumps(message.to_json()))) == message


def test_what_somebody_waits_for_goes_first_and_first_batches_before_later_ones() -> None:
    order: list[Message] = [
        IngestMessage(ONE, TWO, "dropped"),
        EmbedMessage(ONE, TWO, 0),
        EmbedMessage(ONE, TWO, 9 * 32, number=9),
        IngestMessage(ONE, TWO, "found", is_bulk=True),
        EmbedMessage(ONE, TWO, 0, is_bulk=True),
        EmbedMessage(ONE, TWO, 900 * 32, number=900, is_bulk=True),
    ]
    priorities = [message.to_json()["priority"] for message in order]

    assert priorities == [20, 20, 11, 10, 10, 1]


def test_syncs_of_one_kind_and_base_are_one() -> None:
    first, again = SyncMessage(ONE, TWO).to_json(), SyncMessage(ONE, TWO).to_json()

    assert first["unique"] == again["unique"]
    assert first["unique"] != SyncMessage(ONE, TWO, retry_failed=True).to_json()["unique"]
    assert first["unique"] != SyncMessage(ONE, ONE).to_json()["unique"]


@pytest.mark.parametrize(
    ("kind", "broken"),
    [
        (IngestMessage, {}),
        (IngestMessage, {"org_id": "x", "knowledge_base_id": str(TWO), "path": "a"}),
        (IngestMessage, {"org_id": str(ONE), "knowledge_base_id": str(TWO), "path": ""}),
        (IngestMessage, {"org_id": str(ONE), "knowledge_base_id": 7, "path": "a"}),
        (EmbedMessage, {"org_id": str(ONE), "revision_id": str(TWO), "first_index": -1, "number": 0}),
        (EmbedMessage, {"org_id": str(ONE), "revision_id": str(TWO), "first_index": True, "number": 0}),
        (SyncMessage, {"org_id": str(ONE)}),
    ],
)
def test_nonsense_is_refused(kind: type[IngestMessage | EmbedMessage | SyncMessage], broken: dict[str, object]) -> None:
    with pytest.raises(MalformedMessage):
        kind.from_json(broken)
