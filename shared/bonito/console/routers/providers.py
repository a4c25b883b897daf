"""/api/providers: model providers under the organization's own credentials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID, uuid4

from pydantic import BaseModel, Field, SecretStr, StringConstraints

from bonito.console.fields import Body, PerMinute
from bonito.console.pagination import DEFAULT_LIMIT, Limit, Page, TimeCursor, cursor_of, page_of, place_of
from bonito.console.permissions import Call, requires
from bonito.console.problems import responses
from bonito.console.routing import api_router
from bonito.errors import InvalidRequest, StateConflict
from bonito.knowledge import bases
from bonito.providers import accounts
from bonito.providers.accounts import ProviderAccount, ProviderSettings
from bonito.tenancy.permissions import Permission

router = api_router("/providers", "providers")

PRINTABLE = r"^[^\x00-\x20\x7f]+$"
MAX_SECRET_CHARACTERS = 8192
NOT_YET = ("secret", "connection")
MAX_NAMED = 5  # knowledge bases in a message

Model = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=PRINTABLE)]
Models = Annotated[
    Literal["all"] | Annotated[list[Model], Field(min_length=1, max_length=1000)],
    Field(description="What may be used of it; `all`: whatever the provider has."),
]
CredentialField = Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,64}$")]
# Pydantic describes the fields that fit, and not by itself that there are no others.
CredentialFields = Annotated[
    dict[CredentialField, SecretStr], Field(max_length=16, json_schema_extra={"additionalProperties": False})
]


class RateLimits(Body):
    """How often documents may be sent to an embedding model, and how much of them; null is no limit of ours."""

    requests_per_minute: PerMinute | None = None
    tokens_per_minute: PerMinute | None = None


class ProviderBody(Body):
    """A provider as it should be."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")] = Field(
        description="The part before the slash in `provider/model`; it stays.", examples=["openai"]
    )
    type: Literal["openai", "openai_compatible", "azure_openai", "bedrock", "vertex", "litellm", "local"] = Field(
        description="`openai_compatible` is every endpoint of that dialect, by its base_url; `azure_openai`, `bedrock`"
        " and `vertex` embed; `litellm` is another vendor's own; `local` answers in the process of `bonito up`. It"
        " stays."
    )
    base_url: Annotated[str, StringConstraints(max_length=2048, pattern=r"^https?://[^\x00-\x20\x7f]+$")] | None = (
        Field(
            default=None,
            description="Up to and with `/v1`; of the type azure_openai the resource's endpoint.",
            examples=["https://llm.example.com/v1"],
        )
    )
    vendor: Annotated[str, StringConstraints(max_length=64, pattern=r"^[a-z0-9_]+$")] | None = Field(
        default=None, description="Of the type litellm: LiteLLM's name of the vendor; null: the provider's own name."
    )
    region: Annotated[str, StringConstraints(max_length=32, pattern=r"^[a-z0-9-]+$")] | None = Field(
        default=None,
        description="Of the types bedrock and vertex, and of litellm where the vendor has regions.",
        examples=["eu-central-1"],
    )
    models: Models = "all"
    limits: RateLimits = Field(
        default_factory=RateLimits,
        description="Of each of its embedding models, for all workers together; questions count and never wait.",
    )
    credential: CredentialFields | None = Field(
        default=None,
        description='As `{"api_key": "…"}`; it is sealed and never shown again. azure_openai: `api_key`, and'
        " `api_version` where it is not to be the default; bedrock: `aws_access_key_id`, `aws_secret_access_key` and"
        " `aws_session_token`; vertex: `service_account`, a JSON key file, and `project` where it is not the key's.",
        examples=[{"api_key": "sk-…"}],
    )

    def settings(self) -> ProviderSettings:
        """All but the credential."""
        return ProviderSettings(
            name=self.name,
            type=self.type,
            base_url=self.base_url,
            region=self.region,
            vendor=self.vendor,
            models=None if self.models == "all" else list(dict.fromkeys(self.models)),
            requests_per_minute=self.limits.requests_per_minute,
            tokens_per_minute=self.limits.tokens_per_minute,
        )

    def opened_credential(self) -> Mapping[str, str] | None:
        """The credential by field; InvalidRequest for a form that is not supported."""
        if self.credential is None:
            return None
        opened = {name: value.get_secret_value() for name, value in self.credential.items()}
        for name, value in opened.items():
            if name in NOT_YET:
                raise InvalidRequest(f"A credential by {name} is not supported; give its fields.", param="credential")
            if not value or len(value) > MAX_SECRET_CHARACTERS or "\x00" in value:
                raise InvalidRequest(f"The credential's {name} is empty or too long.", param="credential")
        return opened


class Provider(BaseModel):
    """A provider, without its credential."""

    id: UUID
    name: str
    type: str
    base_url: str | None
    vendor: str | None
    region: str | None
    models: Literal["all"] | list[str] = Field(description="What may be used of it.")
    limits: RateLimits
    has_credential: bool
    verified_at: datetime | None = Field(description="When it last accepted the credential and listed its models.")
    verification_error: str | None = Field(description="Why it did not, when it was last asked.")
    created_at: datetime
    updated_at: datetime


