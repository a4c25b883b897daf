"""Ingestion: a key is looked at, its content becomes chunks, batches of chunks get vectors, the revision flips.

Every step may come twice, late, or die half-way. A message only says where to look; what the store answers decides.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString
from uuid import UUID

from bonito.clouds.base import ObjectChanged, ObjectInfo, ObjectStore
from bonito.database.pool import Connection, Pool, lookup, tenant
from bonito.errors import (
    AccessDenied,
    BonitoError,
    DocumentError,
    KnowledgeBaseNotFound,
    NotFound,
    StateConflict,
    TierLimit,
)
from bonito.knowledge import bases, chunking, claims, generations, language, limits, progress, revisions, tokens
from bonito.knowledge.bases import KnowledgeBase
from bonito.knowledge.claims import Claimed, LostFence
from bonito.knowledge.context import Ingestion, send_all
from bonito.knowledge.generations import Generation
from bonito.knowledge.messages import EmbedMessage, IngestMessage, Message, SyncMessage
from bonito.knowledge.parsing.base import ParsedDocument
from bonito.knowledge.retries import MAX_ATTEMPTS, explain, gave_up, is_retryable, is_unforeseen, kept
from bonito.knowledge.revisions import Content, Description, NewChunk
from bonito.tenancy import tiers

logger = logging.getLogger(__name__)

FIND_BASES: LiteralString = "SELECT * FROM find_knowledge_bases(%(provider)s, %(bucket)s)"

# The keys that a vanished folder held are gone with it; only local sources have folders.
FIND_BELOW: LiteralString = """
    SELECT file_path FROM kb_documents
     WHERE org_id = %(org_id)s AND knowledge_base_id = %(knowledge_base_id)s AND deleted_at IS NULL
       AND file_path >= %(path)s || '/' AND file_path < %(path)s || '0'
"""


@dataclass(frozen=True)
class Built:
    """A content's chunks as one generation cuts them."""

    generation_id: UUID
    chunks: tuple[NewChunk, ...]


async def receive(
    context: Ingestion, body: Mapping[str, object], changes_of: Callable[[Mapping[str, object]], list[ObjectChanged]]
) -> None:
    """Do what a message of the queue `ingest` asks for, which is ours or a store's own notification.

    A notification that concerns one document of one knowledge base is worked off at once, without a second message.

    Args:
        context: what ingestion works with.
        body: the message.
        changes_of: reads a notification of the cloud that the message came from; none where it means nothing to us.

    Raises:
        MalformedMessage: it is neither.
        BonitoError, Exception: as `ingest`.
    """
    if IngestMessage.is_one(body):
        await ingest(context, IngestMessage.from_json(body))
        return
    found = [message for change in changes_of(body) for message in await _concerned(context, change)]
    messages = list(dict.fromkeys(found))
    if len(messages) == 1 and isinstance(messages[0], IngestMessage):
        await ingest(context, messages[0])
    else:
        await send_all(context.queue, messages)


async def object_changed(context: Ingestion, change: ObjectChanged) -> int:
    """Have every knowledge base look at the key whose source it belongs to; how many messages were sent.

    A bucket that nobody registered is not an error and not worth a retry: 0.
    """
    messages = await _concerned(context, change)
    await send_all(context.queue, messages)
    return len(messages)


async def ingest(context: Ingestion, message: IngestMessage) -> None:
    """Bring a document's rows to what its store holds at the path now.

    Returns normally when the work is done, handed on, somebody else's, or ended with an error on the document.

    Raises:
        BonitoError: retryable ones, to be sent again after `retries.retry_pause`; a final one (DocumentError) when the
            tries are used up, so that the message ends where poison is kept.
        Exception: anything unforeseen or of the database; to be sent again too.
    """
    if message.path.endswith("/"):
        return
    try:
        base, claimed = await _claim(context, message)
    except KnowledgeBaseNotFound:
        return
    try:
        if claimed.attempts >= MAX_ATTEMPTS:
            raise gave_up(claimed.attempts, claimed.trouble)
        async with kept(lambda: _renew(context, message.org_id, claimed), context.leases.renewal):
            await _look(context, message, base, claimed)
    except (LostFence, KnowledgeBaseNotFound):
        return  # a later claim looks later than we did; or there is nothing left to work for
    except Exception as error:  # noqa: BLE001 - whatever it is, the document must say so and not stay in work
        await _trouble(context, message.org_id, claimed, error)


