"""The console over a real database, and people of every role to call it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from bonito.console.app import create_app
from bonito.console.services import Services
from bonito.database.pool import Pool
from bonito.tenancy.permissions import Role
from tests.integration.conftest import Database
from tests.integration.console.services import loopback_client, make_services
from tests.integration.people import make_member


@dataclass(frozen=True)
class Person:
    """A member, and a client that sends the member's token."""

    org_id: uuid.UUID
    user_id: uuid.UUID
    token: str
    client: httpx.AsyncClient


@pytest.fixture
async def services(pool: Pool, tmp_path: Path) -> AsyncIterator[Services]:
    async with loopback_client() as client:
        yield make_services(pool, tmp_path / "data", client)


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
    member = make_member(database, org_id, Role.OWNER)
    async with client_of(services, member.token) as client:
        yield Person(org_id, member.user_id, member.token, client)


@pytest.fixture
async def stranger(services: Services, database: Database, other_org_id: uuid.UUID) -> AsyncIterator[Person]:
    """The owner of another organization."""
    member = make_member(database, other_org_id, Role.OWNER)
    async with client_of(services, member.token) as client:
        yield Person(other_org_id, member.user_id, member.token, client)
