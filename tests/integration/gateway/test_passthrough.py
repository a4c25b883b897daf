"""G1: what the SDK sends reaches the provider byte for byte, but for what api.md says."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest

from tests.integration.gateway.conftest import Gateway
from tests.stub_provider import StubProvider

USER: list[Any] = [{"role": "user", "content": "How many days? Émile, 日本, 🐟"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "days",
        "strict": True,
        "parameters": {"type": "object", "properties": {"who": {"type": "string"}}, "required": ["who"]},
    },
}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": {"type": "object"}}}
CORPUS: dict[str, dict[str, Any]] = {
    "plain": {},
    "sampling": {"temperature": 0.1, "top_p": 1.0, "seed": 12345678901234567890, "n": 2, "stop": ["\n", "é"]},
    "limits": {"max_completion_tokens": 100, "max_tokens": None},
    "penalties": {"presence_penalty": -2.0, "frequency_penalty": 1e-7, "logit_bias": {"50256": -100, "1": 0}},
    "logprobs": {"logprobs": True, "top_logprobs": 5},
    "tools": {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "days"}}},
    "parallel-tool-calls": {"tools": [TOOL], "parallel_tool_calls": False},
    "response-format": {"response_format": SCHEMA},
    "reasoning": {"reasoning_effort": "minimal", "verbosity": "low"},
    "bookkeeping": {
        "store": True,
        "metadata": {"a": "b"},
        "user": "u",
        "service_tier": "flex",
        "prompt_cache_key": "k",
    },
    "audio": {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}},
    "prediction": {"prediction": {"type": "content", "content": "x"}},
    "web-search": {"web_search_options": {"search_context_size": "low"}},
    "unknown-fields": {"extra_body": {"top_k": 40, "min_p": 0.05, "guided_json": {"a": [1, 2.0, None, 1e22]}}},
    "images": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is it?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}},
                    {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
                    {"type": "file", "file": {"file_id": "file-1"}},
                ],
            }
        ]
    },
    "conversation": {
        "messages": [
            {"role": "developer", "content": "Be brief."},
            *USER,
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "c", "type": "function", "function": {"name": "days", "arguments": '{"who":"é"}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "c", "content": '{"days": 20.0}'},
            {"role": "assistant", "content": "20", "refusal": None, "name": "x"},
            {"role": "user", "content": "Sure?", "name": "y"},
        ]
    },
    "stream": {"stream": True},
    "stream-with-options": {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
    "stream-with-usage-refused": {"stream": True, "stream_options": {"include_usage": False}},
}


@pytest.mark.parametrize("name", CORPUS)
async def test_what_the_sdk_sends_is_what_the_provider_gets(gateway: Gateway, stub: StubProvider, name: str) -> None:
    fields = {"messages": USER} | CORPUS[name]
    await _ask(openai.AsyncOpenAI(base_url=stub.base_url, api_key="sk-x", max_retries=0), fields | {"model": "echo"})
    await _ask(gateway.client(), fields | {"model": "stub/echo"})

    direct, through = (received.body for received in stub.received)
    expected = direct
    if name == "stream":
        expected = direct[:-1] + b',"stream_options":{"include_usage":true}}'
    if name == "stream-with-usage-refused":
        expected = direct.replace(b'"include_usage":false', b'"include_usage":true')
    assert through == expected


@pytest.mark.parametrize("name", ["plain", "tools", "unknown-fields", "images"])
async def test_the_private_field_never_reaches_a_provider(gateway: Gateway, stub: StubProvider, name: str) -> None:
    fields = {"messages": USER} | CORPUS[name]
    private = {"bonito": {"top_k": 3, "filter": {"a": "b"}}}
    await _ask(openai.AsyncOpenAI(base_url=stub.base_url, api_key="sk-x", max_retries=0), fields | {"model": "echo"})
    await _ask(gateway.client(), fields | {"model": "echo", "extra_body": (fields.get("extra_body") or {}) | private})

    direct, through = (received.body for received in stub.received)
    assert through == direct


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"model":"echo" , "messages":[],"x":1e400,"y":0.10,"z":-0}', id="numbers"),
        pytest.param(
            b'{"messages":[{"role":"user","content":"\\u00e9\\/\\ud83d\\ude00"}],\r\n\t"model":"echo"}', id="escapes"
        ),
        pytest.param(b'{"model":"echo","a":{"b":1,"b":2},"\\u0062onitoo":1}', id="odd-names"),
        pytest.param(b' {"model":"echo","big":' + b"9" * 5000 + b"} \n", id="a-long-integer"),
    ],
)
async def test_odd_json_passes_as_it_was_written(gateway: Gateway, stub: StubProvider, body: bytes) -> None:
    headers = {"authorization": f"Bearer {gateway.key}", "content-type": "application/json"}
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{gateway.url}/v1/chat/completions", content=body, headers=headers)

    assert answer.status_code == 200
    assert stub.received[-1].body == body


async def _ask(client: openai.AsyncOpenAI, fields: dict[str, Any]) -> None:
    answer = await client.chat.completions.create(**fields)
    if fields.get("stream"):
        async for _ in answer:
            pass
    await client.close()
