"""Cursors: they lead back to the row they were made of, and whatever fits their pattern is one."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import get_args
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from bonito.console import pagination

MOMENTS = st.integers(0, 2**55).map(lambda microseconds: pagination.EPOCH + timedelta(microseconds=microseconds))


def pattern_of(cursor_type: object) -> re.Pattern[str]:
    metadata = get_args(cursor_type)[1].metadata
    return re.compile(next(item.pattern for item in metadata if hasattr(item, "pattern")).replace("$", r"\Z"))


@given(MOMENTS, st.uuids())
def test_a_place_reads_back(created_at: datetime, row_id: UUID) -> None:
    cursor = pagination.cursor_of(created_at, row_id)

    assert pattern_of(pagination.TimeCursor).match(cursor)
    assert pagination.place_of(cursor) == (created_at, row_id)


@given(st.text())
def test_a_text_reads_back(text: str) -> None:
    text = text.encode(errors="replace").decode()
    cursor = pagination.text_cursor_of(text)

    assert pattern_of(pagination.TextCursor).match(cursor)
    assert pagination.text_of(cursor) == text.replace("\0", "\ufffd")


@given(st.from_regex(pattern_of(pagination.TimeCursor)))
def test_whatever_fits_the_pattern_is_a_place(cursor: str) -> None:
    place = pagination.place_of(cursor)

    assert place is not None
    assert place[0].tzinfo is UTC


@given(st.from_regex(pattern_of(pagination.TextCursor)))
def test_whatever_fits_the_pattern_is_a_text_that_postgres_takes(cursor: str) -> None:
    text = pagination.text_of(cursor)

    assert "\0" not in text
    text.encode()


def test_no_cursor_is_the_first_page() -> None:
    assert pagination.place_of(None) is None
    assert pagination.text_of(None) == ""


@given(st.integers(0, 30), st.integers(1, 10))
def test_pages_hold_every_row_once_and_in_order(count: int, limit: int) -> None:
    rows = list(range(1, count + 1))
    seen: list[int] = []
    after = 0
    while True:
        page = pagination.page_of(
            [row for row in rows if row > after][: limit + 1], limit=limit, show=lambda row: row, cursor=str
        )
        seen += page.items
        if page.next_cursor is None:
            break
        after = int(page.next_cursor)

    assert seen == rows
