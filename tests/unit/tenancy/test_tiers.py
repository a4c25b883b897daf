"""The table of tiers: what the price list promises (PRC-1…4), and the least tier that allows a thing."""

from __future__ import annotations

import pytest

from bonito.cli import deployment
from bonito.errors import TierLimit, openai_body, problem_details
from bonito.tenancy import tiers
from bonito.tenancy.tiers import TIERS, Limits


def test_the_table_is_the_price_list() -> None:
    assert {
        "free": Limits(1, 100, 10_000, schedules=False, webhooks=False, custom_embedding_models=False),
        "pro": Limits(5, None, 500_000, schedules=True, webhooks=False, custom_embedding_models=False),
        "enterprise": Limits(None, None, None, schedules=True, webhooks=True, custom_embedding_models=True),
        "scale": Limits(None, None, None, schedules=True, webhooks=True, custom_embedding_models=True),
    } == TIERS
    assert tuple(TIERS) == tiers.NAMES


def test_the_command_line_knows_the_same_tiers() -> None:
    assert deployment.TierName == tiers.Tier


@pytest.mark.parametrize(
    ("tier", "feature", "needed"),
    [
        ("free", "schedules", "pro"),
        ("free", "webhooks", "enterprise"),
        ("pro", "custom_embedding_models", "enterprise"),
    ],
)
def test_a_refusal_names_the_least_tier_that_would_do(tier: tiers.Tier, feature: str, needed: str) -> None:
    with pytest.raises(TierLimit, match=f"need the tier {needed} or higher; this is {tier}") as caught:
        tiers.require(tier, lambda limits: getattr(limits, feature), "They", param="field")

    assert problem_details(caught.value)["required_tier"] == needed
    assert "required_tier" not in openai_body(caught.value)["error"]  # type: ignore[operator]


def test_what_is_allowed_passes() -> None:
    tiers.require("pro", lambda limits: limits.schedules, "Schedules")
