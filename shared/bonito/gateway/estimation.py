"""Tokens that nobody reported, counted from the text that passed: of silent providers, and of requests cut short."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from bonito.gateway.relay import MAX_PARSED_BYTES
from bonito.gateway.requests import GatewayRequest
from bonito.gateway.retrieval import Retrieval

CHARS_PER_TOKEN = 4  # of English, by OpenAI's rule of thumb


def input_tokens(request: GatewayRequest, retrieval: Retrieval | None) -> int:
    """About what the provider read: the caller's text and the retrieved text; images and tools are left out."""
    asked = request.body.value(
        {"chat.completions": "messages", "completions": "prompt"}.get(request.operation, "input")
    )
    retrieved = sum(len(result.content) for result in retrieval.results) if retrieval else 0
    return _tokens(_chars(asked) + retrieved)


def output_tokens(answer: bytes) -> int:
    """About what a whole answer of a chat or a completion says; 0 for one that is too large to be text."""
    if len(answer) > MAX_PARSED_BYTES:
        return 0
    try:
        parsed = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return 0
    return _tokens(_chars(parsed.get("choices"))) if isinstance(parsed, dict) else 0


def _chars(value: object) -> int:
    """The characters of texts: of messages, choices, content parts, or plain ones."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, bytes):  # a number: the id of a token
        return CHARS_PER_TOKEN
    if isinstance(value, list):
        return sum(_chars(item) for item in value)
    if isinstance(value, Mapping):
        return sum(_chars(value.get(name)) for name in ("message", "content", "text"))
    return 0


def _tokens(chars: int) -> int:
    return -(-chars // CHARS_PER_TOKEN)
