"""Ingestion: whatever happens to a file, the folder's present state is what is served."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from uuid import UUID

import pytest

from bonito.clouds.base import ObjectChanged, ObjectInfo
from bonito.clouds.local import FolderStore
from bonito.database.pool import Pool, tenant
from bonito.errors import AccessDenied, DocumentError, MalformedMessage, UpstreamError
from bonito.knowledge import documents, ingestion
from bonito.knowledge.messages import IngestMessage
from bonito.knowledge.parsing.base import ParseLimits
from tests.integration.knowledge.ingesting import PINNED, World, prose


@pytest.fixture
async def world(pool: Pool, org_id: UUID, tmp_path: Path) -> World:
    return await World.create(pool, org_id, tmp_path)


async def test_a_created_file_is_served_with_its_chunks(world: World) -> None:
    await world.drop("a.md", "# Gauges\n\n" + prose("barometer", 40))

    assert set(await world.served()) == {"a.md"}
    assert await world.statuses() == {"a.md": "ready"}
    generation = (await world.generations())[0]
    assert (await world.base()).served_generation == generation.id
    assert (generation.status, generation.document_count) == ("served", 1)
    assert await world.row("SELECT file_name, file_type, file_size, attempts, lease_until FROM kb_documents") == (
        "a.md",
        "md",
        (world.folder / "a.md").stat().st_size,
        0,
        None,
    )
    assert await world.row("SELECT DISTINCT source_section FROM kb_chunks") == ("Gauges",)
    await world.check_rows()
    await world.check_counts()


async def test_a_changed_file_replaces_its_text_and_its_counts(world: World) -> None:
    await world.drop("a.txt", prose("barometer", 30))
    await world.drop("b.txt", prose("hygrometer"))

    await world.drop("a.txt", prose("anemometer", 3))

    served = await world.served()
    assert "anemometer" in served["a.txt"]
    assert "barometer" not in served["a.txt"]
    assert await world.rows("SELECT status, count(*) FROM kb_revisions GROUP BY 1 ORDER BY 1") == [
        ("served", 2),
        ("superseded", 1),
    ]
    await world.check_rows()
    await world.check_counts()


async def test_a_deleted_file_is_not_served_and_leaves_a_tombstone(world: World) -> None:
    await world.drop("a.txt", prose("barometer", 30))

    await world.remove("a.txt")

    assert await world.served() == {}
    assert await world.statuses() == {}
    assert await world.row("SELECT deleted_at IS NOT NULL, lease_until FROM kb_documents") == (True, None)
    assert await world.rows("SELECT * FROM kb_terms") == []
    await world.check_counts()


async def test_a_file_that_comes_back_keeps_its_document(world: World) -> None:
    await world.drop("a.txt", prose("barometer"))
    before = await world.row("SELECT id FROM kb_documents")
    await world.remove("a.txt")

    await world.drop("a.txt", prose("barometer"))

    assert await world.row("SELECT id FROM kb_documents WHERE deleted_at IS NULL") == before
    assert set(await world.served()) == {"a.txt"}
    assert len(world.models.paid) == 1, "the vectors were still there"
    await world.check_rows()
    await world.check_counts()


async def test_a_renamed_file_moves(world: World) -> None:
    await world.drop("old.txt", prose("barometer"))
    (world.folder / "old.txt").rename(world.folder / "new.txt")

    await world.changed("new.txt", kind="created")
    await world.changed("old.txt", kind="deleted")
    await world.settle()

    assert set(await world.served()) == {"new.txt"}
    assert await world.statuses() == {"new.txt": "ready"}
    await world.check_counts()


async def test_a_renamed_folder_takes_its_files_along(world: World) -> None:
    await world.drop("old/deep/a.txt", prose("barometer"))
    await world.drop("older.txt", prose("hygrometer"))
    (world.folder / "old").rename(world.folder / "new")

    await world.changed("old", kind="deleted")
    await world.changed("new/deep/a.txt", kind="created")
    await world.settle()

    assert set(await world.served()) == {"new/deep/a.txt", "older.txt"}


async def test_the_same_content_is_no_work(world: World) -> None:
    await world.drop("a.txt", prose("barometer"))
    paid, parsed = list(world.models.paid), list(world.parser.parsed)
    os.utime(world.folder / "a.txt", ns=(1, 1))
    version = (await FolderStore(world.folder).head("a.txt")).version

    for _ in range(3):
        await world.changed("a.txt")
    await world.settle()

    assert (world.models.paid, world.parser.parsed) == (paid, parsed)
    assert await world.row("SELECT status, source_version FROM kb_documents") == ("ready", version)
    assert await world.row("SELECT count(*) FROM kb_revisions") == (1,)


async def test_an_event_only_says_where_to_look(world: World) -> None:
    world.write("stays.txt", prose("barometer"))

    await world.changed("stays.txt", kind="deleted")
    await world.changed("gone.txt", kind="created")
    await world.settle()

    assert set(await world.served()) == {"stays.txt"}
    assert await world.statuses() == {"stays.txt": "ready"}


async def test_a_content_that_comes_back_after_another_is_served_again(world: World) -> None:
    await world.drop("a.txt", prose("barometer", 30))
    await world.drop("a.txt", prose("hygrometer", 20))
    await world.drop("a.txt", prose("barometer", 30))
    await world.sweep()
    await world.drop("a.txt", prose("hygrometer", 20))

    assert "hygrometer" in (await world.served())["a.txt"]
    assert "barometer" not in (await world.served())["a.txt"]
    await world.check_rows()
    await world.check_counts()


async def test_an_empty_file_is_ready_with_a_warning_and_a_placeholder_is_nothing(world: World) -> None:
    await world.drop("empty.txt", "")
    await world.drop("blank.md", "   \n\n ")
    await world.changed("folder/")
    await world.context.queue.send("ingest", IngestMessage(world.org_id, world.base_id, "folder/").to_json())
    await world.settle()

    assert await world.statuses() == {"empty.txt": "ready_with_warnings", "blank.md": "ready_with_warnings"}
    assert await world.rows("SELECT warnings ->> 0 FROM kb_documents ORDER BY file_path") == [
        ("The document holds no text.",),
        ("The file is empty.",),
    ]
    assert (await world.base()).served_generation is not None
    assert (await world.generations())[0].document_count == 2
    await world.check_counts()


async def test_a_file_that_loses_all_of_its_text_serves_none(world: World) -> None:
    await world.drop("a.txt", prose("barometer", 30))
    await world.drop("a.txt", "")

    assert await world.served() == {}
    assert await world.statuses() == {"a.txt": "ready_with_warnings"}
    assert await world.rows("SELECT * FROM kb_terms") == []
    await world.check_counts()


async def test_a_broken_file_ends_with_a_message_and_nothing_else_suffers(world: World) -> None:
    await world.drop("good.txt", prose("barometer"))
    await world.drop("bad.json", '{"open": ')

    assert await world.statuses() == {"good.txt": "ready", "bad.json": "error"}
    message = await world.error("bad.json")
    assert message is not None
    assert "JSON" in message
    assert "still served" not in message
    await world.check_counts()


async def test_a_file_that_breaks_keeps_serving_its_previous_version_and_says_so(world: World) -> None:
    await world.drop("a.json", '{"gauge": "barometer"}')
    await world.drop("a.json", '{"gauge": ')

    assert "barometer" in (await world.served())["a.json"]
    assert await world.statuses() == {"a.json": "error"}
    assert (await world.error("a.json") or "").endswith("The previous version is still served.")

    await world.drop("a.json", '{"gauge": "anemometer"}')

    assert "anemometer" in (await world.served())["a.json"]
    assert await world.statuses() == {"a.json": "ready"}
    assert await world.error("a.json") is None
    await world.check_counts()


async def test_a_file_that_is_broken_and_then_restored_is_ready_again(world: World) -> None:
    await world.drop("a.json", '{"gauge": "barometer"}')
    await world.drop("a.json", '{"gauge": ')
    await world.drop("a.json", '{"gauge": "barometer"}')

    assert await world.statuses() == {"a.json": "ready"}
    assert await world.error("a.json") is None
    assert len(world.models.paid) == 1
    await world.check_counts()


async def test_a_file_above_the_limit_is_refused_unread(world: World) -> None:
    world.context = dataclasses.replace(world.context, limits=ParseLimits(max_bytes=1000))
    await world.drop("big.txt", "x" * 1001)
    await world.drop("fits.txt", "x" * 1000)

    assert await world.statuses() == {"big.txt": "error", "fits.txt": "ready"}
    assert "at most" in (await world.error("big.txt") or "")
    assert world.parser.parsed == ["fits.txt"]
    await world.sync()
    assert world.queue.waiting == [], "a sync does not try what has not changed again and again"


async def test_an_unreadable_file_says_so(world: World) -> None:
    world.write("secret.txt", "x")

    class Denied(FolderStore):
        async def fetch(self, key: str, into: Path, *, max_bytes: int) -> ObjectInfo:
            raise DocumentError("The file cannot be read: Permission denied.")

    world.folders.instead = Denied(world.folder)
    await world.changed("secret.txt")
    await world.settle()

    assert await world.error("secret.txt") == "The file cannot be read: Permission denied."


async def test_only_bases_whose_source_it_is_look_at_a_key(
    world: World, pool: Pool, org_id: UUID, other_org_id: UUID, tmp_path: Path
) -> None:
    same = await World.create(pool, other_org_id, tmp_path)
    below = await World.create(pool, org_id, tmp_path, prefix="sub/")
    elsewhere = await World.create(pool, org_id, tmp_path / "elsewhere")
    world.write("sub/a.txt", prose("barometer"))
    world.write("b.txt", prose("hygrometer"))

    assert await world.changed("sub/a.txt") == 3
    assert await world.changed("b.txt") == 2
    assert await ingestion.object_changed(world.context, ObjectChanged("s3", str(tmp_path), "b.txt")) == 0
    assert await ingestion.object_changed(world.context, ObjectChanged("local", "/nowhere", "b.txt")) == 0
    await world.settle()

    assert set(await world.served()) == set(await same.served()) == {"sub/a.txt", "b.txt"}
    assert set(await below.served()) == {"a.txt"}
    assert await elsewhere.statuses() == {}


async def test_another_organization_sees_nothing_of_it(world: World, pool: Pool, other_org_id: UUID) -> None:
    await world.drop("a.txt", prose("barometer"))

    async with tenant(pool, other_org_id) as conn:
        for table in ("kb_documents", "kb_revisions", "kb_chunks", "kb_index", "kb_terms", "kb_batches", "kb_syncs"):
            assert await (await conn.execute(f"SELECT * FROM {table}")).fetchall() == []  # type: ignore[call-overload]


async def test_a_message_for_another_organizations_base_does_nothing(world: World, other_org_id: UUID) -> None:
    world.write("a.txt", prose("barometer"))
    await ingestion.ingest(world.context, IngestMessage(other_org_id, world.base_id, "a.txt"))

    assert await world.statuses() == {}


async def test_two_workers_on_one_path_leave_one_revision_and_pay_once(world: World) -> None:
    world.write("a.txt", prose("barometer", 60))
    message = IngestMessage(world.org_id, world.base_id, "a.txt")

    await asyncio.gather(*(ingestion.ingest(world.context, message) for _ in range(4)))
    await world.settle()

    assert await world.statuses() == {"a.txt": "ready"}
    assert await world.rows("SELECT status FROM kb_revisions") == [("served",)]
    assert len(world.models.paid) == len(set(world.models.paid))
    await world.check_rows()
    await world.check_counts()


class Slow(FolderStore):
    """Answers with what the file held when it was asked, once the test lets it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.has_read, self.may_answer = asyncio.Event(), asyncio.Event()

    async def fetch(self, key: str, into: Path, *, max_bytes: int) -> ObjectInfo:
        info = await super().fetch(key, into, max_bytes=max_bytes)
        self.has_read.set()
        await self.may_answer.wait()
        return info


