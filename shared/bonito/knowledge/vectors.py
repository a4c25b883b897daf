"""The second step of ingestion: a batch of chunks gets its vectors, and with the last one the revision flips."""

from __future__ import annotations

import logging
import random
from array import array
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import psycopg

from bonito.database.pool import tenant
from bonito.errors import BonitoError, KnowledgeBaseNotFound, Overloaded, RateLimited
from bonito.knowledge import batches, claims, embedding, generations, progress, revisions
from bonito.knowledge.batches import Batch, Build
from bonito.knowledge.context import Ingestion
from bonito.knowledge.generations import Generation
from bonito.knowledge.messages import EmbedMessage
from bonito.knowledge.metered import MeteredEmbeddingModel
from bonito.knowledge.retries import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    LONGEST_REFUSAL,
    MAX_ATTEMPTS,
    explain,
    gave_up,
    is_retryable,
    is_unforeseen,
    kept,
    refusal_pause,
)
from bonito.metering import requests
from bonito.metering.usage import UsageRecord

logger = logging.getLogger(__name__)

# Those who wait for one model come back spread over so many seconds each, so that a pause does not end in a crowd that
# only learns of the next; what a sync found gives way to what somebody dropped.
SPREAD_S, BULK_SPREAD_S = 0.02, 0.1
CROWD = 1000


async def embed(context: Ingestion, message: EmbedMessage) -> None:
    """Give a batch of chunks the vectors that it lacks, and serve the revision when none is missing.

    Returns normally when the batch is stored, was stored before, is of no use any more, or ended with an error on
    the document; also when it is not its time, because another worker has the batch in hand or the model asked to be
    left alone: then a message for later is sent, so that no queue counts this one as failed.

    Raises:
        BonitoError: retryable ones, to be sent again after `retries.retry_pause`; a final one (DocumentError) when the
            tries are used up.
        Exception: anything unforeseen or of the database; to be sent again too.
    """
    found = await _take(context, message)
    if found is None:
        await finish(context, message.org_id, message.revision_id)
        return
    if isinstance(found, timedelta):
        await _send_later(context, message, found)
        return
    build, generation, batch = found
    try:
        if batch.attempts >= MAX_ATTEMPTS:
            raise gave_up(batch.attempts, None)
        async with kept(lambda: _renew(context, message.org_id, batch), context.leases.renewal):
            await _fill(context, message.org_id, build, generation, batch)
    except RateLimited as error:
        await _refused(context, message, build, batch, error)
        return
    except Overloaded as error:
        await _wait(context, message, batch, error, timedelta(seconds=error.retry_after_s or FIRST_PAUSE_S))
        return
    except Exception as error:  # noqa: BLE001 - whatever it is, the document must say so and the batch be free again
        await _trouble(context, message.org_id, build, batch, error)
        return
    await finish(context, message.org_id, build.revision_id)


async def give_up(context: Ingestion, message: EmbedMessage, *, tries: int, trouble: str | None) -> None:
    """End the document of a message that its queue will not bring again; `trouble` as `retries.gave_up`."""
    async with tenant(context.pool, message.org_id) as conn:
        build = await batches.find_build(conn, org_id=message.org_id, revision_id=message.revision_id)
    if build is not None:
        await _fail(context, message.org_id, build, gave_up(tries, trouble).message)


async def finish(context: Ingestion, org_id: UUID, revision_id: UUID) -> None:
    """Serve the revision if it lacks no vector; otherwise let its document wait on."""
    async with tenant(context.pool, org_id) as conn:
        revision = await revisions.load(conn, org_id=org_id, revision_id=revision_id)
        if revision is None:
            return
        try:
            await claims.lock_base(conn, org_id=org_id, knowledge_base_id=revision.knowledge_base_id)
        except KnowledgeBaseNotFound:
            return
        await claims.lock_document(conn, org_id=org_id, document_id=revision.document_id)
        has_flipped = await revisions.flip(conn, org_id=org_id, revision_id=revision_id)
        if not has_flipped:
            await claims.wait_on(conn, org_id=org_id, document_id=revision.document_id, lease=context.leases.waiting)
    if has_flipped or revision.status != "building":  # whoever flipped may have been lost before it came to this
        await progress.conclude(context.pool, org_id=org_id, knowledge_base_id=revision.knowledge_base_id)


async def _take(context: Ingestion, message: EmbedMessage) -> tuple[Build, Generation, Batch] | timedelta | None:
    """The batch, in our hands; None where there is nothing to do; or how long it has to wait."""
    org_id = message.org_id
    async with tenant(context.pool, org_id) as conn:
        build = await batches.find_build(conn, org_id=org_id, revision_id=message.revision_id)
        if build is None:
            return None
        if build.paused_s > 0:
            return timedelta(seconds=build.paused_s)
        generation = await generations.get(conn, org_id=org_id, generation_id=build.generation_id)
        taken = await batches.take(
            conn,
            org_id=org_id,
            revision_id=message.revision_id,
            first_index=message.first_index,
            lease=context.leases.batch,
        )
    if isinstance(taken, float):
        return timedelta(seconds=taken)
    if taken is None or generation is None:
        return None
    return build, generation, taken


