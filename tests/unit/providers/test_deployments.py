"""Which provider a model's name means, and which embedding model `auto` is."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from bonito.errors import InvalidRequest, ModelNotFound
from bonito.providers.accounts import ProviderAccount
from bonito.providers.deployments import Deployment, choose_embedding, resolve

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def account(name: str, **fields: Any) -> ProviderAccount:
    values: dict[str, Any] = dict.fromkeys(ProviderAccount.__dataclass_fields__)
    values |= {"id": uuid4(), "name": name, "type": "openai_compatible", "created_at": NOW, "updated_at": NOW}
    return ProviderAccount(**values | fields)


OPENAI = account("openai", type="openai", listed_models=["gpt-4o", "text-embedding-3-small"])
AZURE = account("azure", models=["gpt-4o"])
VLLM = account("vllm", listed_models=["meta-llama/Llama-3"])
TITAN = "amazon.titan-embed-text-v2:0"
BEDROCK = account("aws", type="bedrock", region="eu-central-1", listed_models=["cohere.embed-english-v3", TITAN])
GOV = account("gov", type="bedrock", region="us-gov-west-1", models=[TITAN])
VERTEX = account(
    "gcp", type="vertex", region="europe-west4", listed_models=["gemini-embedding-001", "text-embedding-005"]
)
AZURE_EMBEDDING = account("az", type="azure_openai", models=["gpt-4o", "text-embedding-3-small", "our-embedding"])
LOCAL = account("local", type="local", listed_models=["extractive", "all-minilm-l6-v2"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("openai/gpt-4o", "openai/gpt-4o"),
        ("openai/gpt-9", "openai/gpt-9"),  # what it has is the provider's business
        ("azure/gpt-4o", "azure/gpt-4o"),
        ("vllm/meta-llama/Llama-3", "vllm/meta-llama/Llama-3"),
        ("meta-llama/Llama-3", "vllm/meta-llama/Llama-3"),
        ("extractive", "local/extractive"),
    ],
)
def test_a_name_means_one_deployment(name: str, expected: str) -> None:
    assert resolve([OPENAI, AZURE, VLLM, LOCAL], name).name == expected


@pytest.mark.parametrize("name", ["gpt-5", "azure/gpt-5", "nobody/gpt-4o", "openai/", "/gpt-4o", "azure"])
def test_a_model_that_nobody_has_is_not_found(name: str) -> None:
    with pytest.raises(ModelNotFound) as refused:
        resolve([OPENAI, AZURE], name)

    assert refused.value.param == "model"


def test_a_model_that_several_have_must_be_named_whole() -> None:
    with pytest.raises(InvalidRequest, match="openai/gpt-4o, azure/gpt-4o"):
        resolve([OPENAI, AZURE], "gpt-4o")


def test_a_single_provider_that_never_listed_its_models_may_have_any() -> None:
    unlisted = account("new")

    assert resolve([OPENAI, unlisted], "mystery").name == "new/mystery"
    with pytest.raises(ModelNotFound):
        resolve([unlisted, account("newer")], "mystery")


def test_without_providers_the_message_says_what_to_do() -> None:
    with pytest.raises(ModelNotFound, match="bonito providers add"):
        resolve([], "gpt-4o")


@pytest.mark.parametrize(
    ("accounts", "expected"),
    [
        pytest.param([OPENAI, LOCAL], "local/all-minilm-l6-v2", id="this-machine-costs-nothing"),
        pytest.param([VERTEX, AZURE_EMBEDDING, BEDROCK], f"aws/{TITAN}", id="by-price-across-clouds"),
        pytest.param([VERTEX, AZURE_EMBEDDING], "az/text-embedding-3-small", id="azures-price-is-its-own"),
        pytest.param([VERTEX], "gcp/text-embedding-005", id="vertex"),
        pytest.param([BEDROCK, OPENAI], f"aws/{TITAN}", id="the-older-of-one-price"),
        pytest.param([OPENAI, BEDROCK], "openai/text-embedding-3-small", id="the-older-of-one-price-again"),
        pytest.param([GOV, OPENAI], "openai/text-embedding-3-small", id="a-region-with-a-price-of-its-own"),
        pytest.param(
            [account("mistral", type="litellm", models=["codestral-embed", "mistral-embed"])],
            "mistral/mistral-embed",
            id="through-litellm",
        ),
        pytest.param(
            [dataclasses.replace(BEDROCK, verification_error="It refused."), VERTEX],
            "gcp/text-embedding-005",
            id="one-that-refused-does-not-count",
        ),
        pytest.param(
            [OPENAI, account("big", models=["text-embedding-3-large"])], "openai/text-embedding-3-small", id="cheapest"
        ),
        pytest.param(
            [account("openai", type="openai")], "openai/text-embedding-3-small", id="openai-before-its-first-list"
        ),
        pytest.param(
            [AZURE, account("ollama", listed_models=["llama3", "nomic-embed-text"])],
            "ollama/nomic-embed-text",
            id="the-only-one",
        ),
        pytest.param(
            [account("ollama", listed_models=["all-minilm-l6-v2"]), OPENAI],
            "openai/text-embedding-3-small",
            id="another-minilm-has-no-price",
        ),
    ],
)
def test_auto_is_the_cheapest_known_embedding_model_or_the_only_one(
    accounts: list[ProviderAccount], expected: str
) -> None:
    assert choose_embedding(accounts).name == expected


def test_auto_never_guesses_among_unknown_prices() -> None:
    with pytest.raises(ModelNotFound, match="ollama/bge-m3, ollama/nomic-embed-text"):
        choose_embedding([account("ollama", listed_models=["bge-m3", "nomic-embed-text", "llama3"])])


def test_auto_says_which_providers_do_not_answer() -> None:
    with pytest.raises(ModelNotFound, match="aws did not answer"):
        choose_embedding([dataclasses.replace(BEDROCK, verification_error="It refused.")])


@pytest.mark.parametrize(
    ("deployment", "tokens", "cost"),
    [
        (Deployment(OPENAI, "text-embedding-3-small"), 1_000, 20_000),
        (Deployment(OPENAI, "text-embedding-3-small"), 0, 0),
        (Deployment(OPENAI, "text-embedding-3-small"), None, None),
        (Deployment(LOCAL, "all-minilm-l6-v2"), None, 0),
        (Deployment(VLLM, "text-embedding-3-small"), 1_000, None),
        (Deployment(GOV, "cohere.embed-english-v3"), 1_000, None),
        (Deployment(AZURE_EMBEDDING, "our-embedding"), 1_000, None),
        (Deployment(BEDROCK, "eu.cohere.embed-v4:0"), 1_001, 120_120),
    ],
)
def test_a_price_that_is_not_known_is_never_nothing(
    deployment: Deployment, tokens: int | None, cost: int | None
) -> None:
    assert deployment.cost_nano_usd(tokens) == cost


@pytest.mark.parametrize("accounts", [[], [AZURE], [account("openai", type="openai", models=["gpt-4o"])]])
def test_auto_without_an_embedding_model_says_what_to_configure(accounts: list[ProviderAccount]) -> None:
    with pytest.raises(ModelNotFound, match="bonito providers add"):
        choose_embedding(accounts)
