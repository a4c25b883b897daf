"""/api/knowledge-bases/…/webhook, and /hooks/sync/…, to which its owner's systems deliver."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID, uuid4

from fastapi import APIRouter, Header, Request
from pydantic import BaseModel, Field

from bonito.console.permissions import Call, OpenCall, open_to_all, requires
from bonito.console.routers.knowledge_bases import NameOrId
from bonito.console.routing import ApiRoute, api_router
from bonito.knowledge import bases, webhooks
from bonito.knowledge.webhooks import Delivery
from bonito.tenancy.permissions import Permission

SECRET_BYTES = 32

router = api_router("/knowledge-bases/{name_or_id}/webhook", "syncs")
# What is signed instead of carrying a token is no part of /api and its description; docs/webhooks.md describes it.
hooks = APIRouter(prefix="/hooks", route_class=ApiRoute, redirect_slashes=False, include_in_schema=False)


class Webhook(BaseModel):
    """Where and with what a knowledge base's owner tells that its source changed."""

    url: str
    secret: str = Field(description="Signs deliveries; shown this once.")


class Received(BaseModel):
    """What became of a delivery."""

    status: Literal["accepted", "repeated"]
    keys: int | None = Field(description="Objects that are looked at; null where a sync was asked for.")


@router.post("", status_code=201)
async def set_webhook(
    name_or_id: NameOrId,
    request: Request,
    call: Annotated[Call, requires(Permission.KNOWLEDGE_BASES_WRITE, audit="knowledge_base.set_webhook")],
) -> Webhook:
    """Make the knowledge base's webhook, or give the one that it has another secret."""
    secret = f"whsec_{secrets.token_urlsafe(SECRET_BYTES)}"
    async with call.transaction() as conn:
        base = await bases.get(conn, org_id=call.org_id, name_or_id=name_or_id)
        webhook_id = await webhooks.put(
            conn, call.services.secret_box, org_id=call.org_id, base=base, webhook_id=uuid4(), secret=secret
        )
    call.note(f"knowledge_base:{base.id}", webhook=str(webhook_id))
    return Webhook(url=f"{str(request.base_url).rstrip('/')}/hooks/sync/{webhook_id}", secret=secret)


@router.delete("", status_code=204)
async def delete_webhook(
    name_or_id: NameOrId,
    call: Annotated[Call, requires(Permission.KNOWLEDGE_BASES_WRITE, audit="knowledge_base.delete_webhook")],
) -> None:
    """Take the knowledge base's webhook away, if it has one."""
    async with call.transaction() as conn:
        base = await bases.get(conn, org_id=call.org_id, name_or_id=name_or_id)
        await webhooks.delete(conn, org_id=call.org_id, knowledge_base_id=base.id)
    call.note(f"knowledge_base:{base.id}")


@hooks.post("/sync/{webhook_id}", status_code=202)
async def deliver_to_webhook(
    webhook_id: UUID,
    request: Request,
    call: Annotated[OpenCall, open_to_all(audit="webhook.deliver", max_body_bytes=webhooks.MAX_BODY_BYTES)],
    timestamp: Annotated[str, Header(alias="x-bonito-timestamp")] = "",
    signature: Annotated[str, Header(alias="x-bonito-signature")] = "",
    delivery_id: Annotated[str, Header(alias="x-bonito-delivery")] = "",
) -> Received:
    """Have a source synced, or some of its objects looked at; the signature is the authority."""
    services = call.services
    delivery = Delivery(timestamp=timestamp, signature=signature, id=delivery_id, body=await request.body())
    webhook = await webhooks.verify(
        services.pool, services.secret_box, webhook_id=webhook_id, delivery=delivery, now=datetime.now(UTC)
    )
    call.identify(webhook.org_id, f"webhook:{webhook.id}")
    call.note(f"knowledge_base:{webhook.base.id}", delivery=delivery.id)
    received = await webhooks.receive(services.pool, services.queue, webhook=webhook, delivery=delivery)
    call.note(f"knowledge_base:{webhook.base.id}", received=received.outcome, keys=received.keys)
    return Received(status=received.outcome, keys=received.keys)