@router.post("", status_code=201, responses=responses(409))
async def create_provider(
    body: ProviderBody, call: Annotated[Call, requires(Permission.PROVIDERS_MANAGE, audit="provider.create")]
) -> Provider:
    """Add a provider and call it, to see whether it takes the credential; what it said is in the answer."""
    settings, credential = body.settings(), body.opened_credential()
    call.services.registry.check(settings, credential or {})
    async with call.transaction() as conn:
        created = await accounts.create(
            conn,
            call.services.secret_box,
            org_id=call.org_id,
            provider_id=uuid4(),
            secret_id=uuid4(),
            settings=settings,
            credential=credential,
        )
    call.note(f"provider:{created.id}", name=created.name, type=created.type)
    return _shown(await call.services.registry.verify(call.org_id, created))


@router.get("")
async def list_providers(
    call: Annotated[Call, requires(Permission.PROVIDERS_READ)], limit: Limit = DEFAULT_LIMIT, cursor: TimeCursor = None
) -> Page[Provider]:
    """All providers, the oldest first."""
    async with call.transaction() as conn:
        rows = await accounts.list_page(conn, org_id=call.org_id, limit=limit + 1, after=place_of(cursor))
    return page_of(rows, limit=limit, show=_shown, cursor=lambda row: cursor_of(row.created_at, row.id))


@router.get("/{provider_id}")
async def get_provider(provider_id: UUID, call: Annotated[Call, requires(Permission.PROVIDERS_READ)]) -> Provider:
    """One provider."""
    async with call.transaction() as conn:
        return _shown(await accounts.get(conn, org_id=call.org_id, name_or_id=str(provider_id)))


@router.put("/{provider_id}", responses=responses(409))
async def change_provider(
    provider_id: UUID,
    body: ProviderBody,
    call: Annotated[Call, requires(Permission.PROVIDERS_MANAGE, audit="provider.change")],
) -> Provider:
    """Set all of a provider but its name and type; without `credential` the stored one stays, `{}` forgets it."""
    settings, credential = body.settings(), body.opened_credential()
    async with call.transaction() as conn:
        old = await accounts.get(conn, org_id=call.org_id, name_or_id=str(provider_id))
        box = call.services.secret_box
        kept = await accounts.open_credential(conn, box, org_id=call.org_id, account=old)
        call.services.registry.check(settings, kept if credential is None else credential)
        changed = await accounts.update(
            conn,
            box,
            org_id=call.org_id,
            provider_id=provider_id,
            secret_id=uuid4(),
            settings=settings,
            credential=credential,
        )
    call.note(f"provider:{provider_id}", name=changed.name, has_new_credential=bool(credential))
    return _shown(await call.services.registry.verify(call.org_id, changed))


@router.delete("/{provider_id}", status_code=204, responses=responses(409))
async def delete_provider(
    provider_id: UUID, call: Annotated[Call, requires(Permission.PROVIDERS_MANAGE, audit="provider.delete")]
) -> None:
    """Remove a provider with its credential, unless knowledge bases embed with it; gateways notice in ten seconds."""
    async with call.transaction() as conn:
        old = await accounts.get(conn, org_id=call.org_id, name_or_id=str(provider_id))
        _check_unused(old.name, await bases.embedding_with(conn, org_id=call.org_id, provider=old.name))
        await accounts.delete(conn, org_id=call.org_id, provider_id=provider_id)
    call.services.registry.forget(call.org_id)
    call.note(f"provider:{provider_id}", name=old.name)


@router.post("/{provider_id}/verify")
async def verify_provider(
    provider_id: UUID, call: Annotated[Call, requires(Permission.PROVIDERS_MANAGE, audit="provider.verify")]
) -> Provider:
    """Call the provider with its stored credential for its models; what it said is in the answer."""
    async with call.transaction() as conn:
        found = await accounts.get(conn, org_id=call.org_id, name_or_id=str(provider_id))
    verified = await call.services.registry.verify(call.org_id, found)
    call.note(f"provider:{provider_id}", name=found.name, is_verified=verified.verification_error is None)
    return _shown(verified)


def _check_unused(provider: str, names: Sequence[str]) -> None:
    """StateConflict where bases embed with the provider: without it their questions have no vectors."""
    if not names:
        return
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    raise StateConflict(
        f"Knowledge bases embed with {provider}: {', '.join(names[:MAX_NAMED])}{more}. "
        "Give them another embedding model and let them be built with it, or delete them."
    )


def _shown(account: ProviderAccount) -> Provider:
    return Provider(
        id=account.id,
        name=account.name,
        type=account.type,
        base_url=account.base_url,
        vendor=account.vendor,
        region=account.region,
        models="all" if account.models is None else account.models,
        limits=RateLimits(requests_per_minute=account.requests_per_minute, tokens_per_minute=account.tokens_per_minute),
        has_credential=account.secret_id is not None,
        verified_at=account.verified_at,
        verification_error=account.verification_error,
        created_at=account.created_at,
        updated_at=account.updated_at,
    )
