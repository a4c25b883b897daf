"""Prices and sizes of embedding models; the table beside this file is written by scripts/embedding_models.py."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

# The vendors whose names differ from the types of our providers.
VENDOR_OF_TYPE: Mapping[str, str] = {"azure_openai": "azure", "vertex": "vertex_ai"}
# Regions whose prices are their own: a general price must not pass for theirs.
REGIONS_APART = ("us-gov-", "cn-")
# Bedrock's inference profiles: the same model, called in any region of a part of the world.
PROFILES = ("global.", "us.", "eu.", "apac.", "jp.", "au.")


@dataclass(frozen=True)
class EmbeddingFacts:
    """What a vendor says of an embedding model; None where it says nothing.

    Attributes:
        price_nano_usd: of a million tokens, in nano-dollars.
        dimensions: of a vector when no others are asked for.
        max_input_tokens: of one text.
        max_batch: most texts of one call.
        max_batch_tokens: most tokens of one call.
        source: the page that says so.
    """

    vendor: str
    model: str
    price_nano_usd: int | None = None
    dimensions: int | None = None
    max_input_tokens: int | None = None
    max_batch: int | None = None
    max_batch_tokens: int | None = None
    source: str | None = None


def find(vendor: str, model: str, *, region: str | None = None) -> EmbeddingFacts:
    """What is known of a vendor's model; nothing but its name where it is not in the table.

    Args:
        vendor: a provider's type, or LiteLLM's name of the vendor.
        model: as the vendor names it.
        region: where it is called; some have prices of their own, or none that are known.
    """
    vendor = VENDOR_OF_TYPE.get(vendor, vendor)
    if vendor == "bedrock":
        model = next((model.removeprefix(profile) for profile in PROFILES if model.startswith(profile)), model)
    of_region = f"{region}/" if region and region.startswith(REGIONS_APART) else ""
    return _table().get((vendor, of_region + model)) or EmbeddingFacts(vendor, model)


def known_models(vendor: str) -> tuple[str, ...]:
    """The models of a vendor that have a price, the cheapest first."""
    vendor = VENDOR_OF_TYPE.get(vendor, vendor)
    found = [facts for facts in _table().values() if facts.vendor == vendor and facts.price_nano_usd is not None]
    return tuple(facts.model for facts in sorted(found, key=lambda facts: facts.price_nano_usd or 0))


def cost_nano_usd(price_nano_usd: int | None, tokens: int | None) -> int | None:
    """What so many tokens cost at a price per million, rounded up; None where one of the two is unknown."""
    if price_nano_usd == 0 or tokens == 0:
        return 0
    if price_nano_usd is None or tokens is None:
        return None
    return -(-price_nano_usd * tokens // 1_000_000)


@cache
def _table() -> Mapping[tuple[str, str], EmbeddingFacts]:
    text = resources.files("bonito.catalogue").joinpath("embedding_models.json").read_text()
    models = [EmbeddingFacts(**entry) for entry in json.loads(text)["models"]]
    return {(facts.vendor, facts.model): facts for facts in models}
