"""Schedules: the next time in the base's own time zone, over changes of the clock."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bonito.knowledge.schedule import next_time


@pytest.mark.parametrize(
    ("expression", "timezone", "after", "expected"),
    [
        pytest.param("30 3 * * *", "UTC", "2026-07-01T03:29:59", "2026-07-01T03:30:00", id="today"),
        pytest.param("30 3 * * *", "UTC", "2026-07-01T03:30:00", "2026-07-02T03:30:00", id="strictly-after"),
        pytest.param("0 8 * * 1-5", "Europe/Berlin", "2026-07-03T10:00:00", "2026-07-06T06:00:00", id="weekdays"),
        pytest.param("0 0 * * *", "America/New_York", "2026-01-15T06:00:00", "2026-01-16T05:00:00", id="west"),
        pytest.param("15 12 * * *", "Asia/Kathmandu", "2026-01-15T00:00:00", "2026-01-15T06:30:00", id="45-minutes"),
        pytest.param("0 8 * * *", "Europe/Berlin", "2026-03-28T08:00:00", "2026-03-29T06:00:00", id="clock-forward"),
        pytest.param("0 8 * * *", "Europe/Berlin", "2026-10-24T08:00:00", "2026-10-25T07:00:00", id="clock-back"),
        pytest.param("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00", "2026-03-29T01:00:00", id="skipped-hour"),
        pytest.param("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00", "2026-10-25T00:30:00", id="repeated-hour"),
        pytest.param("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00", "2026-10-26T01:30:00", id="but-once"),
        pytest.param("30 * * * *", "Europe/Berlin", "2026-10-25T00:30:00", "2026-10-25T01:30:00", id="hourly-twice"),
        pytest.param("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T14:45:00", "2026-04-05T15:15:00", id="half-hour"),
    ],
)
def test_the_next_time_is_that_of_the_zone(expression: str, timezone: str, after: str, expected: str) -> None:
    found = next_time(expression, timezone, after=datetime.fromisoformat(after).replace(tzinfo=UTC))

    assert found.astimezone(UTC) == datetime.fromisoformat(expected).replace(tzinfo=UTC)


def test_every_next_time_lies_ahead() -> None:
    moment = datetime(2026, 10, 24, 20, tzinfo=UTC)
    for _ in range(48):
        following = next_time("*/30 * * * *", "Europe/Berlin", after=moment)
        assert following > moment
        moment = following.astimezone(UTC)
