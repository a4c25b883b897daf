"""Every route of the console, as the tests that go through all of them see it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from bonito.console.permissions import Gate, OpenGate
from bonito.console.routing import ApiRoute

# What FastAPI adds: the document that describes the routes.
DOCUMENT = "/api/openapi.json"


@dataclass(frozen=True)
class RouteInfo:
    """One method of one path."""

    name: str
    method: str
    path: str
    gate: Gate | OpenGate | None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def parameters(self) -> list[str]:
        """The names of the path's parameters."""
        return re.findall(r"{(\w+)}", self.path)


def routes_of(app: FastAPI) -> Iterator[RouteInfo]:
    for route in iter_route_contexts(app.routes):
        if route.path == DOCUMENT:
            continue
        gate = route.original_route.gate if isinstance(route.original_route, ApiRoute) else None
        for method in sorted(route.methods or ()):
            yield RouteInfo(str(route.name), method, str(route.path_format), gate)
