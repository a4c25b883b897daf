"""The second step: batches are paid for once, retried, given up; and a worker may be lost between any two steps."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from array import array
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from pgvector import Vector

from bonito.database.pool import Pool, tenant
from bonito.errors import DocumentError, InvalidRequest, Overloaded, ProviderFailed, ProviderTimeout, RateLimited
from bonito.knowledge import batches, claims, ingestion, revisions, vectors
from bonito.knowledge.messages import EmbedMessage, IngestMessage
from bonito.knowledge.retries import Leases
from bonito.providers.base import EmbeddingResult, Usage
from tests.integration.knowledge.ingesting import PINNED, World, prose
from tests.integration.knowledge.served import vector_of

EXPIRE = (
    "UPDATE kb_documents SET lease_until = now() - interval '1 second' WHERE lease_until IS NOT NULL RETURNING id",
    "UPDATE kb_batches SET lease_until = now() - interval '1 second' WHERE lease_until IS NOT NULL RETURNING 1",
    "UPDATE kb_syncs SET lease_until = now() - interval '1 second' WHERE lease_until IS NOT NULL RETURNING id",
)


@pytest.fixture
async def world(pool: Pool, org_id: UUID, tmp_path: Path) -> World:
    return await World.create(pool, org_id, tmp_path)


async def ingest(world: World, path: str) -> list[Mapping[str, object]]:
    """The first step alone; the messages of the second are returned, not run."""
    await ingestion.ingest(world.context, IngestMessage(world.org_id, world.base_id, path))
    messages = world.queue.of("embed")
    world.queue.waiting.clear()
    return messages


async def embed(world: World, message: Mapping[str, object]) -> None:
    await vectors.embed(world.context, EmbedMessage.from_json(message))


async def lose_worker(world: World) -> None:
    """Its messages are lost with it, and its leases end."""
    world.queue.waiting.clear()
    for statement in EXPIRE:
        await world.rows(statement)


async def pass_by(world: World, time: timedelta) -> None:
    """As if the embedding model had been paused so much longer ago."""
    await world.rows(
        "UPDATE kb_generations SET paused_until = paused_until - %(time)s, refused_since = refused_since - %(time)s "
        "RETURNING id".replace("%(time)s", f"interval '{time.total_seconds()} seconds'")
    )


async def check_served_once(world: World, path: str = "a.txt") -> None:
    assert await world.statuses() == {path: "ready"}
    assert len(world.models.paid) == len(set(world.models.paid)), "nothing is paid twice"
    assert await world.rows("SELECT * FROM kb_batches") == []
    await world.check_rows()
    await world.check_counts()


async def test_the_last_batch_flips_in_whatever_order_they_come(world: World) -> None:
    world.write("a.txt", prose("barometer", 200))
    messages = await ingest(world, "a.txt")
    assert len(messages) > 3

    for message in reversed(messages[1:]):
        await embed(world, message)
        assert await world.served() == {}
        assert await world.statuses() == {"a.txt": "processing"}
    await embed(world, messages[0])

    await check_served_once(world)


async def test_batches_that_end_at_once_flip_once(world: World) -> None:
    world.write("a.txt", prose("barometer", 200))
    messages = await ingest(world, "a.txt")

    await asyncio.gather(*(embed(world, message) for message in messages))

    await check_served_once(world)


async def test_a_batch_that_comes_twice_is_nothing(world: World) -> None:
    world.write("a.txt", prose("barometer", 60))
    messages = await ingest(world, "a.txt")

    for message in [*messages, *messages]:
        await embed(world, message)

    await check_served_once(world)


async def test_a_batch_in_another_workers_call_has_to_wait(world: World) -> None:
    world.write("a.txt", prose("barometer"))
    (message,) = await ingest(world, "a.txt")
    world.models.gate = asyncio.Event()
    first = asyncio.create_task(embed(world, message))
    while not await world.rows("SELECT 1 FROM kb_batches WHERE lease_until > now()"):
        await asyncio.sleep(0.01)

    await embed(world, message)
    world.models.gate.set()
    await first

    ((queue, again, delay),) = world.queue.waiting
    assert (queue, again) == ("embed", message)
    assert delay > timedelta()
    await embed(world, again)
    await check_served_once(world)


async def test_a_long_call_keeps_its_lease(world: World) -> None:
    short = Leases(batch=timedelta(seconds=3), renewal=timedelta(seconds=0.1))
    world.context = dataclasses.replace(world.context, leases=short)
    world.write("a.txt", prose("barometer"))
    (message,) = await ingest(world, "a.txt")
    world.models.gate = asyncio.Event()
    first = asyncio.create_task(embed(world, message))
    while not (leases := await world.rows("SELECT lease_until FROM kb_batches WHERE lease_until IS NOT NULL")):
        await asyncio.sleep(0.01)
    while not await world.rows("SELECT 1 WHERE clock_timestamp() > %s", leases[0][0]):
        await asyncio.sleep(0.1)

    await embed(world, message)
    assert world.queue.of("embed") == [message]
    world.models.gate.set()
    await first

    await check_served_once(world)


async def test_an_event_for_a_content_in_work_joins_it(world: World) -> None:
    world.write("a.txt", prose("barometer", 100))
    messages = await ingest(world, "a.txt")
    await embed(world, messages[0])

    again = await ingest(world, "a.txt")
    for message in again:
        await embed(world, message)

    assert len(again) == len(messages) - 1
    assert world.parser.parsed == ["a.txt"]
    await check_served_once(world)


async def test_a_worker_lost_after_its_claim_is_made_up_for(world: World) -> None:
    world.write("a.txt", prose("barometer", 60))
    stopped = asyncio.create_task(ingest(world, "a.txt"))
    while not await world.rows("SELECT 1 FROM kb_documents"):
        await asyncio.sleep(0)
    stopped.cancel()
    await asyncio.wait([stopped])
    await lose_worker(world)

    await world.sweep()
    await world.settle()

    await check_served_once(world)


async def test_a_worker_lost_before_it_sent_the_batches_is_made_up_for(world: World) -> None:
    world.write("a.txt", prose("barometer", 100))
    await ingest(world, "a.txt")
    await lose_worker(world)

    await world.sweep()
    await world.settle()

    assert world.parser.parsed == ["a.txt"], "what was stored is joined"
    await check_served_once(world)


async def test_a_worker_lost_between_two_batches_is_made_up_for(world: World) -> None:
    world.write("a.txt", prose("barometer", 150))
    messages = await ingest(world, "a.txt")
    for message in messages[::2]:
        await embed(world, message)
    await lose_worker(world)

    await world.sweep()
    await world.settle()

    await check_served_once(world)


async def test_a_worker_lost_before_the_flip_is_made_up_for(world: World) -> None:
    world.write("a.txt", prose("barometer"))
    (message,) = await ingest(world, "a.txt")
    sent = EmbedMessage.from_json(message)
    found = await vectors._take(world.context, sent)
    assert found is not None
    await vectors._fill(world.context, world.org_id, *found)
    await lose_worker(world)

    await world.sweep()
    await world.settle()

    await check_served_once(world)


async def test_the_redelivered_message_of_a_lost_worker_flips_too(world: World) -> None:
    world.write("a.txt", prose("barometer"))
    (message,) = await ingest(world, "a.txt")
    sent = EmbedMessage.from_json(message)
    found = await vectors._take(world.context, sent)
    assert found is not None
    await vectors._fill(world.context, world.org_id, *found)

    await embed(world, message)

    await check_served_once(world)


async def test_a_worker_lost_after_the_flip_does_not_keep_its_sync_from_ending(world: World) -> None:
    world.write("a.txt", prose("barometer"))
    await world.sync()
    await world.run(*world.queue.waiting.pop()[:2])
    ((_, message, _),) = world.queue.waiting
    sent = EmbedMessage.from_json(message)
    found = await vectors._take(world.context, sent)
    assert found is not None
    await vectors._fill(world.context, world.org_id, *found)
    async with tenant(world.pool, world.org_id) as conn:
        await claims.lock_document(conn, org_id=world.org_id, document_id=found[0].document_id)
        assert await revisions.flip(conn, org_id=world.org_id, revision_id=sent.revision_id)
    assert (await world.base()).status == "syncing"

    await embed(world, message)

    assert (await world.base()).status == "ready"
    await check_served_once(world)


async def test_a_message_of_a_swept_revision_is_nothing(world: World) -> None:
    world.write("a.txt", prose("barometer", 60))
    old = await ingest(world, "a.txt")
    await world.drop("a.txt", prose("anemometer"))
    await world.sweep()

    for message in old:
        await embed(world, message)

    await check_served_once(world)


async def test_waiting_for_vectors_is_no_failure(world: World) -> None:
    world.write("a.txt", prose("barometer", 100))
    messages = await ingest(world, "a.txt")
    for _ in range(10):
        await lose_worker(world)
        await world.sweep()
    await world.settle()

    assert len(messages) > 1
    await check_served_once(world)


async def test_a_rate_limit_pauses_every_worker_on_the_generation(world: World) -> None:
    world.write("a.txt", prose("barometer", 100))
    first, second, *_ = await ingest(world, "a.txt")
    world.models.failures.append(RateLimited("Slow down.", retry_after_s=60.0))

    await embed(world, first)
    await embed(world, second)

    assert world.models.paid == []
    assert [message for _, message, _ in world.queue.waiting] == [first, second]
    assert all(timedelta(seconds=50) < delay < timedelta(seconds=70) for _, _, delay in world.queue.waiting)
    assert await world.rows("SELECT first_index FROM kb_batches WHERE attempts > 0") == []
    assert await world.error("a.txt") == "Slow down."


async def test_waiting_for_a_turn_is_no_failure(world: World) -> None:
    world.write("a.txt", prose("barometer"))
    await world.changed("a.txt")
    world.models.failures += [Overloaded("The model's limit is reached.", retry_after_s=9.0)] * 12

    assert await world.settle() == [], "no queue counts it, nor does the batch"

    assert await world.error("a.txt") is None
    await check_served_once(world)


async def test_a_model_that_does_not_say_for_how_long_is_left_alone_for_ever_longer(world: World) -> None:
    world.write("a.txt", prose("barometer"))
    (message,) = await ingest(world, "a.txt")
    paused = "SELECT extract(epoch FROM paused_until - now())::float FROM kb_generations"
    world.models.failures += [RateLimited("Slow down."), RateLimited("Slow down.")]

    await embed(world, message)
    (first,) = await world.row(paused)
    await pass_by(world, timedelta(minutes=2))
    await embed(world, message)
    (second,) = await world.row(paused)
    await pass_by(world, timedelta(minutes=3))
    await embed(world, message)

    assert 3 < first <= 4
    assert 110 < second <= 121
    assert await world.row("SELECT refused_since FROM kb_generations") == (None,)
    await check_served_once(world)


async def test_a_document_that_waits_for_its_model_is_not_taken_for_lost(world: World) -> None:
    world.write("a.txt", prose("barometer"))
    (message,) = await ingest(world, "a.txt")
    world.models.failures.append(RateLimited("Slow down.", retry_after_s=60.0))
    await embed(world, message)
    await world.rows("UPDATE kb_documents SET lease_until = now() + interval '1 second' RETURNING id")

    await embed(world, message)

    assert await world.row("SELECT lease_until > now() + interval '1 hour' FROM kb_documents") == (True,)


async def test_a_model_that_takes_nothing_for_more_than_a_day_fails_in_the_end(world: World) -> None:
    world.write("a.txt", prose("barometer"))
    (message,) = await ingest(world, "a.txt")
    world.models.failures += [RateLimited("The quota is used up.")] * 20
    for _ in range(10):
        await embed(world, message)
        await pass_by(world, timedelta(hours=2))
    assert await world.statuses() == {"a.txt": "processing"}

    for _ in range(10):
        await pass_by(world, timedelta(hours=2))
        with suppress(RateLimited, DocumentError):
            await embed(world, message)

    assert await world.statuses() == {"a.txt": "error"}
    assert await world.error("a.txt") == "Gave up after 8 tries: The quota is used up."


async def test_a_message_that_is_given_up_leaves_a_sentence(world: World) -> None:
    world.write("a.txt", prose("barometer"))
    (message,) = await ingest(world, "a.txt")

    await vectors.give_up(world.context, EmbedMessage.from_json(message), tries=5, trouble=None)
    await ingestion.give_up(
        world.context, IngestMessage(world.org_id, world.base_id, "b.txt"), tries=60, trouble="The disk is full."
    )

    assert await world.statuses() == {"a.txt": "error", "b.txt": "error"}
    assert "perhaps for lack of memory" in (await world.error("a.txt") or "")
    assert await world.error("b.txt") == "Gave up after 60 tries: The disk is full."


async def test_a_batch_that_fails_is_tried_again_alone(world: World) -> None:
    world.write("a.txt", prose("barometer", 100))
    await world.changed("a.txt")
    world.models.failures += [ProviderTimeout("The model did not answer in time.")] * 3

    failures = await world.settle()

    assert len(failures) == 3
    assert await world.error("a.txt") is None
    await check_served_once(world)


async def test_a_batch_that_keeps_failing_is_given_up_with_a_message(world: World) -> None:
    world.write("a.txt", prose("barometer"))
    await world.changed("a.txt")
    world.models.failures += [ProviderTimeout("The model did not answer in time.")] * 8

    failures = await world.settle()

    assert [getattr(failure, "retryable", None) for failure in failures] == [True] * 7 + [False]
    assert await world.statuses() == {"a.txt": "error"}
    assert await world.error("a.txt") == "Gave up after 8 tries: The model did not answer in time."
    assert await world.rows("SELECT * FROM kb_batches") == []
    assert await world.sync(retry_failed=True)
    await world.settle()
    await check_served_once(world)


async def test_vectors_of_another_length_end_the_document_at_once(world: World) -> None:
    world.write("a.txt", prose("barometer"))
    (message,) = await ingest(world, "a.txt")
    await world.rows("UPDATE kb_generations SET dimensions = 9 RETURNING id")  # as the model was before

    await embed(world, message)

    assert await world.statuses() == {"a.txt": "error"}
    assert "8 dimensions where 9 are expected" in (await world.error("a.txt") or "")
    assert await world.rows("SELECT * FROM kb_batches") == []


USED = """
    SELECT operation, model_used, provider, status, error_code, input_tokens, is_estimated, inference_cost_nano_usd,
           key_id, request_id, knowledge_base_ids
      FROM gateway_requests ORDER BY created_at, id
