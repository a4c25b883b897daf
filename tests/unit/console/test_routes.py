"""What every route declares: a permission, and for a change the audit action (T3, O2)."""

from __future__ import annotations

from typing import Annotated, cast

import pytest
from fastapi import FastAPI

from bonito.console.app import create_app
from bonito.console.permissions import Call, Gate, OpenCall, OpenGate, open_to_all, requires
from bonito.console.routing import api_router
from bonito.console.services import Services
from bonito.tenancy.permissions import Permission
from tests.integration.console.routes import RouteInfo, routes_of

ROUTES = list(routes_of(create_app(cast("Services", None))))

# Nothing else is open: they answer before anybody has a token, or that nobody needs one.
OPEN = {
    "GET /healthz",
    "GET /readyz",
    "GET /.well-known/openid-configuration",
    "GET /.well-known/jwks.json",
    "POST /api/invites/accept",
    "PUT /api/uploads",
    "POST /hooks/sync/{webhook_id}",
}

# They change nothing, and are POST because a query belongs into a body.
QUERIES = {"POST /api/knowledge-bases/{name_or_id}/search"}


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_a_route_declares_its_permission(route: RouteInfo) -> None:
    expected = OpenGate if str(route) in OPEN else Gate

    assert isinstance(route.gate, expected), f"{route} is not declared by requires(…)"


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_a_route_that_changes_something_names_its_audit_action(route: RouteInfo) -> None:
    assert route.gate is not None
    changes = route.method != "GET" and str(route) not in QUERIES

    assert (route.gate.audit is not None) is changes
    if route.gate.audit is not None:
        noun, _, verb = route.gate.audit.partition(".")
        assert noun.isidentifier()
        assert verb.isidentifier()


def test_a_route_without_a_declaration_does_not_start() -> None:
    router = api_router("/things", "things")

    with pytest.raises(TypeError, match=r"/api/things needs exactly one of requires\(…\) and open_to_all\(…\), has 0"):

        @router.get("")
        async def get_things() -> None:
            """Declares nothing."""


def test_a_route_with_two_declarations_does_not_start() -> None:
    router = api_router("/things", "things")

    with pytest.raises(TypeError, match="has 2"):

        @router.get("")
        async def get_things(
            call: Annotated[Call, requires(Permission.KEYS_READ)], other: Annotated[OpenCall, open_to_all()]
        ) -> None:
            """Declares too much."""


def test_a_route_that_is_no_api_route_is_seen_as_undeclared() -> None:
    app = FastAPI(openapi_url=None)

    @app.get("/api/leak")
    async def leak() -> None:
        """Nobody declared anything."""

    assert [route.gate for route in routes_of(app) if route.path == "/api/leak"] == [None]
