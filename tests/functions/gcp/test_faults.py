"""Functions that are killed in the middle of their work: messages come again, and nothing is lost or left over."""

from __future__ import annotations

import asyncio

import pytest

from tests.functions.gcp.box import Base, Box

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def answered(box: Box, more: int) -> None:
    """Return when so many more deliveries were answered, or none is on its way."""
    deliveries = (box.eventarc.deliveries, box.tasks.deliveries)
    enough = sum(len(each.answers) for each in deliveries) + more
    while sum(len(each.answers) for each in deliveries) < enough and any(each.is_busy for each in deliveries):
        await asyncio.sleep(0.01)


async def test_killed_functions_lose_nothing(box: Box, base: Base) -> None:
    box.tasks.dead.clear()
    texts = {f"{number}.md": f"Reading {number} of the harbour." for number in range(30)}
    for path, text in texts.items():
        await base.put(path, text)
    for victim in ("notified", "embed", "notified", "embed"):
        await answered(box, 6)
        box.functions[victim].kill()
    await base.delete("0.md")
    await box.settle()

    assert await base.served() == {path: text for path, text in texts.items() if path != "0.md"}
    assert await base.counters_are_counts()
    assert await base.rows("SELECT count(*) FROM kb_revisions WHERE status = 'building'") == [(0,)]
    assert {status for status, _ in (await base.documents()).values()} == {"ready"}
    assert box.tasks.dead == []
    assert box.tasks.deliveries.dropped == box.eventarc.deliveries.dropped == []
