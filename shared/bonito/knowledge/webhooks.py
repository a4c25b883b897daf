"""Webhooks: a knowledge base's owner tells, with a signature, that its source changed.

A delivery is a POST with three headers:

    X-Bonito-Timestamp   seconds since 1970 when it was signed
    X-Bonito-Signature   sha256=, and the hexadecimal HMAC-SHA256 under the webhook's secret of the timestamp, a full
                         stop and the body
    X-Bonito-Delivery    1 to 128 printable characters that name it; one that comes again does nothing

An empty body, or a JSON object without `keys`, asks for a sync; `{"keys": [...]}` has just these objects looked at.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, LiteralString
from uuid import UUID

from bonito.clouds.base import MessageQueue
from bonito.database.pool import Connection, Pool, lookup, tenant
from bonito.errors import InvalidRequest, InvalidSignature, KnowledgeBaseNotFound, NotFound, RateLimited, StateConflict
from bonito.knowledge import bases, claims
from bonito.knowledge.bases import KnowledgeBase
from bonito.knowledge.context import send_all
from bonito.knowledge.messages import IngestMessage
from bonito.knowledge.requested import request_sync
from bonito.tenancy import secrets, tiers
from bonito.tenancy.secrets import SecretBox

Outcome = Literal["accepted", "repeated"]

SECRET_PURPOSE = "sync webhook"  # noqa: S105 - what it is sealed for
TIMESTAMP = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?")
DELIVERY_ID = re.compile(r"[\x21-\x7e]{1,128}")
# How far the sender's clock may be off, and how late a delivery may come.
WINDOW = timedelta(minutes=5)
MAX_KEYS, MAX_KEY_BYTES = 1000, 1024  # longer keys exist in no store
MAX_BODY_BYTES = 2 * MAX_KEYS * MAX_KEY_BYTES  # escapes may take twice the room
# One delivery a second in the long run, as many at once as come in a minute.
SHARE, AHEAD = timedelta(seconds=1), timedelta(seconds=59)
# Deliveries are remembered for longer than senders try again; one that somebody was lost over may then come again.
REMEMBERED, LOST_AFTER = timedelta(days=1), timedelta(minutes=1)

FIND: LiteralString = "SELECT org_id, knowledge_base_id FROM find_sync_webhook(%(webhook_id)s)"

GET: LiteralString = """
    SELECT id, secret_id FROM sync_webhooks WHERE org_id = %(org_id)s AND knowledge_base_id = %(knowledge_base_id)s
"""

ADD: LiteralString = """
    INSERT INTO sync_webhooks (org_id, id, knowledge_base_id, secret_id)
    VALUES (%(org_id)s, %(webhook_id)s, %(knowledge_base_id)s, %(secret_id)s)
"""

ROTATE: LiteralString = """
    UPDATE sync_webhooks SET rotated_at = now() WHERE org_id = %(org_id)s AND id = %(webhook_id)s
"""

DELETE: LiteralString = """
    DELETE FROM sync_webhooks WHERE org_id = %(org_id)s AND knowledge_base_id = %(knowledge_base_id)s
    RETURNING secret_id
"""

# Of two at once with one id the second waits for the first, and then finds its row.
TAKE_DELIVERY: LiteralString = """
    INSERT INTO sync_webhook_deliveries AS d (org_id, webhook_id, delivery_id)
    VALUES (%(org_id)s, %(webhook_id)s, %(delivery_id)s)
    ON CONFLICT (org_id, webhook_id, delivery_id) DO UPDATE SET received_at = now()
     WHERE d.done_at IS NULL AND d.received_at < now() - %(lost_after)s
    RETURNING delivery_id
"""

IS_DONE: LiteralString = """
    SELECT done_at IS NOT NULL FROM sync_webhook_deliveries
     WHERE org_id = %(org_id)s AND webhook_id = %(webhook_id)s AND delivery_id = %(delivery_id)s
"""

TAKE_TURN: LiteralString = """
    UPDATE sync_webhooks SET free_at = greatest(free_at, now()) + %(share)s
     WHERE org_id = %(org_id)s AND id = %(webhook_id)s AND free_at <= now() + %(ahead)s
"""

FORGET: LiteralString = """
    DELETE FROM sync_webhook_deliveries
     WHERE org_id = %(org_id)s AND webhook_id = %(webhook_id)s AND received_at < now() - %(remembered)s
