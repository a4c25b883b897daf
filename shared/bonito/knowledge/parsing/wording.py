"""Numbers in sentences for people."""

from __future__ import annotations

from collections.abc import Sequence

MOST_LISTED = 10


def counted(count: int, noun: str) -> str:
    """`1 page`, `2 pages`, `1,200 pages`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(numbers: Sequence[int]) -> str:
    """Ascending numbers with runs drawn together, `3, 7–9, 12`; only the first ten such parts, then `…`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    parts = ["–".join(str(end) for end in run) for run in runs[:MOST_LISTED]]
    return ", ".join(parts) + (", …" if len(runs) > MOST_LISTED else "")
