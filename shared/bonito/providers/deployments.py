"""Which provider a model's name means, what an organization can call, and which embedding model `auto` is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter

from bonito.catalogue import embedding_models
from bonito.catalogue.embedding_models import EmbeddingFacts
from bonito.errors import InvalidRequest, ModelNotFound
from bonito.providers.accounts import ProviderAccount

AUTO = "auto"
MAX_NAMED = 5  # models that a message lists
# How the models of others show what they are for: nomic-embed-text, mxbai-embed-large, bge-m3, e5-mistral, gte-large.
EMBEDDING_NAME = re.compile(r"embed|minilm|(?:^|[/_-])(?:bge|e5|gte)(?:[-_]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Deployment:
    """A model at one provider of the organization; `model` is the provider's own name for it."""

    account: ProviderAccount
    model: str

    @property
    def name(self) -> str:
        """As a caller names it."""
        return f"{self.account.name}/{self.model}"

    @property
    def is_free(self) -> bool:
        """Models of this process cost nothing."""
        return self.account.type == "local"

    @property
    def facts(self) -> EmbeddingFacts:
        """What is known of it as an embedding model, its price above all."""
        account = self.account
        if self.is_free:
            return EmbeddingFacts("local", self.model, price_nano_usd=0)
        vendor = (account.vendor or account.name) if account.type == "litellm" else account.type
        return embedding_models.find(vendor, self.model, region=account.region)

    def cost_nano_usd(self, input_tokens: int | None) -> int | None:
        """What embedding so many tokens costs; None where the price or the number is unknown."""
        return embedding_models.cost_nano_usd(self.facts.price_nano_usd, input_tokens)

    @property
    def operations(self) -> tuple[str, ...]:
        """What it is for, as far as its name tells."""
        return ("embeddings",) if is_embedding(self.model) else ("chat.completions",)


def resolve(accounts: Sequence[ProviderAccount], name: str) -> Deployment:
    """The deployment that a caller means by `provider/model`, or by `model` where one provider has it.

    Raises:
        ModelNotFound: no provider has it.
        InvalidRequest: several have it.
    """
    prefix, _, rest = name.partition("/")
    for account in accounts:
        if account.name == prefix and rest:
            return _of_provider(account, rest)
    holders = [account for account in accounts if name in account.known_models()]
    if not holders:  # a provider that never listed its models may have any
        holders = [account for account in accounts if account.is_unlisted]
        holders = holders if len(holders) == 1 else []
    if not holders:
        raise ModelNotFound(_no_model(accounts, name), param="model")
    if len(holders) > 1:
        names = ", ".join(f"{account.name}/{name}" for account in holders[:MAX_NAMED])
        raise InvalidRequest(f"Several providers have the model {name}; name one of {names}.", param="model")
    return Deployment(holders[0], name)


def offered(accounts: Sequence[ProviderAccount]) -> Iterator[Deployment]:
    """Everything that is known to be callable, provider by provider."""
    for account in accounts:
        for model in account.known_models():
            yield Deployment(account, model)


def choose_embedding(accounts: Sequence[ProviderAccount]) -> Deployment:
    """What `auto` means here: the cheapest embedding model by price, or the only one there is.

    Of two with one price it is that of the older provider. A provider that refused when it was last called does not
    count, nor does one whose price is unknown beside one whose price is known.

    Raises:
        ModelNotFound: there is none, or there are several of which no price is known; the message says what to do.
    """
    active = [account for account in accounts if account.verification_error is None]
    candidates = [deployment for deployment in offered(active) if is_embedding(deployment.model)]
    candidates += [
        Deployment(account, model)
        for account in active
        if account.type == "openai" and account.is_unlisted
        for model in embedding_models.known_models("openai")
    ]
    priced = [
        (price, deployment) for deployment in candidates if (price := deployment.facts.price_nano_usd) is not None
    ]
    if priced:
        return min(priced, key=itemgetter(0))[1]
    if len(candidates) == 1:
        return candidates[0]
    raise ModelNotFound(_no_embedding(accounts, candidates), param="embedding_model")


def is_embedding(model: str) -> bool:
    """Whether the name is that of an embedding model, as far as names tell."""
    return EMBEDDING_NAME.search(model) is not None


def _of_provider(account: ProviderAccount, model: str) -> Deployment:
    """A provider without a list of its own decides itself what it has; its listing may be old or incomplete."""
    if account.models is not None and model not in account.models:
        raise ModelNotFound(f"The provider {account.name} is not set up for the model {model}.", param="model")
    return Deployment(account, model)


def _no_model(accounts: Sequence[ProviderAccount], name: str) -> str:
    if not accounts:
        return "No provider is set up yet: add one with `bonito providers add` or POST /api/providers."
    names = ", ".join(account.name for account in accounts[:MAX_NAMED])
    return f"No provider has the model {name}. Name it as `provider/model`; the providers are {names}."


def _no_embedding(accounts: Sequence[ProviderAccount], candidates: Sequence[Deployment]) -> str:
    """Why there is no `auto`, and what to do."""
    if candidates:
        names = ", ".join(deployment.name for deployment in candidates[:MAX_NAMED])
        return f"The organization has several embedding models, and none has a known price; name one: {names}."
    refused = ", ".join(account.name for account in accounts if account.verification_error is not None)
    return (
        "No provider of this organization has an embedding model. Add one that does (`bonito providers add`, or"
        " POST /api/providers), or name a model as `provider/model`."
        + (f" Of those that there are, {refused} did not answer when last called." if refused else "")
    )