"""

DONE: LiteralString = """
    UPDATE sync_webhook_deliveries SET done_at = now()
     WHERE org_id = %(org_id)s AND webhook_id = %(webhook_id)s AND delivery_id = %(delivery_id)s
"""

GIVE_BACK: LiteralString = """
    DELETE FROM sync_webhook_deliveries
     WHERE org_id = %(org_id)s AND webhook_id = %(webhook_id)s AND delivery_id = %(delivery_id)s AND done_at IS NULL
"""


@dataclass(frozen=True)
class Delivery:
    """What came: three headers as they were sent, '' where one is missing, and the body."""

    timestamp: str
    signature: str
    id: str
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class Webhook:
    """A webhook that a valid signature was presented for."""

    id: UUID
    org_id: UUID
    base: KnowledgeBase


@dataclass(frozen=True)
class Received:
    """What became of a delivery; `keys` is how many objects are looked at, None where a sync was asked for."""

    outcome: Outcome
    keys: int | None = None


def sign(secret: str, *, timestamp: str, body: bytes) -> str:
    """The signature that goes with a body."""
    return "sha256=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


async def put(
    conn: Connection, box: SecretBox, *, org_id: UUID, base: KnowledgeBase, webhook_id: UUID, secret: str
) -> UUID:
    """Give a base its webhook, or the one that it has another secret; what was signed with the old one is refused.

    Args:
        conn: a transaction of the organization.
        box: seals the secret.
        org_id: the organization.
        base: whose source the webhook has synced.
        webhook_id: for a new one; also its secret's id.
        secret: 256 random bits or more, as text; to be shown once.

    Returns:
        The webhook's id, which stands in its address and stays the same.

    Raises:
        TierLimit: the organization's tier has no webhooks.
        KnowledgeBaseNotFound: deleted meanwhile.
    """
    await _check_tier(conn, org_id)
    await bases.lock(conn, org_id=org_id, knowledge_base_id=base.id)
    row = {"org_id": org_id, "knowledge_base_id": base.id, "webhook_id": webhook_id, "secret_id": webhook_id}
    known = await (await conn.execute(GET, row)).fetchone()
    if known is not None:
        row |= {"webhook_id": known[0], "secret_id": known[1]}
    await secrets.put(
        conn,
        box,
        org_id=org_id,
        secret_id=row["secret_id"],
        purpose=SECRET_PURPOSE,
        plaintext=secret.encode(),
    )
    await conn.execute(ROTATE if known is not None else ADD, row)
    return row["webhook_id"]


async def delete(conn: Connection, *, org_id: UUID, knowledge_base_id: UUID) -> None:
    """Take a base's webhook away, if it has one."""
    row = {"org_id": org_id, "knowledge_base_id": knowledge_base_id}
    found = await (await conn.execute(DELETE, row)).fetchone()
    if found is not None:
        await secrets.delete(conn, org_id=org_id, secret_id=found[0])


async def verify(pool: Pool, box: SecretBox, *, webhook_id: UUID, delivery: Delivery, now: datetime) -> Webhook:
    """Find out whose delivery this is.

    Args:
        pool: the runtime's.
        box: opens the secret.
        webhook_id: as the address says.
        delivery: what came.
        now: aware; the timestamp is compared with it.

    Raises:
        InvalidSignature: no such webhook, a wrong signature, no delivery id, or a timestamp too far from now.
    """
    found = await _find(pool, box, webhook_id)
    webhook, secret = found or (None, "a secret that nobody has")
    expected = sign(secret, timestamp=delivery.timestamp, body=delivery.body)
    is_signed = hmac.compare_digest(expected.encode(), delivery.signature.encode())
    if webhook is None or not is_signed:
        raise InvalidSignature("There is no such webhook, or the signature is not its own.")
    _check_timestamp(delivery.timestamp, now)
    if DELIVERY_ID.fullmatch(delivery.id) is None:
        raise InvalidSignature("X-Bonito-Delivery has 1 to 128 printable characters.")
    return webhook


