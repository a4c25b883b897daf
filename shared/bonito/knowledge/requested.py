"""Syncs that somebody asks for: shown as begun from that moment on, although a worker takes them up a little later."""

from __future__ import annotations

from typing import LiteralString
from uuid import UUID, uuid4

from bonito.clouds.base import MessageQueue
from bonito.database.pool import Pool, tenant
from bonito.knowledge.messages import SyncMessage
from bonito.knowledge.sync import SyncStatus, sync_status

# The lease has run out from the beginning: the first worker takes it up, and should the message be lost, the sweeper
# sends another. A sync that runs already is the one that is shown.
REQUEST: LiteralString = """
    INSERT INTO kb_syncs (org_id, id, knowledge_base_id, retry_failed, lease_until)
    VALUES (%(org_id)s, %(new_id)s, %(knowledge_base_id)s, %(retry_failed)s, now())
    ON CONFLICT (org_id, knowledge_base_id) WHERE status IN ('listing', 'processing') DO NOTHING
"""


async def request_sync(
    pool: Pool, queue: MessageQueue, *, org_id: UUID, knowledge_base_id: UUID, retry_failed: bool = False
) -> SyncStatus:
    """Have a source compared with its documents, soon.

    Args:
        pool: the runtime's.
        queue: of ingestion.
        org_id: the organization.
        knowledge_base_id: a base that exists.
        retry_failed: try documents again that ended with an error.

    Returns:
        Where the sync stands: at its beginning, or wherever the one is that runs already.
    """
    row = {
        "org_id": org_id,
        "new_id": uuid4(),
        "knowledge_base_id": knowledge_base_id,
        "retry_failed": retry_failed,
    }
    async with tenant(pool, org_id) as conn:
        await conn.execute(REQUEST, row)
        status = await sync_status(conn, org_id=org_id, knowledge_base_id=knowledge_base_id)
    message = SyncMessage(org_id=org_id, knowledge_base_id=knowledge_base_id, retry_failed=retry_failed)
    await queue.send(message.queue, message.to_json())
    return status
