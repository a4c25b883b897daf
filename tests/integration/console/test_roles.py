"""Every role against every route: what the role's permissions do not hold is refused, and nothing else is (T3)."""

from __future__ import annotations

from typing import cast
from uuid import UUID, uuid4

import httpx
import pytest

from bonito.console.app import create_app
from bonito.console.permissions import Gate
from bonito.console.services import Services
from bonito.tenancy.permissions import Role, is_allowed
from tests.integration.conftest import Database
from tests.integration.console.conftest import client_of
from tests.integration.console.routes import RouteInfo, routes_of
from tests.integration.people import make_member

GUARDED = [route for route in routes_of(create_app(cast("Services", None))) if isinstance(route.gate, Gate)]


@pytest.mark.parametrize("role", Role)
async def test_a_role_reaches_exactly_what_it_may(
    services: Services, database: Database, org_id: UUID, role: Role
) -> None:
    member = make_member(database, org_id, role)
    refused = []
    async with client_of(services, member.token) as client:
        for route in GUARDED:
            answer = await call_with_unknown_ids(client, route)
            assert answer.status_code != 401, f"{route}: {answer.text}"
            if answer.status_code == 403:
                assert answer.json()["code"] == "permission_denied"
                refused.append(str(route))

    assert refused == [
        str(route) for route in GUARDED if isinstance(route.gate, Gate) and not is_allowed(role, route.gate.permission)
    ]


@pytest.mark.parametrize("route", GUARDED, ids=str)
async def test_nobody_reaches_a_guarded_route_without_a_token(anonymous: httpx.AsyncClient, route: RouteInfo) -> None:
    answer = await call_with_unknown_ids(anonymous, route)

    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_api_key")


async def call_with_unknown_ids(client: httpx.AsyncClient, route: RouteInfo) -> httpx.Response:
    path = route.path.format(**{name: str(uuid4()) for name in route.parameters})
    body = {"json": {}} if route.method in {"POST", "PUT", "PATCH"} else {}
    return await client.request(route.method, path, **body)  # type: ignore[arg-type]  # a body, or none
