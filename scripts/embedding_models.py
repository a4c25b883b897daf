"""Writes shared/bonito/catalogue/embedding_models.json: facts from LiteLLM's price map, limits from the vendors' pages.

    .venv/bin/python scripts/embedding_models.py 2026-11-28

The day is that of the reading. Only figures are taken. A price of 0 in the map is a price that it does not know.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from importlib import metadata, util
from pathlib import Path
from typing import Any

PRICE_MAP = "model_prices_and_context_window_backup.json"
TABLE = Path(__file__).parents[1] / "shared" / "bonito" / "catalogue" / "embedding_models.json"

# LiteLLM's vendors whose embedding models a provider of ours can call.
VENDORS = {
    "azure": "azure",
    "bedrock": "bedrock",
    "databricks": "databricks",
    "fireworks_ai-embedding-models": "fireworks_ai",
    "gemini": "gemini",
    "mistral": "mistral",
    "nebius": "nebius",
    "novita": "novita",
    "openai": "openai",
    "scaleway": "scaleway",
    "snowflake": "snowflake",
    "together_ai": "together_ai",
    "vertex_ai-embedding-models": "vertex_ai",
}
# Of the vendors that have a client of our own: the models that it speaks to; the map has their other names too.
SPOKEN = {
    "bedrock": {
        "amazon.titan-embed-text-v2:0",
        "cohere.embed-english-v3",
        "cohere.embed-multilingual-v3",
        "cohere.embed-v4:0",
    },
    "vertex_ai": {"gemini-embedding-001", "text-embedding-005", "text-multilingual-embedding-002"},
    "azure": {"text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002"},
    "openai": {"text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002"},
}
REGIONS_APART = ("us-gov-",)

# What the map does not hold. Texts of a call, and tokens of a call.
OPENAI_PAGE = "https://platform.openai.com/docs/api-reference/embeddings/create"
AZURE_PAGE = "https://learn.microsoft.com/azure/ai-foundry/openai/how-to/embeddings"
COHERE_PAGE = "https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-embed.html"
TITAN_PAGE = "https://aws.amazon.com/bedrock/pricing/"
VERTEX_PAGE = "https://cloud.google.com/vertex-ai/generative-ai/docs/embeddings/get-text-embeddings"
LIMITS: Mapping[tuple[str, str], dict[str, Any]] = {
    ("openai", ""): {"max_batch": 2048, "max_batch_tokens": 300_000, "source": OPENAI_PAGE},
    ("azure", ""): {"max_batch": 2048, "max_batch_tokens": 300_000, "source": AZURE_PAGE},
    ("bedrock", "amazon.titan-embed"): {"max_batch": 1, "max_batch_tokens": 8192, "source": TITAN_PAGE},
    ("bedrock", "cohere.embed"): {"max_batch": 96, "source": COHERE_PAGE},
    ("vertex_ai", "text-"): {"max_batch": 250, "max_batch_tokens": 20_000, "source": VERTEX_PAGE},
    ("vertex_ai", "gemini-"): {"max_batch": 1, "max_batch_tokens": 20_000, "source": VERTEX_PAGE},
}
DIMENSIONS = {
    "cohere.embed-english-v3": 1024,
    "cohere.embed-multilingual-v3": 1024,
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}


def main() -> None:
    """Read the map of the LiteLLM that is installed, and write the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("day", type=date.fromisoformat, help="when the map was read, YYYY-MM-DD")
    day = arguments.parse_args().day
    found = [_entry(key, facts) for key, facts in _price_map().items()]
    models = sorted((entry for entry in found if entry is not None), key=_order)
    version = metadata.version("litellm")
    table = {"read_on": day.isoformat(), "read_from": f"litellm {version}, {PRICE_MAP}", "models": models}
    TABLE.write_text(json.dumps(table, indent=1) + "\n")


def _price_map() -> dict[str, dict[str, Any]]:
    """The map, found without importing LiteLLM."""
    spec = util.find_spec("litellm")
    if spec is None or spec.origin is None:
        raise SystemExit("LiteLLM is not installed.")
    found: dict[str, dict[str, Any]] = json.loads((Path(spec.origin).parent / PRICE_MAP).read_text())
    return found


def _entry(key: str, facts: dict[str, Any]) -> dict[str, Any] | None:
    """A model's entry; None for what is no text model with a price that we can call."""
    vendor = VENDORS.get(facts.get("litellm_provider", ""))
    if vendor is None or facts.get("mode") != "embedding" or not facts.get("input_cost_per_token"):
        return None
    model = key.removeprefix(f"{vendor}/")
    spoken = SPOKEN.get(vendor)
    if spoken is not None and model.removeprefix(_region(model)) not in spoken:
        return None
    price = round(Decimal(str(facts["input_cost_per_token"])) * 10**15)
    limits = next((found for (of, begin), found in LIMITS.items() if of == vendor and _named(model, begin)), {})
    entry = {
        "vendor": vendor,
        "model": model,
        "price_nano_usd": price,
        "dimensions": facts.get("output_vector_size") or DIMENSIONS.get(model),
        "max_input_tokens": facts.get("max_input_tokens") or None,
        **{field: limits.get(field) for field in ("max_batch", "max_batch_tokens")},
        "source": facts.get("source") or limits.get("source"),
    }
    return {field: value for field, value in entry.items() if value is not None}


def _region(model: str) -> str:
    """The region before a model's name, with its slash; empty for those whose prices are not their own."""
    region, slash, _ = model.partition("/")
    return region + slash if slash and region.startswith(REGIONS_APART) else ""


def _named(model: str, begin: str) -> bool:
    return model.removeprefix(_region(model)).startswith(begin)


def _order(entry: dict[str, Any]) -> tuple[str, int, str]:
    return entry["vendor"], entry["price_nano_usd"], entry["model"]


if __name__ == "__main__":
    main()