async def receive(pool: Pool, queue: MessageQueue, *, webhook: Webhook, delivery: Delivery) -> Received:
    """Do what a verified delivery asks for, once.

    Raises:
        InvalidRequest: the body is neither empty nor such a JSON object.
        TierLimit: the organization's tier has no webhooks any more.
        RateLimited: there were too many deliveries.
        StateConflict: another one of this id is being worked on.
        UpstreamError: the queue does not take it; the same delivery may be sent again.
    """
    keys = _keys_of(delivery.body)
    row = {"org_id": webhook.org_id, "webhook_id": webhook.id, "delivery_id": delivery.id}
    async with tenant(pool, webhook.org_id) as conn:
        await _check_tier(conn, webhook.org_id)
        if not await _is_first(conn, row):
            return Received("repeated")
    try:
        sent = await _send(pool, queue, webhook, keys)
    except BaseException:
        async with tenant(pool, webhook.org_id) as conn:
            await conn.execute(GIVE_BACK, row)
        raise
    async with tenant(pool, webhook.org_id) as conn:
        await conn.execute(DONE, row)
    return Received("accepted", sent)


async def _find(pool: Pool, box: SecretBox, webhook_id: UUID) -> tuple[Webhook, str] | None:
    async with lookup(pool) as conn:
        found = await (await conn.execute(FIND, {"webhook_id": webhook_id})).fetchone()
    if found is None:
        return None
    org_id, knowledge_base_id = found
    row = {"org_id": org_id, "knowledge_base_id": knowledge_base_id}
    try:
        async with tenant(pool, org_id) as conn:
            base = await bases.get(conn, org_id=org_id, name_or_id=str(knowledge_base_id))
            known = await (await conn.execute(GET, row)).fetchone()
            if known is None:
                return None
            secret = await secrets.open_(conn, box, org_id=org_id, secret_id=known[1], purpose=SECRET_PURPOSE)
    except (KnowledgeBaseNotFound, NotFound):
        return None
    return Webhook(webhook_id, org_id, base), secret.decode()


def _check_timestamp(text: str, now: datetime) -> None:
    if TIMESTAMP.fullmatch(text) is None or abs(now.timestamp() - float(text)) > WINDOW.total_seconds():
        raise InvalidSignature(
            "X-Bonito-Timestamp has the seconds since 1970, and is not further than 5 minutes from now."
        )


async def _check_tier(conn: Connection, org_id: UUID) -> None:
    tiers.require(await tiers.tier_of(conn, org_id=org_id), lambda limits: limits.webhooks, "Webhooks")


async def _is_first(conn: Connection, row: dict[str, Any]) -> bool:
    """Take the delivery into work, within the rate that its webhook has."""
    taken = await (await conn.execute(TAKE_DELIVERY, row | {"lost_after": LOST_AFTER})).fetchone()
    if taken is None:
        done = await (await conn.execute(IS_DONE, row)).fetchone()
        if done is None or not done[0]:
            raise StateConflict("This delivery is being worked on; send it again later.", retry_after_s=60.0)
        return False
    if (await conn.execute(TAKE_TURN, row | {"share": SHARE, "ahead": AHEAD})).rowcount == 0:
        raise RateLimited(
            "A webhook takes one delivery a second; name several keys in one.", retry_after_s=SHARE.total_seconds()
        )
    await conn.execute(FORGET, row | {"remembered": REMEMBERED})
    return True


async def _send(pool: Pool, queue: MessageQueue, webhook: Webhook, keys: Sequence[str] | None) -> int | None:
    base = webhook.base
    if keys is None:
        await request_sync(pool, queue, org_id=webhook.org_id, knowledge_base_id=base.id, trigger="webhook")
        return None
    prefix = base.source_prefix
    paths = {key[len(prefix) :] for key in keys if key.startswith(prefix) and not key.endswith("/")} - {""}
    await send_all(queue, [IngestMessage(webhook.org_id, base.id, path) for path in sorted(paths)])
    return len(paths)


def _keys_of(body: bytes) -> list[str] | None:
    """The keys that a body names; None where it names none and a sync is asked for."""
    if not body.strip():
        return None
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:  # also bytes that are not UTF-8
        raise InvalidRequest("The body is empty or a JSON object.", param="body") from error
    if not isinstance(asked, dict):
        raise InvalidRequest("The body is empty or a JSON object.", param="body")
    if "keys" not in asked:
        return None
    keys = asked["keys"]
    if not isinstance(keys, list) or len(keys) > MAX_KEYS or not all(_is_key(key) for key in keys):
        raise InvalidRequest(
            f"`keys` is a list of {MAX_KEYS} keys at most, each of 1 to {MAX_KEY_BYTES} bytes.", param="body.keys"
        )
    return keys


def _is_key(key: object) -> bool:
    return isinstance(key, str) and claims.NOT_STORABLE.search(key) is None and 0 < len(key.encode()) <= MAX_KEY_BYTES
