"""A file put into a bucket is found, follows the bucket from then on, and no fault of one harms another."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from bonito.clouds.aws.invoking import as_event
from bonito.knowledge.messages import IngestMessage, SyncMessage
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


async def test_the_real_door_takes_every_sample_and_buries_those_that_nobody_sends(deployment: Deployment) -> None:
    ingest = deployment.box.function("functions.ingest.aws.handler", deployment.environ)
    samples = sorted(path.with_suffix("").with_suffix(".json") for path in EVENTS.glob("*.golden.json"))

    for begin in range(0, len(samples), 10):
        records: list[Any] = []
        for sample in samples[begin : begin + 10]:
            event: Any = as_event(json.loads(sample.read_text()), queue="bonito-ingest")
            records += event["Records"]
        call = await asyncio.to_thread(ingest.invoke, {"Records": records})
        assert (call.error, call.value) == (None, {"batchItemFailures": []})

    malformed = [json.loads(sample.read_text()) for sample in samples if sample.name.startswith("malformed-")]
    buried = [json.loads(body) for body, reason in deployment.ingest.dead_letters()]
    assert sorted(map(str, buried)) == sorted(map(str, malformed))


async def test_a_traced_invocation_tells_x_ray_of_its_part_and_of_no_content(deployment: Deployment) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        daemon.settimeout(10)
        environ = deployment.environ | {"AWS_XRAY_DAEMON_ADDRESS": f"127.0.0.1:{daemon.getsockname()[1]}"}
        ingest = deployment.box.function("functions.ingest.aws.handler", environ, is_traced=True)
        event = as_event(json.loads((EVENTS / "s3-put.json").read_text()), queue="bonito-ingest")

        call = await asyncio.to_thread(ingest.invoke, event)
        sent = daemon.recv(65536).decode()

    assert call.error is None
    told = json.loads(sent.split("\n", 1)[1])
    assert (told["name"], told["trace_id"]) == ("## handle", "1-5e988345-9c25bcb4a3b5f4aa2ac3a5f1")
    assert "handbook" not in sent


async def test_what_a_killed_function_had_in_hand_comes_again(shelf: Shelf, deployment: Deployment) -> None:
    queue = deployment.box.queue(f"killed-{uuid4().hex}", visibility_s=3)
    shelf.s3.put_bucket_notification_configuration(Bucket=shelf.bucket, NotificationConfiguration={})
    await shelf.put("long.txt", "Reading takes a while. " * 40_000)
    function = deployment.box.function("tests.functions.aws.box_doors.ingest", deployment.environ)
    deployment.box.map(queue, function)

    queue.send(IngestMessage(shelf.org_id, shelf.base_id, "long.txt").to_json())
    while (await shelf.documents()).get("long.txt", ("", None))[0] != "processing":
        await asyncio.sleep(0.01)
    function.made[0].kill()
    while queue.depth():
        await asyncio.sleep(0.1)
    await shelf.settle()

    assert function.made[0].starts == 2
    assert (await shelf.documents())["long.txt"] == ("ready", None)
    assert await shelf.rows(
        "SELECT count(*) FROM kb_revisions WHERE knowledge_base_id = %(base)s AND status = 'served'"
    ) == [(1,)]


async def test_a_message_that_comes_again_while_it_is_in_work_makes_no_second_document(
    shelf: Shelf, deployment: Deployment
) -> None:
    queue = deployment.box.queue(f"hasty-{uuid4().hex}", visibility_s=1)
    shelf.s3.put_bucket_notification_configuration(Bucket=shelf.bucket, NotificationConfiguration={})
    await shelf.put("long.txt", "Reading takes a while. " * 100_000)
    function = deployment.box.function("tests.functions.aws.box_doors.ingest", deployment.environ)
    mapping = deployment.box.map(queue, function, concurrency=2)

    queue.send(IngestMessage(shelf.org_id, shelf.base_id, "long.txt").to_json())
    # The first is told that a later claim has it, and its return deletes the message for both.
    while queue.depth() or (await shelf.documents()).get("long.txt", ("", None))[0] != "ready":
        await asyncio.sleep(0.1)
    await shelf.settle()

    assert len(function.made) == 2, "both had it in hand"
    assert mapping.errors == []
    assert (await shelf.documents())["long.txt"] == ("ready", None)
    assert await shelf.rows("SELECT status FROM kb_revisions WHERE knowledge_base_id = %(base)s") == [("served",)]


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
