"""Every failure of /api as RFC 9457 problem details with a stable code, and the same for its OpenAPI description."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from psycopg import OperationalError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from bonito.errors import (
    AuthenticationFailed,
    BonitoError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    problem_details,
)

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
CHALLENGE = 'Bearer realm="bonito"'


class FieldProblem(BaseModel):
    """One field that is missing, unknown or wrong."""

    param: str = Field(description="Where it is: `query.limit`, `path.key_id`, `body.name`, `body.items.0.size`.")
    message: str = Field(description="What is expected there.")


class Problem(BaseModel):
    """What every refused or failed call answers (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Not found",
                    "status": 404,
                    "code": "not_found",
                    "detail": "There is no such key.",
                    "request_id": "8d1fbc3e7a5c4f6e9b0a2d4c6e8f0a1b",
                }
            ]
        }
    )

    type: str
    title: str
    status: int
    code: str = Field(description="Stable: what programs compare.")
    detail: str = Field(description="For a person.")
    param: str | None = Field(default=None, description="The field that is at fault, where there is one.")
    required_tier: str | None = Field(default=None, description="With `tier_limit`: the least tier that allows it.")
    errors: list[FieldProblem] | None = Field(default=None, description="All fields at fault, where they are several.")
    request_id: str = Field(description="Names this call in the logs.")


DESCRIPTIONS: Mapping[int, str] = {
    400: "The request is understood and makes no sense.",
    401: "No personal token, or one that is unknown, expired or revoked.",
    403: "The token's role lacks the permission, or the organization's tier does not allow it.",
    404: "There is no such thing in the organization.",
    409: "The state of the thing does not allow it.",
    413: "The body is too large.",
    415: "The body is not of the type that the route reads.",
    422: "A field is missing, unknown or wrong.",
    429: "A limit does not leave room.",
    500: "A fault of the server.",
    502: "Something that this depends on failed.",
    503: "The database or the process has no room; try again.",
    504: "Something that this depends on did not answer in time.",
}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI description of these refusals."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": DESCRIPTIONS[status], "content": content} for status in statuses}


class ValidationProblem(InvalidRequest):
    """Fields that do not fit their declaration; 422 as FastAPI's users expect, with the code of InvalidRequest."""

    status: ClassVar[int] = 422


def render(
    request_id: str,
    error: BonitoError,
    *,
    errors: Sequence[FieldProblem] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The answer for an error: status, problem details and the headers that belong to it."""
    body = problem_details(error) | {"request_id": request_id}
    if errors:
        body["errors"] = [problem.model_dump() for problem in errors]
    sent = dict(headers or {})
    if isinstance(error, AuthenticationFailed):
        sent["WWW-Authenticate"] = CHALLENGE
    if error.retry_after_s is not None:
        sent["Retry-After"] = str(max(1, round(error.retry_after_s)))
    return JSONResponse(body, status_code=error.status, headers=sent, media_type=MEDIA_TYPE)


def as_bonito_error(error: Exception, request_id: str) -> BonitoError:
    """The error that the caller is told of; what he may not see goes to the log, under the request's id."""
    if isinstance(error, BonitoError):
        if error.status >= 500:
            logger.warning("request %s: %s: %s", request_id, error.code, error, exc_info=error)
        return error
    if isinstance(error, OperationalError):
        logger.error("request %s: the database failed", request_id, exc_info=error)
        return Overloaded("The database does not answer; try again shortly.", retry_after_s=1.0)
    logger.error("request %s: unexpected failure", request_id, exc_info=error)
    return BonitoError("Something went wrong here; the log has it under the request's id.")


def install(app: FastAPI) -> None:
    """Let every exception that a route raises end as problem details."""
    app.add_exception_handler(BonitoError, _on_error)
    app.add_exception_handler(OperationalError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_exception)


async def _on_error(request: Request, error: Exception) -> JSONResponse:
    return render(request.state.request_id, as_bonito_error(error, request.state.request_id))


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
    problems = [_field_problem(detail) for detail in error.errors()]
    first = problems[0]
    summary = ValidationProblem(f"{first.param}: {first.message}", param=first.param)
    return render(request.state.request_id, summary, errors=problems)


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    """What the framework itself refuses: unknown paths, other methods, unreadable forms."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    if isinstance(error, BonitoError):  # one that had to pass through the framework's readers
        return await _on_error(request, error)
    if error.status_code == NotFound.status:
        told: BonitoError = NotFound("There is nothing at this path.")
    elif error.status_code == MethodNotAllowed.status:
        told = MethodNotAllowed(f"{request.method} is not among the methods of this path.")
        return render(request.state.request_id, told, headers={"Allow": ", ".join(_methods_at(request))})
    elif error.status_code < 500:
        told = InvalidRequest("The body could not be read.")
    else:
        told = as_bonito_error(error, request.state.request_id)
    return render(request.state.request_id, told, headers=error.headers)


def _methods_at(request: Request) -> list[str]:
    """All methods of the path; a route by itself knows only its own."""
    methods = set()
    for route in iter_route_contexts(request.app.routes):
        if route.path_regex.match(request.url.path):
            methods |= route.methods or set()
    return sorted(methods)


def _field_problem(detail: Mapping[str, Any]) -> FieldProblem:
    param = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return FieldProblem(param=param, message="there is no such field")
    if detail["type"] == "json_invalid":
        return FieldProblem(param="body", message=f"not valid JSON: {detail['ctx']['error']}")
    message = detail["msg"].removeprefix("Value error, ")
    return FieldProblem(param=param, message=message[:1].lower() + message[1:])
