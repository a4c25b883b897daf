"""Tiers: what an organization may have, in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, LiteralString, get_args
from uuid import UUID

from bonito.database.pool import Connection
from bonito.errors import NotFound, TierLimit

Tier = Literal["free", "pro", "enterprise", "scale"]
NAMES: tuple[Tier, ...] = get_args(Tier)

# Who runs Bonito for himself has no limits but those of his machines.
DEFAULT: Tier = "enterprise"


@dataclass(frozen=True)
class Limits:
    """What a tier allows; None is without a limit.

    Attributes:
        knowledge_bases: that exist at once.
        documents: that are served or being read, in all knowledge bases together; those in an error do not count.
        chunks: of these documents.
        schedules: whether a source may be synced by the clock.
        webhooks: whether a source may be synced by a webhook.
        custom_embedding_models: whether a knowledge base may name its embedding model.
    """

    knowledge_bases: int | None = None
    documents: int | None = None
    chunks: int | None = None
    schedules: bool = True
    webhooks: bool = True
    custom_embedding_models: bool = True


# From the least to the most.
TIERS: Mapping[Tier, Limits] = {
    "free": Limits(1, 100, 10_000, schedules=False, webhooks=False, custom_embedding_models=False),
    "pro": Limits(5, None, 500_000, schedules=True, webhooks=False, custom_embedding_models=False),
    "enterprise": Limits(),
    "scale": Limits(),
}

TIER_OF: LiteralString = "SELECT tier FROM organizations WHERE id = %(org_id)s"


async def tier_of(conn: Connection, *, org_id: UUID) -> Tier:
    """The organization's tier; NotFound."""
    found = await (await conn.execute(TIER_OF, {"org_id": org_id})).fetchone()
    if found is None:
        raise NotFound("There is no such organization.")
    tier: Tier = found[0]
    return tier


def require(tier: Tier, allows: Callable[[Limits], bool], what: str, *, param: str | None = None) -> None:
    """Refuse what the tier does not allow.

    Args:
        tier: the organization's.
        allows: whether limits do.
        what: the refused thing as the subject of a sentence, in the plural: `Schedules`.
        param: the field that asks for it.

    Raises:
        TierLimit: names the least tier that would do.
    """
    if not allows(TIERS[tier]):
        needed = least(allows)
        raise TierLimit(f"{what} need the tier {needed} or higher; this is {tier}.", param=param, required_tier=needed)


def least(allows: Callable[[Limits], bool]) -> Tier:
    """The least tier that allows something; the highest allows everything."""
    return next(tier for tier in NAMES if allows(TIERS[tier]))
