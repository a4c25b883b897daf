"""The provider `local`: what answers and embeds in this process, behind OpenAI's dialect."""

from __future__ import annotations

import json
from typing import Any

from bonito.errors import InvalidRequest
from bonito.providers import embedding_answers
from bonito.providers.answers import GeneratedResponse
from bonito.providers.base import EmbeddingModel, ProviderRequest
from bonito.providers.local.extractive import ExtractiveProvider


class LocalProvider:
    """Provider over the extractive answers and one embedding model of this process."""

    def __init__(self, *, name: str, embedding: EmbeddingModel) -> None:
        """Bind the embedding model, whose name is `…/model`, to the provider's name."""
        self.name = name
        self._extractive = ExtractiveProvider(name=name)
        self._embedding = embedding
        self._embedding_name = embedding.name.rpartition("/")[2]

    async def call(self, request: ProviderRequest) -> GeneratedResponse:
        """Answer a chat, or embed; InvalidRequest names the field that is wrong or cannot be honoured."""
        asked: dict[str, Any] = json.loads(request.body)
        if (request.operation == "embeddings") != (asked["model"] == self._embedding_name):
            purpose = "embeds nothing" if request.operation == "embeddings" else "only embeds"
            raise InvalidRequest(f"{self.name}/{asked['model']} {purpose}.", param="model")
        if request.operation == "embeddings":
            return await embedding_answers.answer(self._embedding, asked)
        return await self._extractive.call(request)

    async def models(self) -> list[str]:
        """The answering model and the embedding model."""
        return [*await self._extractive.models(), self._embedding_name]
