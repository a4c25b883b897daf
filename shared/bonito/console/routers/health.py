"""GET /healthz and /readyz: for whoever starts, watches and balances processes."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel

from bonito.console.permissions import OpenCall, open_to_all
from bonito.console.routing import ApiRoute
from bonito.database.migrate import check_schema
from bonito.database.pool import lookup

router = APIRouter(tags=["health"], route_class=ApiRoute, redirect_slashes=False)


class Health(BaseModel):
    """That it is so."""

    status: Literal["ok"] = "ok"


@router.get("/healthz", operation_id="healthz")
async def healthz(call: Annotated[OpenCall, open_to_all()]) -> Health:
    """The process lives."""
    return Health()


@router.get("/readyz", operation_id="readyz")
async def readyz(call: Annotated[OpenCall, open_to_all()]) -> Health:
    """The database answers and has this code's schema."""
    async with lookup(call.services.pool) as conn:
        await check_schema(conn)
    return Health()
