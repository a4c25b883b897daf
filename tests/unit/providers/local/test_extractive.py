from __future__ import annotations

import asyncio
import json
from typing import Any

import openai.types.chat as openai_chat
import pytest

from bonito.errors import InvalidRequest
from bonito.providers.base import Provider, ProviderRequest
from bonito.providers.local.extractive import ExtractiveProvider
from bonito.providers.local.words import count_tokens
from tests.server_sent_events import EventReader

SYSTEM = (
    "Answer from the context and cite [n]. If it does not hold the answer, say so.\n\nContext:\n"
    "[1] Full-time employees receive 25 vacation days. After five years of service they receive 28 vacation days."
    " (source: handbook.pdf, p.3)\n"
    "[2] | Country | Full day |\n| --- | --- |\n| Norway | 75 euros | (source: travel.docx)\n"
)
QUESTION = "How many vacation days are there after five years of service?"
QUOTE = "“After five years of service they receive 28 vacation days.” [1]"


def fields(question: object = QUESTION, system: str | None = SYSTEM, **given: object) -> dict[str, object]:
    messages = [{"role": "system", "content": system}] if system is not None else []
    return {"model": "extractive", "messages": [*messages, {"role": "user", "content": question}], **given}


async def ask(body: object, *, is_stream: bool = False) -> bytes:
    provider: Provider = ExtractiveProvider(clock=lambda: 1_700_000_000.9, new_id=lambda: "x")
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = await provider.call(ProviderRequest("chat.completions", raw, is_stream=is_stream))
    assert response.status == 200
    assert response.content_type == ("text/event-stream" if is_stream else "application/json")
    return b"".join([piece async for piece in response.chunks()])


async def answer(body: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await ask(body))
    return found


async def content(body: object) -> str:
    text: str = (await answer(body))["choices"][0]["message"]["content"]
    return text


async def test_the_answer_quotes_the_sentence_with_its_number_and_says_what_it_is() -> None:
    text = await content(fields())

    assert text.startswith(QUOTE)
    assert text.endswith("This is an extractive answer: no language model wrote it."
                         " The sentences above are quoted from [1] handbook.pdf, p.3.")  # fmt: skip


async def test_a_row_is_quoted_with_the_names_of_its_columns() -> None:
    text = await content(fields("What is paid for a full day in Norway?"))

    assert "“Country: Norway; Full day: 75 euros” [2]" in text
    assert "[2] travel.docx" in text


async def test_the_answer_is_one_that_openais_sdk_reads() -> None:
    body = await answer(fields())
    completion = openai_chat.ChatCompletion.model_validate(body, strict=True)

    assert (completion.id, completion.created, completion.model) == ("chatcmpl-x", 1_700_000_000, "extractive")
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == count_tokens(completion.choices[0].message.content or "")
    assert completion.usage.prompt_tokens == count_tokens(SYSTEM) + count_tokens(QUESTION)
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens


@pytest.mark.parametrize("options", [None, {"include_usage": False}, {"include_usage": True}])
async def test_a_stream_says_the_same_in_the_chunks_that_openai_sends(options: dict[str, bool] | None) -> None:
    body = fields(stream=True, stream_options=options)
    events = [event.data for event in EventReader().feed(await ask(body, is_stream=True))]
    chunks = [openai_chat.ChatCompletionChunk.model_validate(json.loads(data), strict=True) for data in events[:-1]]
    plain = await answer(fields())

    assert events[-1] == "[DONE]"
    assert chunks[0].choices[0].delta.role == "assistant"
    wants_usage = bool(options and options["include_usage"])
    choices = [chunk.choices[0] for chunk in (chunks[:-1] if wants_usage else chunks)]
    assert "".join(choice.delta.content or "" for choice in choices) == plain["choices"][0]["message"]["content"]
    assert [choice.finish_reason for choice in choices] == [None] * (len(choices) - 1) + ["stop"]
    assert (chunks[-1].usage is not None) is wants_usage
    if wants_usage:
        assert chunks[-1].choices == []
        assert json.loads(events[-2])["usage"] == plain["usage"]
        assert all(json.loads(data)["usage"] is None for data in events[:-2])


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("limit", [1, 2, 7, 10_000])
async def test_the_limit_of_tokens_is_kept(name: str, limit: int) -> None:
    whole = await answer(fields())
    cut = await answer(fields(**{name: limit}))
    text = cut["choices"][0]["message"]["content"]

    assert whole["choices"][0]["message"]["content"].startswith(text)
    assert cut["usage"]["completion_tokens"] == count_tokens(text) <= limit
    assert cut["choices"][0]["finish_reason"] == ("length" if limit < 100 else "stop")


