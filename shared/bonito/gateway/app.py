"""The ASGI application of /v1, OpenAI's dialect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from bonito.database.migrate import check_schema
from bonito.database.pool import Pool, lookup
from bonito.errors import BonitoError, MethodNotAllowed, ModelNotFound, NotFound, openai_body
from bonito.gateway.authentication import GatewayKeys
from bonito.gateway.client import Client, well_formed_id
from bonito.gateway.config import GatewayConfigs, StoredConfigs
from bonito.gateway.pipeline import Pipeline, error_headers, typed_error
from bonito.gateway.retrieval import Searcher
from bonito.metering.usage import Operation, UsageSink
from bonito.providers import deployments
from bonito.providers.deployments import Deployment
from bonito.providers.registry import ProviderRegistry

if TYPE_CHECKING:
    from bonito.settings import Settings


@dataclass(frozen=True)
class Services:
    """What the gateway works with, made once per process by whoever starts it, who also closes it."""

    settings: Settings
    pool: Pool
    registry: ProviderRegistry
    searcher: Searcher
    usage: UsageSink


def create_app(services: Services) -> Starlette:
    """Assemble the gateway."""
    app = Starlette(routes=routes(services), exception_handlers={HTTPException: _answer_http_error})
    app.router.redirect_slashes = False
    return app


def routes(services: Services) -> list[BaseRoute]:
    """The gateway's routes, for an application that serves more than them."""
    keys, configs = GatewayKeys(services.pool), StoredConfigs(services.registry)
    pipeline = Pipeline(
        keys=keys,
        configs=configs,
        registry=services.registry,
        searcher=services.searcher,
        usage=services.usage,
        max_request_bytes=services.settings.max_request_bytes,
        provider_timeout_s=services.settings.provider_timeout_s,
    )
    models = Models(keys, configs, services.registry)
    return [
        Route("/v1/chat/completions", Endpoint(pipeline, "chat.completions"), methods=["POST"]),
        Route("/v1/completions", Endpoint(pipeline, "completions"), methods=["POST"]),
        Route("/v1/embeddings", Endpoint(pipeline, "embeddings"), methods=["POST"]),
        Route("/v1/models", models.list_models, methods=["GET"]),
        Route("/v1/models/{model:path}", models.get_model, methods=["GET"]),
        Route("/healthz", healthz, methods=["GET"]),
        Route("/readyz", Readiness(services.pool), methods=["GET"]),
    ]


class Endpoint:
    """One operation, as ASGI: no request or response object stands between the bytes."""

    def __init__(self, pipeline: Pipeline, operation: Operation) -> None:
        self._pipeline, self._operation = pipeline, operation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's entry."""
        await self._pipeline.handle(self._operation, Client(scope, receive, send))


class Models:
    """What the key's organization can call."""

    def __init__(self, keys: GatewayKeys, configs: GatewayConfigs, registry: ProviderRegistry) -> None:
        self._keys, self._configs, self._registry = keys, configs, registry

    async def list_models(self, request: Request) -> Response:
        """GET /v1/models."""
        try:
            models = [_model(deployment) for deployment in await self._offered(request)]
        except Exception as error:  # noqa: BLE001 - the entry point: whatever it is, the caller gets an answer
            return _refusal(request, error)
        return _json(request, 200, {"object": "list", "data": models})

    async def get_model(self, request: Request) -> Response:
        """GET /v1/models/{model}, whose name has a slash in it."""
        try:
            name = request.path_params["model"]
            found = next((one for one in await self._offered(request) if one.name == name), None)
            if found is None:
                raise ModelNotFound(f"There is no model {name[:256]}.", param="model")
        except Exception as error:  # noqa: BLE001 - the entry point
            return _refusal(request, error)
        return _json(request, 200, _model(found))

    async def _offered(self, request: Request) -> list[Deployment]:
        principal = await self._keys.authenticate(request.headers.get("authorization"))
        config = await self._configs.config(principal.org_id)
        providers = await self._registry.with_fresh_listings(config.providers)
        return list(deployments.offered(providers.accounts))


class Readiness:
    """GET /readyz: the database answers and has this code's schema."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's entry."""
        request = Request(scope)
        try:
            async with lookup(self._pool) as conn:
                await check_schema(conn)
        except Exception as error:  # noqa: BLE001 - whatever it is, this process is not ready
            response = _refusal(request, error, status=503)
        else:
            response = _json(request, 200, {"status": "ok"})
        await response(scope, receive, send)


async def healthz(request: Request) -> Response:
    """The process lives."""
    return _json(request, 200, {"status": "ok"})


async def _answer_http_error(request: Request, error: Exception) -> Response:
    """What the router refuses, in OpenAI's shape."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    if error.status_code == MethodNotAllowed.status:
        refused: BonitoError = MethodNotAllowed(f"{request.method} is not what this path is for.")
    else:
        refused = NotFound("There is no such path. This is an OpenAI-compatible API below /v1.")
    return _refusal(request, refused, headers=dict(error.headers or {}))


def _refusal(
    request: Request, error: Exception, *, status: int | None = None, headers: dict[str, str] | None = None
) -> Response:
    typed = typed_error(error, _request_id(request))
    return _json(request, status or typed.status, openai_body(typed), {**error_headers(typed), **(headers or {})})


def _json(request: Request, status: int, body: object, headers: dict[str, str] | None = None) -> Response:
    sent = {**(headers or {}), "x-request-id": _request_id(request)}
    return Response(orjson.dumps(body), status, headers=sent, media_type="application/json")


def _request_id(request: Request) -> str:
    if not hasattr(request.state, "request_id"):
        request.state.request_id = well_formed_id(request.headers.get("x-request-id")) or uuid4().hex
    found: str = request.state.request_id
    return found


def _model(deployment: Deployment) -> dict[str, object]:
    account = deployment.account
    created = int(account.created_at.timestamp())
    return {"id": deployment.name, "object": "model", "created": created, "owned_by": account.name}
