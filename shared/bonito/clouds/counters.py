"""What a process counts on the way, to be written out by its door as its cloud takes metrics."""

from __future__ import annotations

from collections import Counter

_COUNTS: Counter[str] = Counter()


def count(name: str, number: int = 1) -> None:
    """Add to a count; names are in CamelCase, as metrics are named."""
    _COUNTS[name] += number


def take() -> dict[str, int]:
    """What was counted since the last time, and begin anew."""
    taken = dict(_COUNTS)
    _COUNTS.clear()
    return taken