async def test_a_worker_that_is_overtaken_discards_what_it_holds(world: World) -> None:
    world.write("a.txt", prose("barometer"))
    slow = Slow(world.folder)
    world.folders.instead = slow
    message = IngestMessage(world.org_id, world.base_id, "a.txt")
    overtaken = asyncio.create_task(ingestion.ingest(world.context, message))
    await slow.has_read.wait()

    world.folders.instead = None
    await world.drop("a.txt", prose("anemometer"))
    slow.may_answer.set()
    await overtaken
    await world.settle()

    assert "anemometer" in (await world.served())["a.txt"]
    assert await world.row("SELECT count(*) FROM kb_revisions") == (1,)
    assert await world.statuses() == {"a.txt": "ready"}


async def test_a_worker_that_is_overtaken_by_a_deletion_brings_nothing_back(world: World) -> None:
    await world.drop("a.txt", prose("barometer"))
    world.write("a.txt", prose("anemometer"))
    slow = Slow(world.folder)
    world.folders.instead = slow
    message = IngestMessage(world.org_id, world.base_id, "a.txt")
    overtaken = asyncio.create_task(ingestion.ingest(world.context, message))
    await slow.has_read.wait()

    world.folders.instead = None
    await world.remove("a.txt")
    slow.may_answer.set()
    await overtaken
    await world.settle()

    assert await world.served() == {}
    assert await world.statuses() == {}


