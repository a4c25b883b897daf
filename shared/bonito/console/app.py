"""The ASGI application of /api."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

import bonito
from bonito.console import problems
from bonito.console.edge import Edge
from bonito.console.routers import (
    audit,
    connections,
    documents,
    health,
    identity,
    invites,
    keys,
    knowledge_bases,
    logs,
    members,
    models,
    organization,
    providers,
    search,
    secrets,
    syncs,
    tokens,
    uploads,
    webhooks,
)
from bonito.console.services import Services

# Every router of /api, and of /hooks, in the order in which paths are tried.
ROUTERS = (
    health.router,
    identity.router,
    organization.router,
    members.router,
    invites.router,
    tokens.router,
    keys.router,
    audit.router,
    knowledge_bases.router,
    documents.router,
    uploads.router,
    uploads.receiving,
    syncs.router,
    webhooks.router,
    webhooks.hooks,
    search.router,
    connections.router,
    secrets.router,
    providers.router,
    models.router,
    logs.router,
)


class Console(FastAPI):
    """FastAPI, whose OpenAPI document also describes what every refusal answers."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made once."""
        if self.openapi_schema is None:
            schemas = super().openapi().setdefault("components", {}).setdefault("schemas", {})
            problem = problems.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(problem.pop("$defs"))
            schemas["Problem"] = problem
        assert self.openapi_schema is not None  # noqa: S101 - FastAPI keeps what it made
        return self.openapi_schema


def create_app(services: Services) -> FastAPI:
    """Assemble the management API; the services stay the caller's to close."""
    app = Console(
        title="Bonito",
        version=bonito.__version__,
        summary="Knowledge bases, keys, members and everything else that a person manages.",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.services = services
    app.add_middleware(Edge, services=services)
    problems.install(app)
    for router in ROUTERS:
        app.include_router(router)
    return app
