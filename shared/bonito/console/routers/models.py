"""GET /api/models: what the organization's keys may call."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from bonito.console.pagination import DEFAULT_LIMIT, Limit, NumberCursor, Page, page_of
from bonito.console.permissions import Call, requires
from bonito.console.routing import api_router
from bonito.providers import deployments
from bonito.providers.deployments import Deployment
from bonito.tenancy.permissions import Permission

router = api_router("/models", "models")


class Model(BaseModel):
    """A model at one provider."""

    id: str = Field(description="As a request names it: `provider/model`.", examples=["openai/gpt-4o"])
    provider: str
    model: str = Field(description="The provider's own name for it.")
    operations: list[str] = Field(description="What it is for, as far as its name tells.")


@router.get("")
async def list_models(
    call: Annotated[Call, requires(Permission.MODELS_READ)], limit: Limit = DEFAULT_LIMIT, cursor: NumberCursor = None
) -> Page[Model]:
    """Models of all providers; whoever was not asked for a minute is asked what it has by now."""
    registry = call.services.registry
    providers = await registry.with_fresh_listings(await registry.snapshot(call.org_id))
    numbered = list(enumerate(deployments.offered(providers.accounts), start=1))
    start = 0 if cursor is None else int(cursor)
    return page_of(
        numbered[start : start + limit + 1],
        limit=limit,
        show=lambda pair: _shown(pair[1]),
        cursor=lambda pair: str(pair[0]),
    )


def _shown(deployment: Deployment) -> Model:
    return Model(
        id=deployment.name,
        provider=deployment.account.name,
        model=deployment.model,
        operations=list(deployment.operations),
    )
