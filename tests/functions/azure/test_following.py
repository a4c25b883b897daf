"""Whatever happens in a container, the functions have what lies there served, and nothing else."""

from __future__ import annotations

import asyncio
import io
import zipfile
from dataclasses import replace
from pathlib import Path

import docx
import pytest

from bonito.knowledge.search import Searcher, SearchRequest
from tests.functions.azure.conftest import ROOT, Deployment, eventually
from tests.integration.clouds.azure.test_store import ODD_KEYS
from tests.integration.knowledge.ingesting import prose
from tests.integration.knowledge.served import HashModels

MIB = 2**20


async def test_a_blob_is_found_follows_its_changes_its_new_name_and_its_end(deployment: Deployment) -> None:
    async with deployment.running():
        await deployment.put("docs/a.md", prose("barometer", 20))
        assert set(await deployment.served(bool)) == {"a.md"}
        searcher = Searcher(deployment.world.pool, HashModels())
        outcome = await searcher.search(
            deployment.world.org_id,
            names=[str(deployment.world.base_id)],
            readable=None,
            request=SearchRequest("barometer", mode="keyword"),
        )
        assert outcome.results[0].document_path == "a.md"

        await deployment.put("docs/a.md", prose("anemometer", 3))
        await deployment.served(lambda served: "anemometer" in served.get("a.md", ""))

        await deployment.rename("docs/a.md", "docs/deep/b c.md")
        await deployment.served(lambda served: set(served) == {"deep/b c.md"})

        await deployment.remove("docs/deep/b c.md")
        await deployment.served(lambda served: served == {})

    await deployment.world.check_rows()
    await deployment.world.check_counts()


async def test_odd_keys_are_served_as_themselves(deployment: Deployment) -> None:
    async with deployment.running():
        for key in ODD_KEYS:
            await deployment.put(f"docs/{key}", f"The {key} of the harbour.")

        await deployment.served(lambda served: set(served) == set(ODD_KEYS))


async def test_the_same_event_five_times_is_paid_once(deployment: Deployment) -> None:
    async with deployment.running():
        await deployment.container.upload_blob("docs/a.md", prose("barometer", 20))
        for _ in range(5):
            await deployment.tell(deployment.event("BlobCreated", "docs/a.md", api="PutBlob"))

        await deployment.served(bool)
        await eventually(lambda: deployment.count("ingest"), lambda count: count == 0)

    assert len(deployment.provider.paid) == len(set(deployment.provider.paid))
    await deployment.world.check_rows()


async def test_blobs_beside_the_prefix_and_of_nobody_are_acknowledged(deployment: Deployment) -> None:
    async with deployment.running():
        await deployment.put("other/a.md", prose("barometer"))
        await deployment.put("docs/b.md", prose("hygrometer"))
        assert set(await deployment.served(bool)) == {"b.md"}
        await eventually(lambda: deployment.count("ingest"), lambda count: count == 0)

    assert set(await deployment.world.statuses()) == {"b.md"}


async def test_a_renamed_directory_is_listed(deployment: Deployment) -> None:
    async with deployment.running():
        await deployment.put("docs/old/a.md", prose("barometer"))
        await deployment.served(bool)
        content = await (await deployment.container.download_blob("docs/old/a.md")).readall()
        await deployment.container.upload_blob("docs/new/a.md", content)
        await deployment.container.delete_blob("docs/old/a.md")
        event = deployment.cloud_event("DirectoryRenamed", "docs/new", api="RenameDirectory")
        event["data"] |= {"sourceUrl": event["data"]["url"].replace("/new", "/old")}

        await deployment.tell(event)

        await deployment.served(lambda served: set(served) == {"new/a.md"})


async def test_a_source_of_1005_blobs_with_late_folders_is_listed_to_its_end(deployment: Deployment) -> None:
    keys = [f"docs/f{number:04}.md" for number in range(1000)] + [f"docs/z/late/{number}.md" for number in range(5)]
    for begin in range(0, len(keys), 67):
        await asyncio.gather(*(deployment.container.upload_blob(key, b"x") for key in keys[begin : begin + 67]))
    ids = {"org_id": str(deployment.world.org_id), "knowledge_base_id": str(deployment.world.base_id)}

    async with deployment.running("list_source"):
        await deployment.tell(ids, queue="sync")
        await eventually(lambda: deployment.count("ingest"), lambda count: count == 1005)

    assert len(await deployment.world.statuses()) == 1005