async def test_the_lower_of_two_limits_holds_and_stop_sequences_end_the_text() -> None:
    cut = await answer(fields(max_tokens=50, max_completion_tokens=3))
    stopped = await answer(fields(stop=["nowhere", " they"]))

    assert cut["usage"]["completion_tokens"] == 3
    assert stopped["choices"][0]["message"]["content"] == "“After five years of service"
    assert stopped["choices"][0]["finish_reason"] == "stop"


async def test_without_an_answer_in_the_context_it_says_so() -> None:
    for system in (SYSTEM, "Context:\n", "Context:\nNothing was found."):
        text = await content(fields("What is the capital of France?", system))
        assert text.startswith("The context does not hold an answer")
        assert "[1]" not in text


@pytest.mark.parametrize("system", [None, "Be brief."])
async def test_without_a_context_it_says_what_it_is_and_what_to_do(system: str | None) -> None:
    text = await content(fields(QUESTION, system))

    assert "is not a language model" in text
    assert "X-Bonito-Knowledge-Base" in text
    assert "bonito providers add" in text


async def test_the_last_question_counts_and_parts_of_text_are_read() -> None:
    body = fields("What is paid for a full day in Norway?")
    messages: Any = body["messages"]
    messages += [
        {"role": "assistant", "content": None, "refusal": "no"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "vacation days"}, {"type": "text", "text": "after five years"}],
        },
        {"role": "assistant", "content": "…"},
    ]

    assert (await content(body)).startswith(QUOTE)


async def test_a_developer_message_may_hold_the_context() -> None:
    body = fields(system=None)
    messages: Any = body["messages"]
    messages.insert(0, {"role": "developer", "content": [{"type": "text", "text": SYSTEM}]})

    assert (await content(body)).startswith(QUOTE)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2),
        ("n", True),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("tool_choice", "required"),
        ("functions", [{"name": "f"}]),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("response_format", {"type": "json_object"}),
        ("logit_bias", {"1": 1}),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "x"}),
        ("store", True),
        ("reasoning_effort", "high"),
        ("something_new", 1),
        ("max_tokens", 0),
        ("max_tokens", "5"),
        ("max_completion_tokens", True),
        ("max_completion_tokens", 1.5),
        ("stop", 5),
        ("stop", ["a", 5]),
        ("stop", ["a"] * 5),
        ("stream_options", "x"),
        ("messages", []),
        ("messages", "x"),
        ("messages", None),
        ("messages", [{"content": "x"}]),
        ("messages", ["x"]),
        ("messages", [{"role": "system", "content": "x"}]),
        ("messages", [{"role": "user", "content": 5}]),
        ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await ask(fields(**{name: value}))

    assert caught.value.param == name


async def test_what_asks_for_nothing_is_taken() -> None:
    harmless = {"n": 1, "tools": [], "tool_choice": "auto", "logprobs": False, "response_format": {"type": "text"}}
    harmless |= {"temperature": 0.2, "seed": 7, "user": "u", "reasoning_effort": None, "stop": None, "logit_bias": {}}

    assert await content(fields(**harmless)) == await content(fields())


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[]", b"null", b"\xff", b"[" * 100_000])
async def test_a_body_that_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        await ask(body)


async def test_a_lone_surrogate_in_a_source_breaks_nothing() -> None:
    raw = json.dumps(fields("vacation days", "Context:\n[1] vacation days \ud800 (source: x)")).encode()

    assert "vacation days" in (await content(raw))


async def test_a_large_request_is_read_beside_the_loop() -> None:
    filler = "\n".join(f"Line {number} speaks of nothing." for number in range(5_000))
    bodies = [fields(system=SYSTEM.replace("[2] ", f"[2] {filler}\n\n")) for _ in range(3)]

    for text in await asyncio.gather(*map(content, bodies)):
        assert text.startswith(QUOTE)


async def test_only_chat_is_answered_and_one_model_is_there() -> None:
    provider = ExtractiveProvider()

    assert await provider.models() == ["extractive"]
    for operation in ("embeddings", "completions"):
        with pytest.raises(InvalidRequest):
            await provider.call(ProviderRequest(operation, b"{}"))


async def test_a_stream_that_is_closed_early_ends() -> None:
    body = json.dumps(fields()).encode()
    response = await ExtractiveProvider().call(ProviderRequest("chat.completions", body, is_stream=True))
    pieces = response.chunks()
    await anext(pieces)
    await response.aclose()

    assert [piece async for piece in pieces] == []
