"""A file put into a bucket is found, follows the bucket from then on, and no fault of one harms another."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest

from bonito.knowledge.messages import SyncMessage
from tests.functions.aws.conftest import ROOT, Deployment, Shelf, register
from tests.integration.conftest import Database

FIFTY_MIB = 50 * 2**20
EVENTS = ROOT / "events" / "aws"


async def test_a_file_is_found_and_follows_its_bucket(shelf: Shelf) -> None:
    await shelf.put("hr/leave.txt", "Employees have twenty days of paid leave each year.")
    await shelf.put("hr/travel.md", "# Travel\n\nTrains are booked by the office.")
    await shelf.settle()

    assert set(await shelf.served()) == {"hr/leave.txt", "hr/travel.md"}
    assert (await shelf.search("How many days of paid leave?"))[0] == "hr/leave.txt"

    await shelf.put("hr/leave.txt", "Employees have thirty days of paid leave each year.")
    await shelf.settle()
    assert (await shelf.served())["hr/leave.txt"] == "Employees have thirty days of paid leave each year."

    await shelf.rename("hr/leave.txt", "hr/new/leave.txt")
    await shelf.settle()
    assert set(await shelf.served()) == {"hr/new/leave.txt", "hr/travel.md"}

    await shelf.remove("hr/travel.md")
    await shelf.settle()
    assert set(await shelf.served()) == {"hr/new/leave.txt"}
    assert await shelf.search("Who books trains?") == ["hr/new/leave.txt"]


async def test_odd_keys_are_read_and_placeholders_are_not(shelf: Shelf) -> None:
    keys = ["a b+c.txt", "100%.txt", "%41.txt", "größe/😀 (copy).txt", "a&b=c?d#e.txt", "semi;colon,comma.txt"]
    for number, key in enumerate(keys):
        await shelf.put(key, f"This is document number {number}.")
    await shelf.put("folder/", b"")
    await shelf.settle()

    assert await shelf.served() == {key: f"This is document number {number}." for number, key in enumerate(keys)}
    for key in keys:
        await shelf.remove(key)
    await shelf.settle()
    assert await shelf.served() == {}


async def test_a_multipart_upload_is_one_document(shelf: Shelf) -> None:
    where = {"Bucket": shelf.bucket, "Key": "large.txt"}
    upload = shelf.s3.create_multipart_upload(**where)["UploadId"]
    parts = [b" " * (5 * 2**20) + b"The first part. ", b"The last part."]
    done = [
        {
            "PartNumber": number,
            "ETag": shelf.s3.upload_part(**where, UploadId=upload, PartNumber=number, Body=part)["ETag"],
        }
        for number, part in enumerate(parts, start=1)
    ]
    shelf.s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": done})
    await shelf.settle()

    assert await shelf.served() == {"large.txt": "The first part. The last part."}


async def test_the_largest_document_is_read_and_one_a_byte_above_is_not(shelf: Shelf) -> None:
    await shelf.put("largest.txt", b"The largest document." + b" " * (FIFTY_MIB - 21))
    await shelf.put("above.txt", b"The largest document." + b" " * (FIFTY_MIB - 20))
    await shelf.settle()

    assert await shelf.served() == {"largest.txt": "The largest document."}
    status, message = (await shelf.documents())["above.txt"]
    assert status == "error"
    assert message == "The file has 50.0 MiB; at most 50.0 MiB are read."


async def test_the_same_event_five_times_is_one_document(shelf: Shelf) -> None:
    await shelf.put("once.txt", "Only once.")
    record = {
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": shelf.bucket}, "object": {"key": "once.txt"}},
    }
    for _ in range(4):
        shelf.deployment.ingest.send({"Records": [record]})
    await shelf.settle()

    assert await shelf.served() == {"once.txt": "Only once."}
    revisions = await shelf.rows("SELECT status FROM kb_revisions WHERE knowledge_base_id = %(base)s")
    assert revisions == [("served",)]


async def test_poison_ends_among_the_dead_letters_with_its_reason_and_its_neighbours_do_not(shelf: Shelf) -> None:
    ingest = shelf.deployment.ingest
    ingest.send("not json")
    ingest.send({"hello": "world"})
    ingest.send({"org_id": "nobody", "knowledge_base_id": "nothing", "path": "x"})
    ingest.send(json.loads((EVENTS / "s3-unknown-kind.json").read_text()))
    await shelf.put("good.txt", "A good one.")
    await shelf.settle()

    assert await shelf.served() == {"good.txt": "A good one."}
    assert sorted(reason for _, reason in ingest.dead_letters()) == [
        "The message is no JSON.",
        "The message is no notification of S3, SNS or EventBridge, and none of Bonito's own.",
        "The message's org_id is no UUID.",
    ]


async def test_a_sync_finds_every_object_and_what_vanished(shelf: Shelf) -> None:
    await shelf.put("gone.txt", "Nobody will tell that this was removed.")
    await shelf.put("kept.txt", "This is kept.")
    await shelf.settle()
    shelf.s3.put_bucket_notification_configuration(Bucket=shelf.bucket, NotificationConfiguration={})
    await shelf.remove("gone.txt")
    await shelf.put("zz/late/found.txt", "Nobody told of this.")

    shelf.deployment.sync.send(SyncMessage(shelf.org_id, shelf.base_id).to_json())
    await shelf.settle()

    assert await shelf.served() == {"kept.txt": "This is kept.", "zz/late/found.txt": "Nobody told of this."}


@pytest.mark.exhaustive
async def test_a_listing_of_1005_objects_is_whole(shelf: Shelf, deployment: Deployment) -> None:
    shelf.s3.put_bucket_notification_configuration(Bucket=shelf.bucket, NotificationConfiguration={})
    paths = [*(f"many/{number:04}.txt" for number in range(1003)), "zz/late/a.txt", "ä/b.txt"]
    for path in paths:
        await shelf.put(path, "x")
    waiting = deployment.box.queue(f"waiting-{uuid4().hex}")
    environ = deployment.environ | {"BONITO_INGEST_QUEUE": waiting.url}
    asked = deployment.box.queue(f"asked-{uuid4().hex}")
    deployment.box.map(asked, deployment.box.function("tests.functions.aws.box_doors.sync", environ))

    asked.send(SyncMessage(shelf.org_id, shelf.base_id).to_json())
    while asked.depth():
        await asyncio.sleep(0.2)

    assert waiting.depth() == 1005
    assert {status for status, _ in (await shelf.documents()).values()} == {"pending"}
    assert sorted(await shelf.documents()) == sorted(paths)


async def test_two_organizations_share_a_bucket_and_see_their_own(shelf: Shelf, other_org_id: UUID) -> None:
    inner = replace(shelf, org_id=other_org_id, base_id=uuid4(), prefix="hr/")
    await register(inner)

    await shelf.put("hr/a.txt", "Both see this one.")
    await shelf.put("it/b.txt", "One sees this.")
    await shelf.settle()

    assert await shelf.served() == {"hr/a.txt": "Both see this one.", "it/b.txt": "One sees this."}
    assert await inner.served() == {"a.txt": "Both see this one."}


async def test_the_schedules_tick_has_a_base_synced(shelf: Shelf, deployment: Deployment, database: Database) -> None:
    shelf.s3.put_bucket_notification_configuration(Bucket=shelf.bucket, NotificationConfiguration={})
    await shelf.put("quiet.txt", "Nobody told of this.")
    with psycopg.connect(database.superuser_url) as connection:
        # A new schedule begins without a next time.
        for change in ("sync_schedule = '0 0 1 1 *'", "next_sync_at = now() - interval '1 minute'"):
            connection.execute(f"UPDATE knowledge_bases SET {change} WHERE id = %s", [shelf.base_id])
    sync = deployment.box.function("tests.functions.aws.box_doors.sync", deployment.environ)

    call = await asyncio.to_thread(sync.invoke, json.loads((EVENTS / "schedule-tick.json").read_text()))
    assert call.error is None
    await shelf.settle()

    assert await shelf.served() == {"quiet.txt": "Nobody told of this."}


@pytest.mark.parametrize("sample", ["s3-test-event", "sns-test-event", "s3-tagging-put", "s3-put"])
async def test_the_real_door_acknowledges_what_means_nothing_to_it(deployment: Deployment, sample: str) -> None:
    from bonito.clouds.aws.invoking import as_event

    ingest = deployment.box.function("functions.ingest.aws.handler", deployment.environ)
    body = json.loads((EVENTS / f"{sample}.json").read_text())

    call = await asyncio.to_thread(ingest.invoke, as_event(body, queue="bonito-ingest"))

    assert (call.error, call.value) == (None, {"batchItemFailures": []})


async def test_maintenance_runs_on_a_schedule(deployment: Deployment, tmp_path: Path) -> None:
    maintenance = deployment.box.function("functions.maintenance.aws.handler", deployment.environ)
    event = json.loads((EVENTS / "schedule-tick.json").read_text())

    call = await asyncio.to_thread(maintenance.invoke, event)
    assert (call.error, call.value) == (None, None)

    without = {name: value for name, value in deployment.environ.items() if "MAINTENANCE" not in name}
    call = await asyncio.to_thread(deployment.box.function("functions.maintenance.aws.handler", without).invoke, event)
    assert call.error is not None
    assert "BONITO_MAINTENANCE_DATABASE_URL" in call.error["errorMessage"]


def test_a_door_is_invoked_from_the_command_line(deployment: Deployment) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "BONITO_"))}
    environ |= deployment.environ | {
        "AWS_ENDPOINT_URL": deployment.box.url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    command = [str(Path(sys.executable).parent / "bonito"), "invoke", "functions.ingest.aws", "--event"]

    done = subprocess.run(
        [*command, str(EVENTS / "sqs-batch.json")], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout[done.stdout.rindex("{\n") :]) == {"batchItemFailures": []}
    ((body, reason),) = deployment.ingest.dead_letters()
    assert json.loads(body) == {"hello": "world"}
    assert reason.startswith("The message is no notification")