async def give_up(context: Ingestion, message: IngestMessage, *, tries: int, trouble: str | None) -> None:
    """End the document of a message that its queue will not bring again; `trouble` as `retries.gave_up`."""
    with suppress(LostFence, KnowledgeBaseNotFound):
        _, claimed = await _claim(context, message)
        reason = gave_up(tries, trouble).message
        await _fail(context, message.org_id, claimed, reason, content=None, version=None)


async def _concerned(context: Ingestion, change: ObjectChanged) -> list[Message]:
    """What a changed key asks for, of every knowledge base whose source holds it."""
    if change.key.endswith("/") and change.kind != "folder":
        return []
    async with lookup(context.pool) as conn:
        row = {"provider": change.provider, "bucket": change.bucket}
        found = await (await conn.execute(FIND_BASES, row)).fetchall()
    messages: list[Message] = []
    for org_id, knowledge_base_id, prefix in found:
        if change.kind == "folder":
            if change.key.startswith(prefix) or prefix.startswith(change.key):
                messages.append(SyncMessage(org_id, knowledge_base_id))
            continue
        path = change.key[len(prefix) :]
        if not path or not change.key.startswith(prefix):
            continue
        messages.append(IngestMessage(org_id, knowledge_base_id, path))
        if change.provider == "local" and change.kind == "deleted":
            below = await _paths_below(context.pool, org_id=org_id, knowledge_base_id=knowledge_base_id, path=path)
            messages.extend(IngestMessage(org_id, knowledge_base_id, each) for each in below)
    if not messages:
        logger.info("A notification of %s concerns no knowledge base.", change.provider)
    return messages


async def _claim(context: Ingestion, message: IngestMessage) -> tuple[KnowledgeBase, Claimed]:
    async with tenant(context.pool, message.org_id) as conn:
        base = await bases.get(conn, org_id=message.org_id, name_or_id=str(message.knowledge_base_id))
        claimed = await claims.claim(
            conn,
            org_id=message.org_id,
            knowledge_base_id=base.id,
            path=message.path,
            lease=context.leases.work,
        )
    return base, claimed


async def _renew(context: Ingestion, org_id: UUID, claimed: Claimed) -> bool:
    async with tenant(context.pool, org_id) as conn:
        return await claims.renew(conn, org_id=org_id, claimed=claimed, lease=context.leases.work)


async def _look(context: Ingestion, message: IngestMessage, base: KnowledgeBase, claimed: Claimed) -> None:
    """Fetch, and do what the content asks for."""
    store, key = await context.stores.store(message.org_id, base), base.source_prefix + message.path
    with tempfile.TemporaryDirectory(dir=context.scratch, prefix="bonito-") as directory:
        path = Path(directory) / "document"
        try:
            info = await _fetch(store, key, path, max_bytes=context.limits.max_bytes)
        except NotFound:
            await _withdraw(context, message.org_id, claimed)
            return
        except DocumentError as error:
            version = await _version(store, key)
            await _fail(context, message.org_id, claimed, error.message, content=None, version=version)
            return
        content = Content(await asyncio.to_thread(_sha256, path), info.version, info.size)
        try:
            needed = await _join(context, message, claimed, content)
            if not needed:
                return
            document = await context.parser.parse(path, name=message.path, limits=context.limits)
            built = [Built(each.id, await asyncio.to_thread(_cut, document, each)) for each in needed]
        except (DocumentError, TierLimit) as error:
            await _fail(context, message.org_id, claimed, error.message, content=content, version=info.version)
            return
    if any(generation.language is None for generation in needed):
        await _pin_language(context, message, needed, document.text)
    try:
        await _store(context, message, claimed, content, _describe(document, built), built)
    except TierLimit as error:
        await _fail(context, message.org_id, claimed, error.message, content=content, version=info.version)


