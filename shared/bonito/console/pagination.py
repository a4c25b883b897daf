"""Pages of a list: `limit` and `cursor` in, `{"items", "next_cursor"}` out; a cursor is the place of the last item."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Generic, TypeVar
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, Field

Item = TypeVar("Item")
Row = TypeVar("Row")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Limit = Annotated[int, Query(ge=1, le=200, description="Items on a page at most.")]
DEFAULT_LIMIT = 50

CURSOR = "`next_cursor` of the page before; absent: the first page."

# Whatever fits a cursor's pattern is a place in the list, so there is nothing to forge: it only says where to go on.
# By creation time: 24 bytes in base64, a zero byte, 7 of microseconds since 1970 (until the year 4253), 16 of the id.
TimeCursor = Annotated[str | None, Query(pattern="^A[A-P][A-Za-z0-9_-]{30}$", description=CURSOR)]
# By a number that grows with every row.
NumberCursor = Annotated[str | None, Query(pattern="^[1-9][0-9]{0,17}$", description=CURSOR)]
# By a unique text: its UTF-8 in base64.
TextCursor = Annotated[
    str | None,
    Query(pattern="^([A-Za-z0-9_-]{4})*([A-Za-z0-9_-]{2,3})?$", max_length=6000, description=CURSOR),
]


class Page(BaseModel, Generic[Item]):
    """One page; `next_cursor` is null on the last."""

    items: list[Item]
    next_cursor: str | None = Field(description="Give it as `cursor` to read on; null: this was the last page.")


def place_of(cursor: str | None) -> tuple[datetime, UUID] | None:
    """The place that a cursor names, after which to read on: a creation time, and the id among rows of one time."""
    if cursor is None:
        return None
    raw = base64.urlsafe_b64decode(cursor)
    return EPOCH + timedelta(microseconds=int.from_bytes(raw[:8], "big")), UUID(bytes=raw[8:])


def cursor_of(created_at: datetime, row_id: UUID) -> str:
    """The cursor that names a row's place."""
    microseconds = (created_at - EPOCH) // timedelta(microseconds=1)
    return base64.urlsafe_b64encode(microseconds.to_bytes(8, "big") + row_id.bytes).decode()


def text_of(cursor: str | None) -> str:
    """The text that a cursor names; the empty one, before all others, for none."""
    raw = base64.urlsafe_b64decode((cursor or "") + "=" * (-len(cursor or "") % 4))
    return raw.decode(errors="replace").replace("\0", "\ufffd")


def text_cursor_of(text: str) -> str:
    """The cursor that names a text."""
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def page_of(
    rows: Sequence[Row], *, limit: int, show: Callable[[Row], Item], cursor: Callable[[Row], str]
) -> Page[Item]:
    """Make a page of rows that were read with `limit + 1`: the one too many tells that there are more."""
    shown = rows[:limit]
    more = len(rows) > limit
    return Page(items=[show(row) for row in shown], next_cursor=cursor(shown[-1]) if more else None)
