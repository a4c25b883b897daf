"""A file dropped into a bucket of Cloud Storage is found by search; whatever happens to it afterwards is followed."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.functions.gcp.box import Base, Box

pytestmark = pytest.mark.asyncio(loop_scope="module")

LEAVE = "Employees have twenty days of annual leave."
ODD_NAMES = ["größe 100%.md", "a+b&c=d?e#f.md", "a%20b%2Fc.md", "日本/資料 😀 (1).md", "deep//er/./x.md", "'\"<>.md"]


async def test_a_file_is_searchable_and_follows_its_bucket(box: Box, base: Base) -> None:
    await base.put("hr/leave.md", LEAVE)
    await base.put("it/vpn.md", "The VPN needs a hardware token.")
    await box.settle()
    assert await base.search("how many days of annual leave") == ["hr/leave.md", "it/vpn.md"]

    await base.put("hr/leave.md", "Employees have thirty days of holidays.")
    await box.settle()
    assert (await base.served())["hr/leave.md"] == "Employees have thirty days of holidays."

    await base.put("hr/holidays.md", "Employees have thirty days of holidays.")
    await base.delete("hr/leave.md")
    await box.settle()
    assert sorted(await base.served()) == ["hr/holidays.md", "it/vpn.md"]

    await base.delete("it/vpn.md")
    await base.delete("hr/holidays.md")
    await box.settle()
    assert await base.served() == {}
    assert await base.counters_are_counts()
    assert box.tasks.dead == []


async def test_every_name_arrives_as_it_is(box: Box, base: Base) -> None:
    for name in ODD_NAMES:
        await base.put(name, f"This is the file called {name}.")
    await base.put("folder/", b"")
    await box.settle()

    assert await base.documents() == dict.fromkeys(ODD_NAMES, ("ready", None))


async def test_events_repeated_and_in_any_order_leave_the_newest_state(box: Box, base: Base) -> None:
    box.eventarc.holding = held = []
    await base.put("kept.md", "first")
    await base.put("kept.md", "second")
    await base.put("kept.md", "the third and last")
    await base.put("gone.md", "gone soon")
    await base.delete("gone.md")
    while len(held) < 7:  # the overwritten versions' deletions among them
        await asyncio.sleep(0.01)
    box.eventarc.holding = None
    events = held * 5
    random.Random(7).shuffle(events)
    for event in events:
        box.eventarc.deliver(*event)
    await box.settle()

    assert await base.served() == {"kept.md": "the third and last"}
    assert await base.counters_are_counts()
    assert await base.rows("SELECT count(*) FROM kb_revisions WHERE status = 'building'") == [(0,)]


async def test_a_bucket_shared_by_prefixes_shows_each_base_its_own(box: Box) -> None:
    hr = await box.base(prefix="hr/")
    all_of_it = await box.base(bucket=hr.bucket)

    await hr.put("hr/leave.md", LEAVE)
    await hr.put("it/vpn.md", "The VPN needs a token.")
    await box.settle()

    assert await hr.served() == {"leave.md": LEAVE}
    assert sorted(await all_of_it.served()) == ["hr/leave.md", "it/vpn.md"]


async def test_the_largest_file_is_read_and_one_byte_more_is_not(box: Box, base: Base) -> None:
    limit = 50 * 2**20
    head, tail = b"<html><body><!-- ", b" --><p>The harbour opens at six.</p></body></html>"
    largest = head + b"x" * (limit - len(head) - len(tail)) + tail

    await base.put("largest.html", largest)
    await base.put("larger.html", largest + b"\n")
    await box.settle()

    assert await base.served() == {"largest.html": "The harbour opens at six."}
    status, error = (await base.documents())["larger.html"]
    assert status == "error"
    assert error is not None
    assert "at most 50.0 MiB" in error


async def test_a_bucket_that_nobody_registered_is_no_failure(box: Box, base: Base) -> None:
    other = await asyncio.to_thread(box.storage.bucket, f"nobodys-{base.id.hex[:8]}")
    box.eventarc.targets[other.name] = box.functions["notified"].url
    before = len(box.eventarc.deliveries.answers)

    await asyncio.to_thread(other.blob("a.md").upload_from_string, b"x")
    while not (found := box.eventarc.deliveries.answers[before:]):
        await asyncio.sleep(0.01)

    assert {status for _, _, status in found} == {200}
