"""How every route of /api reads a request: gate first, then a bounded, strict body; nothing unknown passes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.params import Form
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from bonito.console.permissions import Gate, OpenGate
from bonito.console.problems import responses
from bonito.errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType

UNSTORABLE = re.compile("[\0\ud800-\udfff]")
MAX_DIGITS = 300  # as many as the largest float has

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def api_router(prefix: str, tag: str) -> APIRouter:
    """A router below /api whose routes all read requests as this module says and describe their refusals."""
    return APIRouter(
        prefix=f"/api{prefix}",
        tags=[tag],
        route_class=ApiRoute,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )


class ApiRoute(APIRoute):
    """A route with a gate.

    Before the body is read, the gate authenticates and authorizes the caller. Then unknown and repeated query
    parameters are refused, bodies of another type, and those above the gate's limit.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        options["responses"] = dict(options.get("responses") or {})
        super().__init__(path, endpoint, **options)
        for status, description in responses(*self._refusals()).items():
            self.responses.setdefault(status, description)

    @property
    def gate(self) -> Gate | OpenGate:
        """What the route declares; TypeError where it declares nothing."""
        gates = [call for call in _calls(self.dependant) if isinstance(call, Gate | OpenGate)]
        if len(gates) != 1:
            raise TypeError(f"{self.path} needs exactly one of requires(…) and open_to_all(…), has {len(gates)}")
        return gates[0]

    def get_route_handler(self) -> Handler:
        """Wrap FastAPI's own handler."""
        inner = super().get_route_handler()
        gate, known = self.gate, frozenset(_query_names(self.dependant))
        is_form = self.body_field is not None and isinstance(self.body_field.field_info, Form)

        async def handle(request: Request) -> Response:
            request.state.call = await gate.open(request)
            _check_query(request, known)
            bounded = StrictRequest(request.scope, _bounded(request, gate.max_body_bytes))
            if self.body_field is not None:
                _check_content_type(request, "multipart/form-data" if is_form else "application/json")
                if not is_form:
                    with suppress(json.JSONDecodeError):  # FastAPI tells that, among the other fields at fault
                        await bounded.json()
            return await inner(bounded)

        return handle

    def _refusals(self) -> list[int]:
        statuses = [500, 503]
        if isinstance(self.gate, Gate):
            statuses += [401, 403]
        if self.dependant.path_params:
            statuses.append(404)
        if self.dependant.path_params or self.body_field is not None or set(_query_names(self.dependant)):
            statuses.append(422)
        if self.body_field is not None:
            statuses += [400, 413, 415]
        return statuses


class StrictRequest(Request):
    """A request whose JSON is what the standard says, and can be stored."""

    async def json(self) -> Any:  # noqa: ANN401 - JSON is anything
        """Parse the body.

        Raises:
            JSONDecodeError: no JSON, also NaN, repeated names and bytes that are not UTF-8.
            InvalidRequest: JSON that Postgres cannot keep: a NUL character, half a character, or an endless number.
        """
        if not hasattr(self, "_json"):
            body = await self.body()
            try:
                self._json = json.loads(
                    body.decode(),
                    parse_constant=_no_constant,
                    parse_float=_finite,
                    parse_int=_whole,
                    object_pairs_hook=_no_repeats,
                )
            except UnicodeDecodeError as error:
                raise json.JSONDecodeError("not UTF-8", "", error.start) from None
            except RecursionError:
                raise json.JSONDecodeError("nested too deeply", "", 0) from None
            if any(UNSTORABLE.search(found) for found in _strings(self._json)):
                raise InvalidRequest("A text holds a NUL character or half of a surrogate pair.", param="body")
        return self._json


def _no_constant(name: str) -> None:
    raise json.JSONDecodeError(f"{name} is not JSON", "", 0)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise InvalidRequest("A number is too large.", param="body")
    return number


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise InvalidRequest("A number is too large.", param="body")
    return int(digits)


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise json.JSONDecodeError("a name is repeated", "", 0)
    return found


def _strings(value: object) -> Iterator[str]:
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            left += [*item, *item.values()]
        elif isinstance(item, list):
            left += item


def _check_query(request: Request, known: frozenset[str]) -> None:
    problems = []
    for name in request.query_params:
        if name not in known:
            problems.append({"type": "extra_forbidden", "loc": ("query", name), "msg": "", "input": None})
        elif len(request.query_params.getlist(name)) > 1:
            problems.append({"type": "repeated", "loc": ("query", name), "msg": "given more than once", "input": None})
    if problems:
        raise RequestValidationError(problems)


def _check_content_type(request: Request, expected: str) -> None:
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if sent != expected:
        raise UnsupportedMediaType(f"The body must be {expected}.")


class BodyTooLarge(HTTPException, PayloadTooLarge):
    """Passes through the framework's readers, which turn other exceptions into a 400."""

    def __init__(self, limit: int) -> None:
        HTTPException.__init__(self, status_code=PayloadTooLarge.status)
        PayloadTooLarge.__init__(self, f"The body is larger than {limit} bytes.")


def _bounded(request: Request, limit: int) -> Receive:
    """Refuse a body above the limit: by its declared length, or when more has come than it may have."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise BodyTooLarge(limit)
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise BodyTooLarge(limit)
        return message

    return receive


def _calls(dependant: Dependant) -> Iterator[object]:
    for child in dependant.dependencies:
        yield child.call
        yield from _calls(child)


def _query_names(dependant: Dependant) -> Iterator[str]:
    for field in dependant.query_params:
        yield field.alias
    for child in dependant.dependencies:
        yield from _query_names(child)
