"""Pages of a list: `limit` and `cursor` in, `{"items", "next_cursor"}` out; a cursor is the place of the last item."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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

# 24 bytes in base64: a zero byte, 7 of microseconds since 1970 (until the year 4253) and 16 of the id. Whatever fits
# the pattern is a place, so there is nothing to forge: a cursor only says where to go on.
TIME_CURSOR_PATTERN = "^A[A-P][A-Za-z0-9_-]{30}$"
TimeCursor = Annotated[
    str | None, Query(pattern=TIME_CURSOR_PATTERN, description="`next_cursor` of the page before; absent: the first.")
]
NumberCursor = Annotated[
    str | None, Query(pattern="^[1-9][0-9]{0,17}$", description="`next_cursor` of the page before; absent: the first.")
]


class Page(BaseModel, Generic[Item]):
    """One page; `next_cursor` is null on the last."""

    items: list[Item]
    next_cursor: str | None = Field(description="Give it as `cursor` to read on; null: this was the last page.")


@dataclass(frozen=True)
class Place:
    """Where a row stands in a list by creation time; the id decides among rows of one time."""

    created_at: datetime
    id: UUID


def place_of(cursor: str | None) -> Place | None:
    """The place that a cursor names, after which to read on."""
    if cursor is None:
        return None
    raw = base64.urlsafe_b64decode(cursor)
    return Place(EPOCH + timedelta(microseconds=int.from_bytes(raw[:8], "big")), UUID(bytes=raw[8:]))


def cursor_of(created_at: datetime, row_id: UUID) -> str:
    """The cursor that names a row's place."""
    microseconds = (created_at - EPOCH) // timedelta(microseconds=1)
    return base64.urlsafe_b64encode(microseconds.to_bytes(8, "big") + row_id.bytes).decode()


def page_of(
    rows: Sequence[Row], *, limit: int, show: Callable[[Row], Item], cursor: Callable[[Row], str]
) -> Page[Item]:
    """Make a page of rows that were read with `limit + 1`: the one too many tells that there are more."""
    shown = rows[:limit]
    more = len(rows) > limit
    return Page(items=[show(row) for row in shown], next_cursor=cursor(shown[-1]) if more else None)
