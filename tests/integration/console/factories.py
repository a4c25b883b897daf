"""Makes what a path parameter names, one factory per name, so that every route can be called for something real.

A route with a parameter that has no factory here fails `test_tenants.py`: whoever adds such a route adds a factory, and
a body to `BODIES` where the route needs one. Factories run in the order of the path's parameters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import uuid4

import httpx

from bonito.tenancy.permissions import Role
from tests.integration.conftest import Database
from tests.integration.people import Member, make_member


class World:
    """An organization, its owner's client, and what was made in it."""

    def __init__(self, database: Database, owner: Member, client: httpx.AsyncClient) -> None:
        self.database, self.owner, self.client = database, owner, client
        self.knowledge_base_id = ""  # the newest, which further parameters of a path are about

    async def made(self, path: str, **body: Any) -> dict[str, Any]:
        """What the API answers to a POST."""
        answer = await self.client.post(path, json=body)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())


async def key_id(world: World) -> str:
    return str((await world.made("/api/keys", name=f"key {uuid4()}"))["id"])


async def token_id(world: World) -> str:
    return str((await world.made("/api/tokens", name="token"))["id"])


async def invite_id(world: World) -> str:
    return str((await world.made("/api/invites", email=f"{uuid4()}@example.com"))["id"])


async def user_id(world: World) -> str:
    return str(make_member(world.database, world.owner.org_id, Role.VIEWER).user_id)


async def name_or_id(world: World) -> str:
    made = await world.made("/api/knowledge-bases", name=f"kb-{uuid4()}", source={"type": "upload"})
    world.knowledge_base_id = str(made["id"])
    return world.knowledge_base_id


async def document_id(world: World) -> str:
    path = f"/api/knowledge-bases/{world.knowledge_base_id}/documents"
    answer = await world.client.post(path, files={"files": ("leave.md", b"# Leave\n\nThirty days.")})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["items"][0]["id"])


async def upload_id(world: World) -> str:
    path = f"/api/knowledge-bases/{world.knowledge_base_id}/uploads"
    made = await world.made(path, **UPLOAD)
    for file in made["files"]:
        if file["url"] is not None:
            answer = await world.client.put(file["url"], content=CONTENT)
            assert answer.status_code == 204, answer.text
    return str(made["id"])


async def provider_id(world: World) -> str:
    base_url = "http://127.0.0.1:9/v1"  # nobody listens: the provider is there and not verified
    return str(
        (await world.made("/api/providers", name=f"p-{uuid4()}", type="openai_compatible", base_url=base_url))["id"]
    )


async def connection_id(world: World) -> str:
    fields = {"cloud": "aws", "credential": CREDENTIAL, "buckets": ["company-documents"]}
    return str((await world.made("/api/connections", name=f"connection {uuid4()}", **fields))["id"])


async def secret_name(world: World) -> str:
    name = f"secret-{uuid4()}"
    answer = await world.client.post("/api/secrets", json={"name": name, "value": "{}"})
    assert answer.status_code == 200, answer.text
    return name


# A secret that is not there: a trial ends without a call.
CREDENTIAL = {"secret": "nowhere"}

CONTENT = b"# Travel"
UPLOAD = {"files": [{"name": "travel.md", "size": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()}]}

FACTORIES: Mapping[str, Callable[[World], Awaitable[str]]] = {
    "key_id": key_id,
    "token_id": token_id,
    "invite_id": invite_id,
    "user_id": user_id,
    "name_or_id": name_or_id,
    "document_id": document_id,
    "upload_id": upload_id,
    "provider_id": provider_id,
    "connection_id": connection_id,
    "secret_name": secret_name,
}

# What is sent to a route, by its name: the arguments of httpx; without an entry an empty JSON object.
BODIES: Mapping[str, Mapping[str, Any]] = {
    "set_member_role": {"json": {"role": "member"}},
    "change_document": {"json": {"metadata": {"category": "policy"}}},
    "search_knowledge_base": {"json": {"query": "How many days?"}},
    "change_provider": {"json": {"name": "p", "type": "openai_compatible", "base_url": "http://127.0.0.1:9/v1"}},
    "begin_upload": {"json": UPLOAD},
    "change_connection": {"json": {"name": "c", "cloud": "aws", "credential": CREDENTIAL}},
    "upload_documents": {"files": {"files": ("sick.md", b"# Sick leave")}},
}