async def test_a_new_content_ends_the_one_that_is_still_being_built(world: World) -> None:
    world.write("a.txt", prose("barometer", 60))
    await world.changed("a.txt")
    await world.run(*world.queue.waiting.pop()[:2])
    old_batches = list(world.queue.waiting)
    world.queue.waiting.clear()

    await world.drop("a.txt", prose("anemometer", 3))
    world.queue.waiting.extend(old_batches)
    await world.settle()

    assert set("\n".join((await world.served()).values()).split()) & {"barometer", "anemometer"} == {"anemometer"}
    assert all("anemometer" in text for text in world.models.paid)
    assert await world.rows("SELECT * FROM kb_batches") == []


async def test_failures_of_the_store_are_tried_again_and_end_where_a_person_sees_them(world: World) -> None:
    class Away(FolderStore):
        async def fetch(self, key: str, into: Path, *, max_bytes: int) -> ObjectInfo:
            raise UpstreamError("The store does not answer.")

    world.folders.instead = Away(world.folder)
    world.write("a.txt", prose("barometer"))
    await world.changed("a.txt")

    failures = await world.settle()

    assert [getattr(failure, "retryable", None) for failure in failures] == [True] * 7 + [False]
    assert await world.statuses() == {"a.txt": "error"}
    assert await world.error("a.txt") == "Gave up after 8 tries: The store does not answer."
    world.folders.instead = None
    await world.drop("a.txt", prose("barometer"))
    assert await world.statuses() == {"a.txt": "ready"}


