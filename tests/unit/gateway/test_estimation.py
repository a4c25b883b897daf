"""Tokens that nobody reported."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bonito.gateway.estimation import input_tokens, output_tokens
from bonito.gateway.requests import parse
from bonito.metering.usage import Operation


@pytest.mark.parametrize(
    ("operation", "fields", "tokens"),
    [
        ("chat.completions", {"messages": [{"role": "user", "content": "x" * 9}]}, 3),
        (
            "chat.completions",
            {"messages": [{"content": [{"type": "text", "text": "abcd"}, {"image_url": {"url": "x" * 99}}]}]},
            1,
        ),
        ("chat.completions", {"messages": [{"role": "assistant", "content": None, "tool_calls": [1]}, None]}, 0),
        ("chat.completions", {"messages": "odd"}, 1),
        ("chat.completions", {}, 0),
        ("completions", {"prompt": ["abcd", "efgh"]}, 2),
        ("completions", {"prompt": [1, 2, 3]}, 3),
        ("embeddings", {"input": "abcde"}, 2),
    ],
)
def test_input_is_counted_from_text_alone(operation: Operation, fields: dict[str, Any], tokens: int) -> None:
    request = parse(json.dumps({"model": "m"} | fields).encode(), operation=operation, headers={})

    assert input_tokens(request, None) == tokens


@pytest.mark.parametrize(
    ("answer", "tokens"),
    [
        (b'{"choices":[{"message":{"content":"12345678"}},{"message":{"content":null}}]}', 2),
        (b'{"choices":[{"text":"1234"}]}', 1),
        (b'{"data":[]}', 0),
        (b"[]", 0),
        (b"no json", 0),
        (b"", 0),
        (b"x" * 3_000_000, 0),
    ],
)
def test_output_is_counted_from_the_choices(answer: bytes, tokens: int) -> None:
    assert output_tokens(answer) == tokens