async def _fetch(store: ObjectStore, key: str, path: Path, *, max_bytes: int) -> ObjectInfo:
    """The object; where it is refused, its listing tells whether it is there at all.

    To those who may not list, S3 answers 403 for what does not exist:
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html
    """
    try:
        return await store.fetch(key, path, max_bytes=max_bytes)
    except AccessDenied:
        async for info in store.list(key):
            if info.key == key:
                raise
            break  # the shortest key with this beginning comes first
        raise NotFound("The store lists no such object.") from None


async def _join(context: Ingestion, message: IngestMessage, claimed: Claimed, content: Content) -> list[Generation]:
    """Take over what is there of this content already; the generations that have nothing of it are returned."""
    org_id = message.org_id
    async with tenant(context.pool, org_id) as conn:
        await claims.hold(conn, org_id=org_id, claimed=claimed)
        await revisions.end_others(conn, org_id=org_id, document_id=claimed.id, file_hash=content.file_hash)
        present = await _present(conn, org_id, claimed, content)
        if not present:
            raise StateConflict("The knowledge base has no generation that is served or built.")
        needed = [generation for generation, revision in present if revision is None]
        if needed:
            tier = await tiers.tier_of(conn, org_id=org_id)
            await limits.check_document(conn, org_id=org_id, tier=tier, document_id=claimed.id)
        messages = [] if needed else await _advance(context, conn, message, claimed, content)
    if not needed:
        await _hand_on(context, message, messages)
    return needed


async def _store(
    context: Ingestion,
    message: IngestMessage,
    claimed: Claimed,
    content: Content,
    description: Description,
    built: Sequence[Built],
) -> None:
    """Commit the chunks of all generations at once, then ask for their vectors."""
    async with tenant(context.pool, message.org_id) as conn:
        await claims.hold(conn, org_id=message.org_id, claimed=claimed)
        tier = await tiers.tier_of(conn, org_id=message.org_id)
        async with limits.guarded(conn, org_id=message.org_id, tier=tier):
            for part in built:
                await revisions.store(
                    conn,
                    org_id=message.org_id,
                    document_id=claimed.id,
                    generation_id=part.generation_id,
                    content=content,
                    description=description,
                    chunks=part.chunks,
                )
        messages = await _advance(context, conn, message, claimed, content)
    await _hand_on(context, message, messages)


async def _present(
    conn: Connection, org_id: UUID, claimed: Claimed, content: Content
) -> list[tuple[Generation, tuple[UUID, bool] | None]]:
    """Each open generation with its revision of this content and whether that is served; None: yet to be built."""
    opened = await generations.building_or_served(conn, org_id=org_id, knowledge_base_id=claimed.knowledge_base_id)
    found = await revisions.of_content(
        conn,
        org_id=org_id,
        document_id=claimed.id,
        file_hash=content.file_hash,
        generation_ids=[generation.id for generation in opened],
    )
    live = {
        generation_id: (revision_id, status == "served")
        for generation_id, (revision_id, status) in found.items()
        if status in {"building", "served"}
    }
    return [(generation, live.get(generation.id)) for generation in opened]


async def _advance(
    context: Ingestion, conn: Connection, message: IngestMessage, claimed: Claimed, content: Content
) -> list[Message]:
    """Flip each revision of this content that lacks no vector; messages for what is left to do."""
    org_id = message.org_id
    await revisions.extend(
        conn, org_id=org_id, document_id=claimed.id, version=content.version, lease=context.leases.waiting
    )
    present = await _present(conn, org_id, claimed, content)
    messages: list[Message] = []
    for _, revision in present:
        if revision is None:  # a generation begun meanwhile: look again, for it too
            messages.append(message)
            continue
        revision_id, is_served = revision
        missing = None if is_served else await revisions.missing_batches(conn, org_id=org_id, revision_id=revision_id)
        messages.extend(
            EmbedMessage(org_id, revision_id, first_index, number=number, is_bulk=message.is_bulk)
            for number, first_index in missing or []
        )
        if missing is None and not is_served:
            await revisions.flip(conn, org_id=org_id, revision_id=revision_id)
    served = [revision[0] for _, revision in present if revision is not None and revision[1]]
    if len(served) == len(present):
        await claims.settle(conn, org_id=org_id, claimed=claimed, revision_id=served[0], version=content.version)
    return messages