async def _send_later(context: Ingestion, message: EmbedMessage, wait: timedelta) -> None:
    """Send the message anew, for when its time may have come."""
    async with tenant(context.pool, message.org_id) as conn:
        crowd = await batches.wait_on(
            conn,
            org_id=message.org_id,
            revision_id=message.revision_id,
            lease=context.leases.waiting,
            most=CROWD,
        )
    spread_s = crowd * (BULK_SPREAD_S if message.is_bulk else SPREAD_S)
    jitter_s = spread_s * random.random()  # noqa: S311 - only spreads
    delay = min(wait, timedelta(seconds=LONGEST_PAUSE_S)) + timedelta(seconds=jitter_s)
    await context.queue.send(message.queue, message.to_json(), delay=delay)


async def _renew(context: Ingestion, org_id: UUID, batch: Batch) -> bool:
    async with tenant(context.pool, org_id) as conn:
        return await batches.renew(conn, org_id=org_id, batch=batch, lease=context.leases.batch)


async def _fill(context: Ingestion, org_id: UUID, build: Build, generation: Generation, batch: Batch) -> None:
    """Call the model, outside of any transaction, and store each answer before the next call."""
    async with tenant(context.pool, org_id) as conn:
        chunks = await batches.texts(conn, org_id=org_id, batch=batch)
    if chunks:
        model = await context.models.embedding_model(org_id, generation.embedding_model)
        generations.check_fingerprint(generation, model)
        metered = MeteredEmbeddingModel(
            model, org_id=org_id, knowledge_base_id=build.knowledge_base_id, revision_id=build.revision_id
        )
        ids, texts, tokens = zip(*chunks, strict=True)
        try:
            async for done in embedding.embed_batches(metered, texts, tokens=tokens, dimensions=generation.dimensions):
                await _store(context, org_id, build, ids[done.place], done.result.vectors, metered.records)
        except (BonitoError, psycopg.Error):
            async with tenant(context.pool, org_id) as conn:
                await requests.insert(conn, org_id=org_id, records=metered.records)
            raise
    async with tenant(context.pool, org_id) as conn:
        await batches.done(conn, org_id=org_id, batch=batch)


async def _store(
    context: Ingestion,
    org_id: UUID,
    build: Build,
    chunk_ids: Sequence[UUID],
    vectors: Sequence[array[float]],
    records: list[UsageRecord],
) -> None:
    """What was paid for, and in the same transaction the records of what it cost, which are removed then."""
    async with tenant(context.pool, org_id) as conn:
        await generations.pin_dimensions(
            conn, org_id=org_id, generation_id=build.generation_id, dimensions=len(vectors[0])
        )
        await batches.answered(conn, org_id=org_id, generation_id=build.generation_id)
    async with tenant(context.pool, org_id) as conn:
        await batches.store(conn, org_id=org_id, build=build, chunk_ids=chunk_ids, vectors=vectors)
        await requests.insert(conn, org_id=org_id, records=records)
    records.clear()


async def _refused(context: Ingestion, message: EmbedMessage, build: Build, batch: Batch, error: RateLimited) -> None:
    """Have all workers leave the model alone, and the batch wait; no failure, unless that lasts for too long."""
    org_id = message.org_id
    async with tenant(context.pool, org_id) as conn:
        refused_for = await batches.refuse(conn, org_id=org_id, generation_id=build.generation_id)
        pause = refusal_pause(error.retry_after_s, refused_for=refused_for)
        await batches.pause(conn, org_id=org_id, generation_id=build.generation_id, pause=pause)
    if refused_for > LONGEST_REFUSAL:
        await _trouble(context, org_id, build, batch, error)
        return
    logger.info("An embedding model takes no call for %.1f s.", pause.total_seconds())
    await _wait(context, message, batch, error, pause)


async def _wait(context: Ingestion, message: EmbedMessage, batch: Batch, error: BonitoError, pause: timedelta) -> None:
    """Put the batch back, which has not failed, and send for it later."""
    async with tenant(context.pool, message.org_id) as conn:
        await batches.put_back(
            conn,
            org_id=message.org_id,
            batch=batch,
            message=explain(error),
            lease=context.leases.waiting,
            is_failure=False,
        )
    await _send_later(context, message, pause)


async def _trouble(context: Ingestion, org_id: UUID, build: Build, batch: Batch, error: Exception) -> None:
    """Put the batch back to be tried again, or end the document; what the queue has to know is raised."""
    attempts = batch.attempts
    if is_retryable(error):
        logger.warning("A batch is put back: %s", type(error).__name__, exc_info=is_unforeseen(error))
        async with tenant(context.pool, org_id) as conn:
            attempts = await batches.put_back(
                conn, org_id=org_id, batch=batch, message=explain(error), lease=context.leases.waiting
            )
        if attempts < MAX_ATTEMPTS:
            raise error
        error = gave_up(attempts, explain(error))
    await _fail(context, org_id, build, explain(error))
    if attempts >= MAX_ATTEMPTS:
        raise error


async def _fail(context: Ingestion, org_id: UUID, build: Build, message: str) -> None:
    """End the document with an error, if this revision is still what it waits for."""
    async with tenant(context.pool, org_id) as conn:
        try:
            await claims.lock_base(conn, org_id=org_id, knowledge_base_id=build.knowledge_base_id)
        except KnowledgeBaseNotFound:
            return
        await claims.lock_document(conn, org_id=org_id, document_id=build.document_id)
        revision = await revisions.load(conn, org_id=org_id, revision_id=build.revision_id)
        if revision is None or revision.status != "building":
            return
        await revisions.fail_revision(conn, org_id=org_id, revision=revision, message=message)
    await progress.conclude(context.pool, org_id=org_id, knowledge_base_id=build.knowledge_base_id)