async def test_while_it_is_tried_again_the_document_says_why(world: World) -> None:
    class Away(FolderStore):
        async def fetch(self, key: str, into: Path, *, max_bytes: int) -> ObjectInfo:
            raise UpstreamError("The store does not answer.")

    world.folders.instead = Away(world.folder)
    message = IngestMessage(world.org_id, world.base_id, "a.txt")
    with pytest.raises(UpstreamError):
        await ingestion.ingest(world.context, message)

    assert await world.row("SELECT status, attempts, error_message FROM kb_documents") == (
        "pending",
        1,
        "The store does not answer.",
    )


async def test_something_unforeseen_is_counted_too_and_shows_nothing_internal(world: World) -> None:
    class Broken(FolderStore):
        async def fetch(self, key: str, into: Path, *, max_bytes: int) -> ObjectInfo:
            raise ZeroDivisionError("secret detail")

    world.folders.instead = Broken(world.folder)
    world.write("a.txt", "x")
    await world.changed("a.txt")
    failures = await world.settle()

    assert len(failures) == 8
    message = await world.error("a.txt") or ""
    assert "ZeroDivisionError" in message
    assert "secret" not in message


async def test_a_file_that_ends_its_worker_every_time_is_given_up(world: World) -> None:
    world.write("a.txt", "x")
    message = IngestMessage(world.org_id, world.base_id, "a.txt")

    class Deadly(FolderStore):
        async def fetch(self, key: str, into: Path, *, max_bytes: int) -> ObjectInfo:
            raise asyncio.CancelledError

    world.folders.instead = Deadly(world.folder)
    for _ in range(9):
        with pytest.raises((asyncio.CancelledError, DocumentError)):
            await ingestion.ingest(world.context, message)
        await world.rows(
            "UPDATE kb_documents SET lease_until = now() - interval '1 s' WHERE lease_until IS NOT NULL RETURNING id"
        )

    assert await world.statuses() == {"a.txt": "error"}
    assert "perhaps for lack of memory" in (await world.error("a.txt") or "")