def document(size: int) -> bytes:
    """A Word document of exactly so many bytes, most of them a picture's."""
    made = io.BytesIO()
    written = docx.Document()
    written.add_paragraph(prose("barometer"))
    written.save(made)

    def with_picture(picture: int) -> bytes:
        archive = io.BytesIO(made.getvalue())
        with zipfile.ZipFile(archive, "a", zipfile.ZIP_STORED) as members:
            members.writestr("word/media/image1.bin", bytes(picture))
        return archive.getvalue()

    return with_picture(size - len(with_picture(0)))


async def test_a_document_of_50_mib_is_served_and_one_a_byte_above_says_why_not(deployment: Deployment) -> None:
    async with deployment.running():
        await deployment.put("docs/largest.docx", document(50 * MIB))
        await deployment.put("docs/larger.docx", document(50 * MIB + 1))

        await deployment.served(bool)
        await eventually(deployment.world.statuses, lambda found: found.get("larger.docx") == "error")

    assert set(await deployment.world.served()) == {"largest.docx"}
    assert await deployment.world.error("larger.docx") == "The file has 50.0 MiB; at most 50.0 MiB are read."


async def test_a_model_that_is_away_for_a_moment_is_asked_again(deployment: Deployment) -> None:
    deployment.provider.refusals = [503, 500]

    async with deployment.running():
        await deployment.put("docs/a.md", prose("barometer"))

        assert set(await deployment.served(bool)) == {"a.md"}

    with pytest.raises(Exception, match="specified queue does not exist"):
        await deployment.poison()


async def test_a_process_killed_in_mid_work_loses_nothing(deployment: Deployment) -> None:
    environ = {**deployment.environ, "BONITO_TEST_LEASE_S": "2"}
    deployment = replace(deployment, environ=environ)
    deployment.provider.gate.clear()
    async with deployment.running() as host:
        await deployment.put("docs/a.md", prose("barometer", 20))
        await deployment.provider.was_asked.wait()
        host.process.kill()
    assert await deployment.world.served() == {}
    deployment.provider.gate.set()

    async with deployment.running():
        assert set(await deployment.served(bool)) == {"a.md"}
        await eventually(lambda: deployment.count("embed"), lambda count: count == 0)

    await deployment.world.check_rows()
    await deployment.world.check_counts()


async def test_poison_lies_aside_with_its_reason_and_blocks_nothing(deployment: Deployment) -> None:
    async with deployment.running():
        await deployment.tell({"eventType": "Microsoft.Storage.BlobCreated", "topic": "", "subject": "", "data": {}})
        await deployment.tell({"org_id": "nobody", "knowledge_base_id": "none", "path": "a.md"})
        await deployment.tell("nonsense")
        await deployment.put("docs/a.md", prose("barometer"))
        assert set(await deployment.served(bool)) == {"a.md"}
        poison = await eventually(deployment.poison, lambda found: len(found) == 3)

    assert {each["reason"] for each in poison} == {
        "The event's subject names no blob.",
        "The message's org_id is no UUID.",
        "The message is no JSON object and no array of them.",
    }
    assert {each["code"] for each in poison} == {"malformed_message"}


async def test_the_timers_run(deployment: Deployment) -> None:
    async with deployment.running() as host:
        for timer in ("tick", "maintain"):
            await host.run(timer)


@pytest.mark.parametrize("folder", [ROOT / "functions", Path(__file__).parent / "app"], ids=["product", "test"])
async def test_the_worker_finds_every_function_with_its_trigger(deployment: Deployment, folder: Path) -> None:
    async with deployment.running(app=folder) as host:
        triggers = {name: trigger.get("queueName") or trigger["schedule"] for name, trigger in host.functions.items()}

    assert triggers == {
        "ingest": deployment.names["ingest"],
        "embed": deployment.names["embed"],
        "list_source": deployment.names["sync"],
        "tick": "0 * * * * *",
        "maintain": "30 */10 * * * *",
    }


def test_the_test_app_runs_under_the_products_host_settings() -> None:
    assert (Path(__file__).parent / "app" / "host.json").read_text() == (ROOT / "functions" / "host.json").read_text()
