"""The console over a real database, and people of every role to call it."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import httpx
import psycopg
import pytest

from bonito.console.app import create_app
from bonito.console.services import Services
from bonito.database.pool import Pool
from bonito.errors import ModelNotFound
from bonito.providers.base import EmbeddingModel
from bonito.settings import Settings
from bonito.tenancy import credentials
from bonito.tenancy.permissions import Role
from bonito.tenancy.secrets import SecretBox
from tests.integration.conftest import Database


class ListQueue:
    """A queue that remembers what was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Mapping[str, object]]] = []

    async def send(self, queue: str, message: Mapping[str, object], *, delay: timedelta = timedelta()) -> None:
        self.sent.append((queue, message))


class NoModels:
    """An organization without any provider."""

    async def embedding_model(self, org_id: uuid.UUID, name: str) -> EmbeddingModel:
        raise ModelNotFound(f"There is no model {name}.")


@dataclass(frozen=True)
class Person:
    """A member, and a client that sends the member's token."""

    org_id: uuid.UUID
    user_id: uuid.UUID
    token: str
    client: httpx.AsyncClient


@pytest.fixture
def services(pool: Pool) -> Services:
    return Services(
        settings=Settings(),
        pool=pool,
        secret_box=SecretBox([bytes(32)]),
        queue=ListQueue(),
        models=NoModels(),
    )


@asynccontextmanager
async def client_of(services: Services, token: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    transport = httpx.ASGITransport(create_app(services), raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://console", headers=headers) as client:
        yield client


@pytest.fixture
async def anonymous(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(services) as client:
        yield client


@pytest.fixture
async def owner(services: Services, database: Database, org_id: uuid.UUID) -> AsyncIterator[Person]:
    user_id, token = make_member(database, org_id, Role.OWNER)
    async with client_of(services, token) as client:
        yield Person(org_id, user_id, token, client)


@pytest.fixture
async def stranger(services: Services, database: Database, other_org_id: uuid.UUID) -> AsyncIterator[Person]:
    """The owner of another organization."""
    user_id, token = make_member(database, other_org_id, Role.OWNER)
    async with client_of(services, token) as client:
        yield Person(other_org_id, user_id, token, client)


def make_member(database: Database, org_id: uuid.UUID, role: Role) -> tuple[uuid.UUID, str]:
    """Insert a user, a membership and a token as the owner of the tables."""
    user_id, token_id = uuid.uuid4(), uuid.uuid4()
    token = credentials.mint("bp-", secrets.token_bytes(32))
    with psycopg.connect(database.superuser_url) as conn:
        conn.execute("INSERT INTO users (id, email) VALUES (%s, %s)", [user_id, f"{user_id}@example.com"])
        conn.execute("INSERT INTO memberships (org_id, user_id, role) VALUES (%s, %s, %s)", [org_id, user_id, role])
        conn.execute(
            "INSERT INTO personal_tokens (org_id, id, user_id, name, token_hash, token_prefix, role)"
            " VALUES (%s, %s, %s, 'test', %s, %s, %s)",
            [org_id, token_id, user_id, token.hash, token.prefix, role],
        )
    return user_id, token.text
