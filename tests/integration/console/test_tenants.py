"""Every route is replayed by the owner of another organization: what is not his is not there (T2)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import cast
from uuid import UUID

import httpx
import pytest

from bonito.console.app import create_app
from bonito.console.permissions import OpenGate
from bonito.console.services import Services
from bonito.tenancy.permissions import Role
from tests.integration.conftest import Database
from tests.integration.console.conftest import Person, client_of
from tests.integration.console.factories import BODIES, FACTORIES, World
from tests.integration.console.routes import RouteInfo, routes_of
from tests.integration.people import make_member

ROUTES = list(routes_of(create_app(cast("Services", None))))
# What a signature opens is tested with the signatures.
ABOUT_SOMETHING = [route for route in ROUTES if route.parameters and not isinstance(route.gate, OpenGate)]
LISTS = [route for route in ROUTES if route.method == "GET" and not route.parameters]


@pytest.fixture
async def world(services: Services, database: Database, org_id: UUID) -> AsyncIterator[World]:
    owner = make_member(database, org_id, Role.OWNER)
    async with client_of(services, owner.token) as client:
        yield World(database, owner, client)


async def send(client: httpx.AsyncClient, route: RouteInfo, path: str) -> httpx.Response:
    default = {"json": {}} if route.method in {"POST", "PUT", "PATCH"} else {}
    return await client.request(route.method, path, **BODIES.get(route.name, default))


@pytest.mark.parametrize("route", ABOUT_SOMETHING, ids=str)
async def test_another_organizations_thing_is_not_there(world: World, stranger: Person, route: RouteInfo) -> None:
    unknown = [name for name in route.parameters if name not in FACTORIES]
    assert not unknown, f"factories.py has no factory for {unknown}, which {route} needs"
    path = route.path.format(**{name: await FACTORIES[name](world) for name in route.parameters})

    by_stranger = await send(stranger.client, route, path)
    by_owner = await send(world.client, route, path)

    assert by_stranger.status_code == 404, by_stranger.text
    assert str(world.owner.org_id) not in by_stranger.text
    # The factory made something real: its owner reaches it, also after the stranger tried.
    assert by_owner.status_code < 500, by_owner.text
    assert by_owner.status_code not in {404, 413, 415, 422}, f"{by_owner.text}: is a body missing in factories.py?"


async def test_no_list_shows_another_organizations_things(world: World, stranger: Person) -> None:
    made = [await factory(world) for factory in FACTORIES.values()]
    shown_to_owner = ""

    for route in LISTS:
        by_stranger = await stranger.client.get(route.path)
        shown_to_owner += (await world.client.get(route.path)).text

        assert by_stranger.status_code == 200, f"{route}: {by_stranger.text}"
        assert not [item for item in [*made, str(world.owner.org_id)] if item in by_stranger.text], str(route)
    assert all(item in shown_to_owner for item in made)


async def test_a_knowledge_base_of_another_organization_cannot_be_put_into_a_key(
    world: World, stranger: Person
) -> None:
    base = await FACTORIES["name_or_id"](world)

    answer = await stranger.client.post("/api/keys", json={"name": "key", "knowledge_bases": [base]})

    assert (answer.status_code, answer.json()["code"]) == (404, "knowledge_base_not_found")
