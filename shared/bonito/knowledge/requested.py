"""Syncs that somebody asks for: shown as begun from that moment on, although a worker takes them up a little later."""

from __future__ import annotations

from typing import LiteralString
from uuid import UUID, uuid4

from bonito.clouds.base import MessageQueue
from bonito.database.pool import Pool, tenant
from bonito.knowledge import sync_status
from bonito.knowledge.messages import SyncMessage, Trigger
from bonito.knowledge.sync_status import Sync

# The lease has run out from the beginning: the first worker takes it up, and should the message be lost, the sweeper
# sends another. A sync that runs already is the one that is shown.
REQUEST: LiteralString = """
    INSERT INTO kb_syncs (org_id, id, knowledge_base_id, trigger, retry_failed, lease_until)
    VALUES (%(org_id)s, %(new_id)s, %(knowledge_base_id)s, %(trigger)s, %(retry_failed)s, now())
    ON CONFLICT (org_id, knowledge_base_id) WHERE status IN ('listing', 'processing') DO NOTHING
"""


async def request_sync(
    pool: Pool,
    queue: MessageQueue,
    *,
    org_id: UUID,
    knowledge_base_id: UUID,
    retry_failed: bool = False,
    trigger: Trigger = "manual",
) -> Sync:
    """Have a source compared with its documents, soon.

    Args:
        pool: the runtime's.
        queue: of ingestion.
        org_id: the organization.
        knowledge_base_id: a base that exists.
        retry_failed: try documents again that ended with an error.
        trigger: what asks.

    Returns:
        The sync: at its beginning, or wherever the one is that runs already.
    """
    row = {
        "org_id": org_id,
        "new_id": uuid4(),
        "knowledge_base_id": knowledge_base_id,
        "retry_failed": retry_failed,
        "trigger": trigger,
    }
    async with tenant(pool, org_id) as conn:
        await conn.execute(REQUEST, row)
        shown = await sync_status.last(conn, org_id=org_id, knowledge_base_id=knowledge_base_id)
    assert shown is not None  # noqa: S101 - there is one now
    message = SyncMessage(org_id, knowledge_base_id, retry_failed, trigger)
    await queue.send(message.queue, message.to_json())
    return shown
