"""OpenAI's `/embeddings` over an embedding model of another dialect: the request read, the answer written."""

from __future__ import annotations

import base64
import json
import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from bonito.errors import InvalidRequest
from bonito.providers import batching
from bonito.providers.answers import GeneratedResponse, whole
from bonito.providers.base import EmbeddingModel

MAX_TEXTS = 2048  # of one request, as at OpenAI
FIELDS = frozenset({"model", "input", "encoding_format", "dimensions", "user"})


async def answer(model: EmbeddingModel, asked: Mapping[str, Any]) -> GeneratedResponse:
    """Embed what a request in OpenAI's dialect asks for.

    Args:
        model: whose name is `provider/model`.
        asked: the request's body.

    Raises:
        InvalidRequest: it names the field that is wrong or cannot be honoured.
        RateLimited, ProviderFailed, ProviderTimeout: as `EmbeddingModel.embed`.
    """
    is_base64 = _checked_format(model, asked)
    texts = _texts(asked.get("input"))
    vectors: list[array[float]] = []
    tokens: list[int | None] = []
    for call in batching.calls(model, texts):
        result = await model.embed(texts[call])
        vectors += result.vectors
        tokens.append(result.usage.input_tokens)
    data = [
        {"object": "embedding", "index": index, "embedding": _base64(vector) if is_base64 else vector.tolist()}
        for index, vector in enumerate(vectors)
    ]
    body: dict[str, object] = {"object": "list", "data": data, "model": model.name.partition("/")[2]}
    known = [count for count in tokens if count is not None]
    if len(known) == len(tokens):
        body["usage"] = {"prompt_tokens": sum(known), "total_tokens": sum(known)}
    return GeneratedResponse("application/json", whole(json.dumps(body).encode()))


def _checked_format(model: EmbeddingModel, asked: Mapping[str, Any]) -> bool:
    """Whether vectors are asked for in base64; whatever cannot be honoured is refused."""
    for name, value in asked.items():
        if name not in FIELDS and value is not None:
            raise InvalidRequest(f"{model.name} does not know {name[:60]!r}.", param=name[:60])
    dimensions = asked.get("dimensions")
    if dimensions is not None and dimensions != model.dimensions:
        raise InvalidRequest(f"{model.name} has vectors of {model.dimensions} dimensions only.", param="dimensions")
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