async def test_metadata_of_an_uploaded_document_reaches_its_rows(world: World, pool: Pool, org_id: UUID) -> None:
    world.write("a.txt", prose("barometer", 40))
    async with tenant(pool, org_id) as conn:
        document = await documents.announce(
            conn,
            org_id=org_id,
            knowledge_base_id=world.base_id,
            document_id=world.base_id,
            path="a.txt",
            size=1,
            file_hash=b"1" * 32,
            metadata={"team": "harbour"},
        )
    await world.changed("a.txt")
    await world.run(*world.queue.waiting.pop()[:2])
    async with tenant(pool, org_id) as conn:
        await documents.set_metadata(
            conn,
            org_id=org_id,
            knowledge_base_id=world.base_id,
            document_id=document.id,
            metadata={"team": "weather"},
        )
    await world.settle()

    assert await world.rows("SELECT DISTINCT metadata FROM kb_chunks") == [({"team": "weather"},)]
    assert await world.rows("SELECT DISTINCT metadata FROM kb_index") == [({"team": "weather"},)]


async def test_a_generation_without_a_language_takes_that_of_the_first_text_that_tells(
    pool: Pool, org_id: UUID, tmp_path: Path
) -> None:
    world = await World.create(pool, org_id, tmp_path, pinned=dataclasses.replace(PINNED, language=None))
    await world.drop("codes.txt", "X-100 gauges Y-200")
    assert (await world.generations())[0].language is None

    await world.drop(
        "prose.txt", "This is the reading of the gauges, and it was done by the keeper of the harbour. " * 3
    )

    assert (await world.generations())[0].language == "english"
    assert await world.rows("SELECT DISTINCT language FROM kb_revisions") == [("english",)]
    assert await world.row(
        """SELECT count(*) FROM kb_index i JOIN kb_documents d ON d.id = i.document_id
            WHERE d.file_path = 'codes.txt' AND term_dimension('gaug') IN (SELECT unnest(i.terms) / 4)"""
    ) == (1,)
    await world.check_counts()


class GuardedFolder(FolderStore):
    """Refuses to say what lies at some key, as a bucket does to those who may not list it."""

    def __init__(self, root: Path, *, lists: bool) -> None:
        super().__init__(root)
        self._lists = lists

    async def fetch(self, key: str, into: Path, *, max_bytes: int) -> ObjectInfo:
        raise AccessDenied("The bucket refuses to be read: s3:GetObject is missing.")

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        if not self._lists:
            raise AccessDenied("The bucket refuses to be listed: s3:ListBucket is missing.")
        async for info in super().list(prefix, after=after):
            yield info


