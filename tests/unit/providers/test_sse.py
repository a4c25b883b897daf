from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonito.providers.sse import DONE, encode
from tests.server_sent_events import Event, EventReader

CASES = [
    pytest.param(b"data: a\n\n", [Event("a")], id="one"),
    pytest.param(b"data: a\r\n\r\n", [Event("a")], id="crlf"),
    pytest.param(b"data: a\r\r", [Event("a")], id="cr"),
    pytest.param(b"data: a\r\n\n", [Event("a")], id="mixed-line-ends"),
    pytest.param(b"data: a\n\r\n", [Event("a")], id="mixed-line-ends-2"),
    pytest.param(b"data:a\n\n", [Event("a")], id="no-space"),
    pytest.param(b"data:  a\n\n", [Event(" a")], id="one-space-is-removed"),
    pytest.param(b"data: a\ndata: b\ndata\n\n", [Event("a\nb\n")], id="many-lines"),
    pytest.param(b"data\n\n", [Event("")], id="empty-data"),
    pytest.param(b": comment\n\ndata: a\n\n", [Event("a")], id="comment"),
    pytest.param(b"data: a\n: comment inside\n\n", [Event("a")], id="comment-inside"),
    pytest.param(b"\n\n\ndata: a\n\n\n\n", [Event("a")], id="empty-lines"),
    pytest.param(b"event: ping\n\ndata: a\n\n", [Event("a")], id="event-without-data-is-none"),
    pytest.param(b"event: delta\ndata: a\n\ndata: b\n\n", [Event("a", "delta"), Event("b")], id="event-names-one"),
    pytest.param(b"id: 7\ndata: a\n\ndata: b\n\n", [Event("a", event_id="7"), Event("b", event_id="7")], id="id-stays"),
    pytest.param(b"id: 7\0\ndata: a\n\n", [Event("a")], id="id-with-nul-is-ignored"),
    pytest.param(b"retry: 10\nfoo: bar\ndata: a\n\n", [Event("a")], id="unknown-fields"),
    pytest.param(b" data: a\ndata: b\n\n", [Event("b")], id="field-names-are-exact"),
    pytest.param(b"\xef\xbb\xbfdata: a\n\n", [Event("a")], id="byte-order-mark"),
    pytest.param("data: é😀漢\n\n".encode(), [Event("é😀漢")], id="multibyte"),
    pytest.param("data: a\u2028b\x85c\n\n".encode(), [Event("a\u2028b\x85c")], id="only-cr-and-lf-end-lines"),
    pytest.param(b"data: \xff\xfe\n\n", [Event("\ufffd\ufffd")], id="not-utf8"),
    pytest.param(b"data: a\n\ndata: unfinished\n", [Event("a")], id="unfinished"),
    pytest.param(b'data: {"a": 1}\n\n' + DONE, [Event('{"a": 1}'), Event("[DONE]")], id="openai"),
    pytest.param(b"data: " + b"x" * 300 + b"\n\ndata: b\n\n", [Event("b")], id="oversized-line"),
    pytest.param(b"data: xxxxxxxx\n" * 30 + b"\ndata: b\n\n", [Event("b")], id="oversized-event"),
    pytest.param(b"x" * 300 + b"\ndata: a\n\ndata: b\n\n", [Event("b")], id="oversized-unknown-field"),
    pytest.param(b"", [], id="nothing"),
]


def read(pieces: list[bytes]) -> list[Event]:
    reader = EventReader(max_event_bytes=200)
    return [event for piece in pieces for event in reader.feed(piece)]


@pytest.mark.parametrize(("stream", "events"), CASES)
def test_a_stream_reads_as_the_standard_says_however_it_is_cut(stream: bytes, events: list[Event]) -> None:
    assert read([stream]) == events
    assert read([stream[index : index + 1] for index in range(len(stream))]) == events
    assert read([part for index in range(0, len(stream), 3) for part in (stream[index : index + 3], b"")]) == events


FIELDS = [b"data: a", b"data:", b"data", b"event: e", b"id: 1", b": c", b"x" * 90]
FRAGMENTS = st.sampled_from([*FIELDS, b"\n", b"\r", b"\r\n", b" ", b"\xc3", b"\xa9", b"\xef\xbb\xbf", "😀".encode()])


@given(st.lists(FRAGMENTS, max_size=40).map(b"".join), st.data())
def test_any_split_of_a_stream_gives_the_same_events(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    whole, cut = EventReader(max_event_bytes=200), EventReader(max_event_bytes=200)
    expected = whole.feed(stream) + whole.finish()
    found = [event for piece in pieces for event in cut.feed(piece)] + cut.finish()

    assert found == expected
    assert cut.oversized == whole.oversized


@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])), max_size=8))
def test_what_is_encoded_is_read_back(texts: list[str]) -> None:
    stream = b"".join(encode(text.encode()) for text in texts)

    assert EventReader().feed(stream) == [Event(text) for text in texts]


def test_an_event_is_complete_with_its_empty_line_and_not_later() -> None:
    reader = EventReader()

    assert reader.feed(b"data: a\r\n\r") == [Event("a")]
    assert reader.feed(b"\ndata: b\n") == []
    assert reader.feed(b"\n") == [Event("b")]


def test_a_stream_without_its_last_empty_line_is_finished() -> None:
    reader = EventReader()

    assert reader.feed(b"data: a\n\ndata: b") == [Event("a")]
    assert reader.finish() == [Event("b")]
    assert reader.finish() == []


def test_an_endless_line_holds_no_memory_and_is_counted_once() -> None:
    reader = EventReader(max_event_bytes=1000)
    for _ in range(100):
        assert reader.feed(b"data: " + b"x" * 500) == []

    assert sum(map(len, reader._line)) < 1000
    assert reader.feed(b"\n\ndata: a\n\n") == [Event("a")]
    assert reader.oversized == 1
