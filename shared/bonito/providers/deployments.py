"""Which provider a model's name means, what an organization can call, and which embedding model `auto` is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bonito.errors import InvalidRequest, ModelNotFound
from bonito.providers.accounts import ProviderAccount

AUTO = "auto"
MAX_NAMED = 5  # models that a message lists
# The cheapest first; dollars per million tokens from the vendors' price pages.
KNOWN_EMBEDDINGS = (
    "all-minilm-l6-v2",  # in this process: nothing
    "text-embedding-3-small",  # 0.02
    "text-embedding-ada-002",  # 0.10
    "text-embedding-3-large",  # 0.13
)
OPENAI_EMBEDDINGS = KNOWN_EMBEDDINGS[1:]
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
        """Models of this process cost nothing; what others cost is not known before there is a catalogue of prices."""
        return self.account.type == "local"

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
    """What `auto` means here: the cheapest known embedding model, or the only one there is.

    Raises:
        ModelNotFound: there is none, or there are several of which no price is known; the message says what to do.
    """
    candidates = [deployment for deployment in offered(accounts) if is_embedding(deployment.model)]
    candidates += [
        Deployment(account, model)
        for account in accounts
        if account.type == "openai" and account.is_unlisted
        for model in OPENAI_EMBEDDINGS
    ]
    known = [deployment for deployment in candidates if _rank(deployment) < len(KNOWN_EMBEDDINGS)]
    if known:
        return min(known, key=_rank)
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        names = ", ".join(deployment.name for deployment in candidates[:MAX_NAMED])
        raise ModelNotFound(
            f"The organization has several embedding models, and none is known to be the cheapest; name one: {names}.",
            param="embedding_model",
        )
    raise ModelNotFound(
        "No provider of this organization has an embedding model. Add one that does (`bonito providers add`, or"
        " POST /api/providers), or name a model as `provider/model`.",
        param="embedding_model",
    )


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


def _rank(deployment: Deployment) -> int:
    """The place among the known ones; a model of this process only there, whatever others call theirs."""
    is_ours = deployment.account.type == "local"
    model = deployment.model
    if model not in KNOWN_EMBEDDINGS or (model == KNOWN_EMBEDDINGS[0] and not is_ours):
        return len(KNOWN_EMBEDDINGS)
    return KNOWN_EMBEDDINGS.index(model)
