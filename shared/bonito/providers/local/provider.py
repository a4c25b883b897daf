"""The provider `local`: what answers and embeds in this process, behind OpenAI's dialect."""

from __future__ import annotations

import base64
import json
import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from bonito.errors import InvalidRequest
from bonito.providers.answers import GeneratedResponse, whole
from bonito.providers.base import EmbeddingModel, ProviderRequest
from bonito.providers.local.extractive import ExtractiveProvider

MAX_TEXTS = 2048  # of one request, as at OpenAI
FIELDS = frozenset({"model", "input", "encoding_format", "dimensions", "user"})


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
            return GeneratedResponse("application/json", whole(await self._embed(asked)))
        return await self._extractive.call(request)

    async def models(self) -> list[str]:
        """The answering model and the embedding model."""
        return [*await self._extractive.models(), self._embedding_name]

    async def _embed(self, asked: Mapping[str, Any]) -> bytes:
        is_base64 = self._checked_format(asked)
        texts = _texts(asked.get("input"))
        vectors: list[array[float]] = []
        tokens: list[int] = []
        for start in range(0, len(texts), self._embedding.max_batch):
            result = await self._embedding.embed(texts[start : start + self._embedding.max_batch])
            vectors += result.vectors
            tokens.append(result.usage.input_tokens or 0)
        data = [
            {"object": "embedding", "index": index, "embedding": _base64(vector) if is_base64 else vector.tolist()}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": sum(tokens), "total_tokens": sum(tokens)}
        return json.dumps({"object": "list", "data": data, "model": self._embedding_name, "usage": usage}).encode()

    def _checked_format(self, asked: Mapping[str, Any]) -> bool:
        """Whether vectors are asked for in base64; whatever cannot be honoured is refused."""
        for name, value in asked.items():
            if name not in FIELDS and value is not None:
                raise InvalidRequest(
                    f"{self.name}/{self._embedding_name} does not know {name[:60]!r}.", param=name[:60]
                )
        dimensions = asked.get("dimensions")
        if dimensions is not None and dimensions != self._embedding.dimensions:
            raise InvalidRequest(
                f"{self.name}/{self._embedding_name} has vectors of {self._embedding.dimensions} dimensions only.",
                param="dimensions",
            )
        encoding = asked.get("encoding_format")
        if encoding not in (None, "float", "base64"):
            raise InvalidRequest("encoding_format must be float or base64.", param="encoding_format")
        return encoding == "base64"


def _texts(value: object) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise InvalidRequest("input must be a text or a list of texts, none of them empty.", param="input")
    if len(texts) > MAX_TEXTS:
        raise InvalidRequest(f"input may hold {MAX_TEXTS} texts at most.", param="input")
    return texts


def _base64(vector: Sequence[float]) -> str:
    """Little-endian 32-bit floats, as OpenAI sends them."""
    values = array("f", vector)
    if sys.byteorder == "big":
        values.byteswap()
    return base64.b64encode(values.tobytes()).decode()