"""


async def test_every_call_leaves_its_tokens_and_its_cost_among_the_requests(world: World) -> None:
    world.models.shape = {"price_nano_usd": 20_000_000, "max_batch": 4}
    world.write("a.txt", prose("barometer", 60))
    messages = await ingest(world, "a.txt")
    for message in messages:
        await embed(world, message)

    rows = await world.rows(USED)
    chunks = len(world.models.paid)
    revision = str(EmbedMessage.from_json(messages[0]).revision_id)
    assert len(rows) > len(messages)
    assert max(row[5] for row in rows) == 4
    assert sum(row[5] for row in rows) == chunks, "the model counts a token for a text"
    assert sum(row[7] for row in rows) == 20 * chunks
    common = ("embeddings.ingest", "test/hash", "test", 200, None, None, revision, [world.base_id])
    assert [row[:5] + row[8:] for row in rows] == [common] * len(rows)
    await check_served_once(world)


async def test_an_unknown_price_is_not_nothing_and_tokens_that_nobody_told_are_estimated(world: World) -> None:
    vectors = tuple(vector_of("x") for _ in range(1))
    world.models.answers = [EmbeddingResult(vectors)]
    await world.drop("a.txt", "twelve words")

    (row,) = await world.rows(USED)
    assert row[5:8] == (len("twelve words") // 4 + 1, True, None)


async def test_a_call_that_failed_is_recorded_and_one_that_had_no_turn_is_not(world: World) -> None:
    world.write("a.txt", prose("barometer"))
    await world.changed("a.txt")
    world.models.failures += [RateLimited("Slow down."), Overloaded("The limit is reached."), ProviderTimeout("No.")]

    await world.settle()

    assert [row[3:7] for row in await world.rows(USED)] == [
        (429, "rate_limit_exceeded", None, False),
        (504, "upstream_timeout", None, False),
        (200, None, len(world.models.paid), False),
    ]


async def test_what_succeeded_beside_a_failure_is_stored_recorded_and_not_paid_again(world: World) -> None:
    world.models.shape = {"max_batch": 1, "max_parallel": 4, "price_nano_usd": 1_000_000}
    world.write("a.txt", prose("barometer", 60))
    await world.changed("a.txt")
    world.models.failures += [ProviderTimeout("The model did not answer in time.")] * 2

    failures = await world.settle()

    rows = await world.rows(USED)
    assert len(failures) == 1
    assert sorted(row[3] for row in rows) == [200] * len(world.models.paid) + [504] * 2
    assert sum(row[7] or 0 for row in rows) == len(world.models.paid)
    await check_served_once(world)


@pytest.mark.parametrize("vector", [[math.nan] * 8, [0.0] * 8], ids=["nan", "zeros"])
async def test_vectors_of_no_use_are_recorded_as_paid_and_not_stored(world: World, vector: list[float]) -> None:
    world.write("a.txt", prose("barometer"))
    (message,) = await ingest(world, "a.txt")
    world.models.answers = [EmbeddingResult((array("f", vector),), Usage(input_tokens=9))]
    world.models.shape = {"max_batch": 1, "price_nano_usd": 1_000_000}

    with pytest.raises(ProviderFailed):
        await embed(world, message)

    assert [row[5:8] for row in await world.rows(USED)] == [(9, False, 9)]
    assert await world.rows("SELECT * FROM kb_index") == []
    await embed(world, message)
    assert await world.statuses() == {"a.txt": "ready"}


async def test_a_call_holds_no_more_tokens_than_the_model_takes(world: World) -> None:
    world.models.shape = {"max_batch_tokens": 130}
    await world.drop("a.txt", prose("barometer", 60))

    counted = dict(await world.rows("SELECT content, token_count FROM kb_chunks"))
    calls = [row[5] for row in await world.rows(USED)]
    assert len(calls) > 1
    begin = 0
    for texts in calls:
        tokens = [counted[text] for text in world.models.paid[begin : begin + texts]]
        assert sum(tokens) <= 130
        begin += texts
    assert begin == len(world.models.paid)


async def test_a_refusal_ends_the_document_at_once(world: World) -> None:
    await world.drop("a.txt", prose("barometer"))
    world.models.failures.append(InvalidRequest("The model does not take this."))
    await world.drop("a.txt", prose("anemometer"))

    assert await world.statuses() == {"a.txt": "error"}
    assert await world.error("a.txt") == "The model does not take this. The previous version is still served."
    assert "barometer" in (await world.served())["a.txt"]
    await world.check_counts()


async def test_vectors_of_another_model_are_refused(world: World) -> None:
    await world.rows("UPDATE kb_generations SET embedding_fingerprint = 'test/hash:0' RETURNING id")
    await world.drop("a.txt", prose("barometer"))

    assert await world.statuses() == {"a.txt": "error"}
    assert "embedding model" in (await world.error("a.txt") or "")
    assert world.models.paid == []


async def test_a_changed_document_is_built_for_the_generation_beside_too(world: World) -> None:
    await world.drop("a.txt", prose("barometer", 40))
    await world.drop("b.txt", prose("hygrometer", 40))
    second = await world.rebuild(dataclasses.replace(PINNED, chunk_size=32))
    assert second is not None
    world.parser.parsed.clear()

    await world.drop("a.txt", prose("anemometer", 40))

    assert world.parser.parsed == ["a.txt"], "fetched and parsed once"
    assert "anemometer" in (await world.served())["a.txt"]
    counts = dict(
        await world.rows("SELECT generation_id, count(*) FROM kb_revisions WHERE status = 'served' GROUP BY 1")
    )
    assert counts[second.id] == 1
    assert (await world.base()).served_generation != second.id
    await world.check_counts()

    await world.sync()
    await world.settle()

    assert (await world.base()).served_generation == second.id
    assert set(await world.served()) == {"a.txt", "b.txt"}
    assert await world.row(
        "SELECT max(token_count) <= 32 FROM kb_index i JOIN kb_chunks c ON c.id = i.chunk_id "
        "WHERE i.generation_id = %s",
        second.id,
    ) == (True,)
    await world.check_counts()


async def test_a_file_that_fails_in_both_generations_does_not_hold_up_the_switch(world: World) -> None:
    await world.drop("a.json", '{"gauge": "barometer"}')
    await world.drop("b.txt", prose("hygrometer"))
    second = await world.rebuild(dataclasses.replace(PINNED, chunk_size=32))
    assert second is not None

    world.write("a.json", '{"gauge": ')
    await world.sync()
    await world.settle()

    assert (await world.base()).served_generation == second.id
    assert set(await world.served()) == {"b.txt"}
    assert await world.statuses() == {"a.json": "error", "b.txt": "ready"}
    await world.sweep()
    assert set(await world.served()) == {"b.txt"}


async def test_a_generation_begun_in_the_middle_of_a_document_gets_it_too(world: World) -> None:
    await world.drop("first.txt", prose("hygrometer"))
    world.write("a.txt", prose("barometer", 60))
    messages = await ingest(world, "a.txt")
    second = await world.rebuild(dataclasses.replace(PINNED, chunk_size=32))
    assert second is not None

    await world.sync()
    for message in messages:
        await embed(world, message)
    await world.settle()

    assert (await world.base()).served_generation == second.id
    assert set(await world.served()) == {"a.txt", "first.txt"}
    assert await world.statuses() == {"a.txt": "ready", "first.txt": "ready"}
    await world.check_rows()
    await world.check_counts()


async def test_one_generations_failure_shows_when_the_other_is_served(world: World) -> None:
    await world.drop("a.txt", prose("barometer"))
    await world.rebuild(dataclasses.replace(PINNED, embedding_model="test/gone"))

    await world.drop("a.txt", prose("anemometer"))

    assert "anemometer" in (await world.served())["a.txt"]
    assert await world.statuses() == {"a.txt": "error"}
    assert await world.error("a.txt") == "There is no embedding model test/gone."


async def test_a_build_that_fails_for_most_documents_is_not_switched_to(world: World) -> None:
    for name in ("a", "b", "c"):
        await world.drop(f"{name}.txt", prose(name))
    before = (await world.base()).served_generation
    await world.rebuild(dataclasses.replace(PINNED, embedding_model="test/gone"))

    await world.sync()
    await world.settle()

    base = await world.base()
    assert (base.served_generation, base.status) == (before, "error")
    assert "failed for 3 of 3 documents" in (base.error_message or "")
    assert set(await world.served()) == {"a.txt", "b.txt", "c.txt"}

    await world.rebuild(PINNED)
    await world.sync(retry_failed=True)
    await world.settle()

    assert (await world.base()).status == "ready"
    assert set((await world.statuses()).values()) == {"ready"}


def test_ids_depend_on_content_and_place_alone() -> None:
    document, generation = UUID(int=1), UUID(int=2)
    revision = revisions.revision_id(document_id=document, generation_id=generation, file_hash=b"\x01" * 32)

    assert revision == revisions.revision_id(document_id=document, generation_id=generation, file_hash=b"\x01" * 32)
    assert revision != revisions.revision_id(document_id=document, generation_id=generation, file_hash=b"\x02" * 32)
    assert revisions.chunk_id(document_id=document, revision=revision, index=0) != revisions.chunk_id(
        document_id=document, revision=revision, index=1
    )


async def test_storing_a_batch_reads_the_batch_alone(world: World) -> None:
    """Without statistics, as in a young database, and beside other revisions of the organization."""
    for number in range(3):
        world.write(f"{number}.txt", prose(f"gauge{number}", 150))
        messages = await ingest(world, f"{number}.txt")
    sent = EmbedMessage.from_json(messages[0])
    async with tenant(world.pool, world.org_id) as conn:
        build = await batches.find_build(conn, org_id=world.org_id, revision_id=sent.revision_id)
        assert build is not None
        row = {
            "org_id": world.org_id,
            "revision_id": build.revision_id,
            "generation_id": build.generation_id,
            "document_id": build.document_id,
            "ids": [build.revision_id],
            "vectors": [Vector([1.0, 2.0])],
        }
        plan = await (await conn.execute("EXPLAIN " + batches.ADD_VECTORS, row)).fetchall()

    lines = [line for (line,) in plan if "kb_chunks" in line]
    assert len(lines) == 1, plan
    assert "_pkey" in lines[0]
