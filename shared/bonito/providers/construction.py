"""Makes a callable provider of its settings and its credential; imports only the client of its type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from bonito.clouds.access import AwsCredentials
from bonito.errors import InvalidRequest
from bonito.providers.accounts import ProviderSettings
from bonito.providers.base import EmbeddingModel, Provider

if TYPE_CHECKING:
    from bonito.egress.client import EgressClient

OPENAI_BASE_URL = "https://api.openai.com/v1"
LOCAL = "local"
SUPPORTED_TYPES = ("openai", "openai_compatible", "azure_openai", "bedrock", "vertex", "litellm")
WITH_REGION = ("bedrock", "vertex", "litellm")
OWN_ADDRESS = ("bedrock", "vertex")  # made of the region, never of what somebody typed
AWS_FIELDS: Mapping[str, re.Pattern[str]] = {
    "aws_access_key_id": re.compile(r"\w{1,128}", re.ASCII),
    "aws_secret_access_key": re.compile(r"[\w/+=]{1,256}", re.ASCII),
    "aws_session_token": re.compile(r"[\w/+=]{1,4096}", re.ASCII),
}


def make(
    client: EgressClient,
    settings: ProviderSettings,
    credential: Mapping[str, str],
    *,
    local_embedding: EmbeddingModel | None,
) -> Provider:
    """One provider; nothing is called.

    Args:
        client: the guard that all its requests will go through.
        settings: what it is.
        credential: by field.
        local_embedding: of a process that embeds and answers itself; None refuses the type local.

    Raises:
        InvalidRequest: a type that is not supported, or a field that is missing or wrong; `param` names it.
        AddressNotAllowed: the base URL is not one that requests may go to.
    """
    if (settings.name == LOCAL) != (settings.type == LOCAL):
        raise InvalidRequest("The name `local` belongs to the provider of this process.", param="name")
    _refuse_unused(settings)
    match settings.type:
        case "openai" | "openai_compatible":
            return _openai(client, settings, credential)
        case "azure_openai":
            return _azure_openai(client, settings, credential)
        case "bedrock":
            return _bedrock(client, settings, credential)
        case "vertex":
            return _vertex(client, settings, credential)
        case "litellm":
            return _litellm(client, settings, credential)
        case "local" if local_embedding is not None:
            from bonito.providers.local.provider import LocalProvider

            return LocalProvider(name=settings.name, embedding=local_embedding)
    raise InvalidRequest(
        f"Providers of the type {settings.type} are not served here; the types are {', '.join(SUPPORTED_TYPES)}.",
        param="type",
    )


def _refuse_unused(settings: ProviderSettings) -> None:
    """A field that the type does not read is a mistake that should not pass."""
    unused = {
        "vendor": settings.vendor and settings.type != "litellm",
        "region": settings.region and settings.type not in WITH_REGION,
        "base_url": settings.base_url and settings.type in OWN_ADDRESS,
    }
    for field, is_unused in unused.items():
        if is_unused:
            raise InvalidRequest(f"Providers of the type {settings.type} have no {field}.", param=field)


def _openai(client: EgressClient, settings: ProviderSettings, credential: Mapping[str, str]) -> Provider:
    from bonito.providers.openai_http import OpenAIProvider

    _check_fields(credential, optional=("api_key", "organization"))
    base_url = settings.base_url or (OPENAI_BASE_URL if settings.type == "openai" else None)
    if base_url is None:
        raise InvalidRequest("A provider of this type needs its base_url, up to and with /v1.", param="base_url")
    return OpenAIProvider(
        client,
        name=settings.name,
        base_url=base_url,
        api_key=credential.get("api_key"),
        organization=credential.get("organization"),
    )


def _azure_openai(client: EgressClient, settings: ProviderSettings, credential: Mapping[str, str]) -> Provider:
    from bonito.providers.azure_openai import API_VERSION, AzureOpenAIProvider

    _check_fields(credential, required=("api_key",), optional=("api_version",))
    if settings.base_url is None:
        raise InvalidRequest(
            "A provider of this type needs its base_url, https://NAME.openai.azure.com.", param="base_url"
        )
    return AzureOpenAIProvider(
        client,
        name=settings.name,
        endpoint_url=settings.base_url,
        models=settings.models or (),
        api_key=credential["api_key"],
        api_version=credential.get("api_version", API_VERSION),
    )


def _bedrock(client: EgressClient, settings: ProviderSettings, credential: Mapping[str, str]) -> Provider:
    from bonito.providers.bedrock import BedrockProvider
    from bonito.providers.static_keys import StaticAwsKeys

    required = ("aws_access_key_id", "aws_secret_access_key")
    _check_fields(credential, required=required, optional=("aws_session_token",))
    for field, value in credential.items():
        if not AWS_FIELDS[field].fullmatch(value):
            raise InvalidRequest(f"{field} of the credential does not look like one.", param="credential")
    keys = AwsCredentials(
        credential["aws_access_key_id"], credential["aws_secret_access_key"], credential.get("aws_session_token")
    )
    return BedrockProvider(
        client,
        name=settings.name,
        region=_region(settings),
        access=StaticAwsKeys(keys),
        models=settings.models or (),
    )


def _vertex(client: EgressClient, settings: ProviderSettings, credential: Mapping[str, str]) -> Provider:
    from bonito.providers.service_account import ServiceAccountAccess, ServiceAccountKey
    from bonito.providers.vertex import VertexProvider

    _check_fields(credential, required=("service_account",), optional=("project",))
    key = ServiceAccountKey.from_json(credential["service_account"])
    return VertexProvider(
        client,
        name=settings.name,
        project=credential.get("project", key.project_id),
        region=_region(settings),
        access=ServiceAccountAccess(client, key),
        models=settings.models or (),
    )


def _litellm(client: EgressClient, settings: ProviderSettings, credential: Mapping[str, str]) -> Provider:
    from bonito.providers.litellm_adapter import LiteLLMProvider

    region = {"aws_region_name": settings.region} if settings.region else {}
    return LiteLLMProvider(
        client,
        name=settings.name,
        vendor=settings.vendor or settings.name,
        credential={**credential, **region},
        base_url=settings.base_url,
        models=settings.models or (),
    )


def _region(settings: ProviderSettings) -> str:
    if settings.region is None:
        raise InvalidRequest("A provider of this type needs its region.", param="region")
    return settings.region


def _check_fields(
    credential: Mapping[str, str], *, required: tuple[str, ...] = (), optional: tuple[str, ...] = ()
) -> None:
    """Refuse a credential with other fields, or without those that it must have."""
    if credential.keys() - {*required, *optional}:
        raise InvalidRequest(
            f"The credential of this type has the fields {', '.join((*required, *optional))}.", param="credential"
        )
    missing = [field for field in required if field not in credential]
    if missing:
        raise InvalidRequest(f"The credential lacks {' and '.join(missing)}.", param="credential")
