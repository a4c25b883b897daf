"""Azure OpenAI: deployments of an Azure resource, by its key or by a token of Entra ID.

Paths and versions as in Microsoft's "Azure OpenAI in Azure AI Foundry Models REST API reference".
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from urllib.parse import quote

from bonito.catalogue import embedding_models
from bonito.clouds.access import TokenAccess
from bonito.egress.client import EgressClient
from bonito.errors import InvalidRequest
from bonito.providers import deployments
from bonito.providers.base import EmbeddingModel, ProviderRequest
from bonito.providers.openai_http import OpenAIEmbeddingModel, OpenAIProvider, RelayedResponse

API_VERSION = "2024-10-21"  # the newest that is generally available
VERSION_SHAPE = re.compile(r"\d{4}-\d{2}-\d{2}(?:-preview)?")
SCOPE = "https://cognitiveservices.azure.com/.default"
# Where a token may be sent: Microsoft's own hosts, in its public cloud and in those of governments.
OWN_HOST = re.compile(r"[a-z0-9-]+\.(?:openai|cognitiveservices|services\.ai)\.azure\.(?:com|us|cn)")
ENDPOINT_ENDS = ("/openai/v1", "/openai")
MAX_INPUT_TOKENS = 8191  # of every embedding model that Azure OpenAI has
PROBE = "Bonito"
MAX_PROBES = 10


class AzureOpenAIProvider:
    """Provider over one Azure OpenAI resource; what it calls models are its deployments. It embeds."""

    def __init__(
        self,
        client: EgressClient,
        *,
        name: str,
        endpoint_url: str,
        models: Sequence[str],
        api_key: str | None = None,
        access: TokenAccess | None = None,
        api_version: str = API_VERSION,
        token_hosts: re.Pattern[str] = OWN_HOST,
    ) -> None:
        """Check what can be checked without a connection.

        Args:
            client: the guard that all requests go through.
            name: the provider's name in its organization.
            endpoint_url: the resource's, `https://NAME.openai.azure.com`.
            models: its deployments, which it does not list.
            api_key: of the resource; None with `access`.
            access: to the tenant, for tokens of Entra ID.
            api_version: as `2024-10-21`.
            token_hosts: where tokens may be sent; a key goes wherever it was entered for.

        Raises:
            AddressNotAllowed: the endpoint.
            InvalidRequest: no deployment, no credential or two of them, or a version that is none.
        """
        if not models:
            raise InvalidRequest(
                "A provider of this type names its deployments in `models`: Azure does not list them.", param="models"
            )
        if (api_key is None) == (access is None):
            raise InvalidRequest("A provider of this type needs an api_key.", param="credential")
        if not VERSION_SHAPE.fullmatch(api_version):
            raise InvalidRequest(f"api_version is a day, like {API_VERSION}.", param="credential")
        target = client.policy.parse(endpoint_url)
        if access is not None and not token_hosts.fullmatch(target.host):
            raise InvalidRequest("A token of Entra ID is only sent to Azure's own hosts.", param="base_url")
        endpoint = target.url.with_query(None)
        end = next((end for end in ENDPOINT_ENDS if endpoint.path.rstrip("/").endswith(end)), "")
        self.name = name
        self._client, self._models, self._api_version = client, tuple(models), api_version
        self._api_key, self._access = api_key, access
        self._endpoint = str(endpoint).rstrip("/").removesuffix(end)
        if api_key is not None:  # refuses here what HTTP cannot carry
            self._speaking("", {"api-key": api_key})

    @property
    def base_url(self) -> str:
        """The resource's endpoint."""
        return self._endpoint

    async def call(self, request: ProviderRequest) -> RelayedResponse:
        """Relay a request for embeddings to the deployment that it names; InvalidRequest for other operations."""
        if request.operation != "embeddings":
            raise InvalidRequest(
                f"The provider {self.name} (azure_openai) embeds and has no operation {request.operation}."
            )
        deployment = str(json.loads(request.body)["model"])
        below = f"/deployments/{quote(deployment, safe='')}"
        return await self._speaking(below, await self._credential_headers()).call(request)

    def embedding_model(self, model: str) -> EmbeddingModel:
        """The deployment of that name; what it holds is known where it is named after its model."""
        facts = embedding_models.find("azure_openai", model)
        return OpenAIEmbeddingModel(self, model, max_input_tokens=MAX_INPUT_TOKENS, price_nano_usd=facts.price_nano_usd)

    async def models(self) -> list[str]:
        """The deployments, after a call that proves the credential, and one to each that embeds by its name."""
        await self._speaking("", await self._credential_headers()).models()
        embedding = [model for model in self._models if deployments.is_embedding(model)][:MAX_PROBES]
        await asyncio.gather(*(self.embedding_model(model).embed([PROBE], purpose="query") for model in embedding))
        return list(self._models)

    async def _credential_headers(self) -> dict[str, str]:
        if self._access is not None:
            return {"authorization": f"Bearer {(await self._access.token(SCOPE)).token}"}
        return {"api-key": self._api_key or ""}

    def _speaking(self, below: str, headers: dict[str, str]) -> OpenAIProvider:
        """OpenAI's dialect below a path of the resource."""
        base_url = f"{self._endpoint}/openai{below}?api-version={self._api_version}"
        return OpenAIProvider(self._client, name=self.name, base_url=base_url, headers=headers)
