"""The table of prices: whole numbers with their origin, and never a price for what is not in it."""

from __future__ import annotations

import json
from datetime import date
from importlib import resources

import pytest

from bonito.catalogue.embedding_models import cost_nano_usd, find, known_models

TABLE = json.loads(resources.files("bonito.catalogue").joinpath("embedding_models.json").read_text())


def test_the_table_says_when_and_where_it_was_read() -> None:
    assert date.fromisoformat(TABLE["read_on"]) <= date.today()  # noqa: DTZ011
    assert TABLE["read_from"].startswith("litellm ")


def test_every_price_is_a_whole_positive_number_of_a_plausible_size() -> None:
    prices = [entry["price_nano_usd"] for entry in TABLE["models"]]

    assert all(isinstance(price, int) for price in prices)
    assert min(prices) >= 1_000_000, "a thousandth of a cent for a thousand tokens"
    assert max(prices) <= 1_000_000_000


def test_no_model_is_twice_in_the_table() -> None:
    names = [(entry["vendor"], entry["model"]) for entry in TABLE["models"]]

    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("vendor", "model", "price", "dimensions"),
    [
        ("openai", "text-embedding-3-small", 20_000_000, 1536),
        ("azure_openai", "text-embedding-3-large", 143_000_000, 3072),
        ("bedrock", "amazon.titan-embed-text-v2:0", 20_000_000, 1024),
        ("bedrock", "global.cohere.embed-v4:0", 120_000_000, 1536),
        ("vertex", "text-embedding-005", 100_000_000, 768),
        ("openai_compatible", "text-embedding-3-small", None, None),
        ("nobody", "text-embedding-3-small", None, None),
    ],
)
def test_a_model_is_known_by_its_vendor_and_name(
    vendor: str, model: str, price: int | None, dimensions: int | None
) -> None:
    facts = find(vendor, model)

    assert (facts.price_nano_usd, facts.dimensions) == (price, dimensions)


def test_the_models_of_a_vendor_come_the_cheapest_first() -> None:
    assert known_models("openai") == ("text-embedding-3-small", "text-embedding-ada-002", "text-embedding-3-large")
    assert known_models("nobody") == ()


@pytest.mark.parametrize(
    ("price", "tokens", "cost"),
    [(20_000_000, 20, 400), (1, 1, 1), (1_000_001, 1, 2), (0, 5, 0), (0, None, 0), (5, 0, 0), (None, 5, None)],
)
def test_a_cost_is_rounded_up_to_a_whole_nano_dollar(price: int | None, tokens: int | None, cost: int | None) -> None:
    assert cost_nano_usd(price, tokens) == cost