async def _hand_on(context: Ingestion, message: IngestMessage, messages: Sequence[Message]) -> None:
    await send_all(context.queue, messages)
    if not messages:
        await progress.conclude(context.pool, org_id=message.org_id, knowledge_base_id=message.knowledge_base_id)


async def _withdraw(context: Ingestion, org_id: UUID, claimed: Claimed) -> None:
    async with tenant(context.pool, org_id) as conn:
        await claims.hold(conn, org_id=org_id, claimed=claimed)
        await revisions.withdraw(conn, org_id=org_id, document_id=claimed.id)
    await progress.conclude(context.pool, org_id=org_id, knowledge_base_id=claimed.knowledge_base_id)


async def _fail(
    context: Ingestion, org_id: UUID, claimed: Claimed, message: str, *, content: Content | None, version: str | None
) -> None:
    """End the document with an error; a content that could not be read has the hash of that fact."""
    unread = hashlib.sha256(f"unread:{claimed.id}".encode()).digest()
    async with tenant(context.pool, org_id) as conn:
        await claims.hold(conn, org_id=org_id, claimed=claimed)
        await revisions.fail(
            conn,
            org_id=org_id,
            knowledge_base_id=claimed.knowledge_base_id,
            document_id=claimed.id,
            message=message,
            file_hash=content.file_hash if content else unread,
            version=version,
        )
    await progress.conclude(context.pool, org_id=org_id, knowledge_base_id=claimed.knowledge_base_id)


async def _trouble(context: Ingestion, org_id: UUID, claimed: Claimed, error: Exception) -> None:
    """Put the document back to be tried again, or end it; what the queue has to know is raised."""
    attempts: int | None = claimed.attempts
    if is_retryable(error):
        logger.warning("A document is put back: %s", type(error).__name__, exc_info=is_unforeseen(error))
        async with tenant(context.pool, org_id) as conn:
            attempts = await claims.put_back(
                conn, org_id=org_id, claimed=claimed, message=explain(error), lease=context.leases.waiting
            )
        if attempts is None:
            return  # a later claim has it
        if attempts < MAX_ATTEMPTS:
            raise error
        error = gave_up(attempts, explain(error))
    with suppress(LostFence, KnowledgeBaseNotFound):
        await _fail(context, org_id, claimed, explain(error), content=None, version=None)
    if attempts is not None and attempts >= MAX_ATTEMPTS:
        raise error


async def _pin_language(context: Ingestion, message: IngestMessage, needed: Sequence[Generation], text: str) -> None:
    """Let this text tell what language the generations are in, should it be able to."""
    org_id = message.org_id
    async with tenant(context.pool, org_id) as conn:
        found = await language.language_of(conn, text)
        if found is None:
            return
        for generation in needed:
            if generation.language is None:
                await generations.pin_language(conn, org_id=org_id, generation_id=generation.id, language=found)
    await progress.reword(context.pool, org_id=org_id, knowledge_base_id=message.knowledge_base_id)


async def _version(store: ObjectStore, key: str) -> str | None:
    """What the store calls the present content, so that a sync does not send it again and again."""
    try:
        info: ObjectInfo = await store.head(key)
    except BonitoError:
        return None
    return info.version


async def _paths_below(pool: Pool, *, org_id: UUID, knowledge_base_id: UUID, path: str) -> list[str]:
    async with tenant(pool, org_id) as conn:
        row = {"org_id": org_id, "knowledge_base_id": knowledge_base_id, "path": path}
        return [found[0] for found in await (await conn.execute(FIND_BELOW, row)).fetchall()]


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _cut(document: ParsedDocument, generation: Generation) -> tuple[NewChunk, ...]:
    chunks = chunking.chunk(
        document,
        tokenizer=tokens.tokenizer_for(generation.tokenizer),
        size=generation.chunk_size,
        overlap=generation.chunk_overlap,
    )
    return tuple(
        NewChunk(
            content=each.content,
            token_count=each.token_count,
            page=each.page,
            section=" > ".join(each.section) or None,
            start=each.start,
            end=each.end,
        )
        for each in chunks
    )


def _describe(document: ParsedDocument, built: Sequence[Built]) -> Description:
    warnings = document.warnings
    if not warnings and not any(part.chunks for part in built):
        warnings = ("The document holds no text.",)
    return Description(document.file_type, document.page_count, warnings)
