"""What no event told of: a bucket is listed to its end and compared, by the door that a task or a schedule calls."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import pytest

from tests.functions.gcp.box import Base, Box

pytestmark = pytest.mark.asyncio(loop_scope="module")


NAMES = [f"a/{number:04}.md" for number in range(1000)]
NAMES += ["zz/late.md", "~~/later.md", "ä/largest.md", "日本/資料.md", "😀/last.md"]


async def fill(base: Base) -> None:
    """1,005 objects whose events are missed, all of them."""
    base.box.eventarc.targets.pop(base.bucket.name)
    with ThreadPoolExecutor(8) as threads:
        uploads = [threads.submit(base.bucket.blob(name).upload_from_string, f"This is {name}.") for name in NAMES]
        await asyncio.to_thread(lambda: [upload.result() for upload in uploads])


async def test_1005_objects_with_late_sorting_folders_are_all_sent(box: Box, base: Base) -> None:
    await fill(base)
    ingest = box.tasks.targets.pop("ingest")  # the queue is paused
    box.tasks.tasks.clear()

    await base.sync()

    box.tasks.targets["ingest"] = ingest
    assert {message["path"] for message in box.tasks.tasks["ingest"]} == set(NAMES)


@pytest.mark.exhaustive
async def test_1005_objects_with_late_sorting_folders_are_all_served(box: Box, base: Base) -> None:
    await fill(base)

    status = await base.sync()

    assert (status.status, status.files_total, status.files_failed) == ("done", 1005, 0)
    assert set(await base.served()) == set(NAMES)
    assert await base.counters_are_counts()


async def test_a_sync_makes_good_what_was_missed(box: Box, base: Base) -> None:
    for name in ("kept", "changed", "gone"):
        await base.put(f"{name}.md", f"The {name} file.")
    await box.settle()
    target = box.eventarc.targets.pop(base.bucket.name)
    await base.put("changed.md", "The changed file, newer.")
    await base.put("new.md", "The new file.")
    await base.delete("gone.md")

    status = await base.sync()

    box.eventarc.targets[base.bucket.name] = target
    assert status.status == "done"
    assert await base.served() == {
        "kept.md": "The kept file.",
        "changed.md": "The changed file, newer.",
        "new.md": "The new file.",
    }


async def test_a_bucket_that_is_gone_removes_nothing_and_says_why(box: Box, base: Base) -> None:
    await base.put("kept.md", "The kept file.")
    await box.settle()
    box.eventarc.targets.pop(base.bucket.name)
    await asyncio.to_thread(base.bucket.delete, force=True)

    status = await base.sync()

    assert status.status == "failed"
    assert status.error_message is not None
    assert f"There is no bucket {base.bucket.name}" in status.error_message
    assert await base.served() == {"kept.md": "The kept file."}


async def test_cloud_schedulers_call_asks_for_what_is_due(box: Box, base: Base) -> None:
    change = "UPDATE knowledge_bases SET {} WHERE id = %s RETURNING id"
    await base.rows(change.format("sync_schedule = '*/5 * * * *'"), base.id)
    await base.rows(change.format("next_sync_at = now() - interval '1 minute'"), base.id)
    box.eventarc.targets.pop(base.bucket.name)
    await base.put("missed.md", "The missed file.")

    async with aiohttp.ClientSession() as http, http.post(box.functions["tick"].url, data=b"") as response:
        assert response.status == 204
    await box.settle()

    assert await base.served() == {"missed.md": "The missed file."}


async def test_two_syncs_at_once_end_as_one(box: Box, base: Base) -> None:
    for number in range(5):
        await base.put(f"{number}.md", f"File {number}.")
    messages = [{"org_id": str(base.org_id), "knowledge_base_id": str(base.id)}] * 4

    await asyncio.gather(*(box.send("sync", json.loads(json.dumps(message))) for message in messages))
    await box.settle()

    assert len(await base.served()) == 5
    assert await base.rows("SELECT count(*) FROM kb_syncs WHERE status <> 'done'") == [(0,)]