async def test_a_refused_key_that_is_not_listed_is_gone(world: World) -> None:
    await world.drop("a.txt", prose("barometer"))
    (world.folder / "a.txt").unlink()
    (world.folder / "a.txt.bak.md").write_text("a longer name with this beginning")
    world.folders.instead = GuardedFolder(world.folder, lists=True)

    await ingestion.ingest(world.context, IngestMessage(world.org_id, world.base_id, "a.txt"))

    assert await world.served() == {}


@pytest.mark.parametrize("lists", [True, False])
async def test_a_refused_key_that_may_be_there_stays_served_and_is_tried_again(world: World, lists: bool) -> None:
    await world.drop("a.txt", prose("barometer"))
    world.folders.instead = GuardedFolder(world.folder, lists=lists)

    with pytest.raises(AccessDenied):
        await ingestion.ingest(world.context, IngestMessage(world.org_id, world.base_id, "a.txt"))

    assert set(await world.served()) == {"a.txt"}


def local_changes(world: World, *paths: str) -> Callable[[Mapping[str, object]], list[ObjectChanged]]:
    return lambda body: [ObjectChanged("local", str(world.folder), path) for path in paths]


async def test_a_notification_of_one_document_is_worked_off_at_once(world: World) -> None:
    (world.folder / "a.txt").write_text(prose("barometer"))

    await ingestion.receive(world.context, {"Records": []}, local_changes(world, "a.txt"))

    assert await world.rows("SELECT file_path, status FROM kb_documents") == [("a.txt", "processing")]


async def test_a_notification_of_several_documents_sends_a_message_for_each(world: World) -> None:
    for path in ("a.txt", "b.txt"):
        (world.folder / path).write_text(prose("barometer"))

    await ingestion.receive(world.context, {"Records": []}, local_changes(world, "a.txt", "b.txt"))

    assert await world.rows("SELECT count(*) FROM kb_documents") == [(0,)]
    await world.settle()
    assert set(await world.served()) == {"a.txt", "b.txt"}


async def test_our_own_message_is_never_read_as_a_notification(world: World) -> None:
    (world.folder / "a.txt").write_text(prose("barometer"))
    message = IngestMessage(world.org_id, world.base_id, "a.txt")

    await ingestion.receive(world.context, message.to_json(), local_changes(world))

    assert await world.rows("SELECT file_path FROM kb_documents") == [("a.txt",)]
    with pytest.raises(MalformedMessage):
        await ingestion.receive(world.context, message.to_json() | {"org_id": "nobody"}, local_changes(world))


def folder_changes(world: World, *keys: str) -> Callable[[Mapping[str, object]], list[ObjectChanged]]:
    return lambda body: [ObjectChanged("local", str(world.folder), key, "folder") for key in keys]


async def test_a_notification_of_a_folder_has_the_source_listed_once(world: World) -> None:
    await world.drop("old/a.txt", prose("barometer"))
    (world.folder / "old").rename(world.folder / "new")

    await ingestion.receive(world.context, {}, folder_changes(world, "old/", "new/"))

    assert [queue for queue, _, _ in world.queue.waiting] == ["sync"]
    await world.settle()
    assert set(await world.served()) == {"new/a.txt"}


@pytest.mark.parametrize(
    ("key", "is_concerned"), [("manuals/", True), ("manuals/de/", True), ("manuals/deep/", True), ("other/", False)]
)
async def test_a_folder_concerns_the_bases_whose_prefix_lies_in_it_or_around_it(
    pool: Pool, org_id: UUID, tmp_path: Path, key: str, is_concerned: bool
) -> None:
    world = await World.create(pool, org_id, tmp_path, prefix="manuals/de")

    assert (await ingestion.object_changed(world.context, *folder_changes(world, key)({})) == 1) is is_concerned
