"""Reading a request: what is used is checked, the rest reaches the provider as it came."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bonito.errors import InvalidRequest
from bonito.gateway.requests import GatewayRequest, parse
from bonito.metering.usage import Operation

MESSAGES = [{"role": "user", "content": "How many days?"}]


def read(body: Any, *, operation: Operation = "chat.completions", header: str | None = None) -> GatewayRequest:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse(raw, operation=operation, headers={} if header is None else {"x-bonito-knowledge-base": header})


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "openai/gpt-4o", "messages": MESSAGES} | fields


@pytest.mark.parametrize(
    ("body", "param"),
    [
        pytest.param(b"", None, id="empty"),
        pytest.param(b"{", None, id="cut"),
        pytest.param(b"[]", None, id="array"),
        pytest.param(b'{"model": "a\xff"}', None, id="not-utf8"),
        pytest.param(json.dumps(chat()).encode("utf-16"), None, id="utf-16"),
        pytest.param(b'{"model":"a","model":"b"}', None, id="twice"),
        pytest.param({"messages": []}, "model", id="no-model"),
        pytest.param(chat(model=3), "model", id="model-is-a-number"),
        pytest.param(chat(model=""), "model", id="model-is-empty"),
        pytest.param(chat(model="a\nb"), "model", id="model-with-a-line-end"),
        pytest.param(b'{"model":"a\\u0000"}', "model", id="model-with-a-nul"),
        pytest.param(b'{"model":"\\ud800"}', "model", id="model-with-half-a-pair"),
        pytest.param(chat(model="m" * 257), "model", id="model-is-too-long"),
        pytest.param(chat(Model="gpt-4"), "model", id="spelling"),
        pytest.param(chat() | {"\u017ftream": True}, "stream", id="spelling-of-another-alphabet"),
        pytest.param(chat(stream="yes"), "stream", id="stream-is-a-text"),
        pytest.param(chat(stream=1), "stream", id="stream-is-a-number"),
        pytest.param(chat(stream=True, stream_options=[]), "stream_options", id="stream-options"),
        pytest.param(chat(stream=True, stream_options={"include_usage": 1}), "include_usage", id="include-usage"),
        pytest.param(chat(bonito=[]), "bonito", id="bonito-is-a-list"),
        pytest.param(chat(bonito={"knowledge_bases": "a"}), "bonito.knowledge_bases", id="unknown"),
        pytest.param(chat(bonito={"knowledge_base": ""}), "bonito.knowledge_base", id="no-name"),
        pytest.param(chat(bonito={"knowledge_base": []}), "bonito.knowledge_base", id="no-names"),
        pytest.param(chat(bonito={"knowledge_base": [1]}), "bonito.knowledge_base", id="a-number-for-a-name"),
        pytest.param(chat(bonito={"top_k": 0}), "bonito.top_k", id="top-k-0"),
        pytest.param(chat(bonito={"top_k": 5.5}), "bonito.top_k", id="top-k-5.5"),
        pytest.param(chat(bonito={"top_k": "5"}), "bonito.top_k", id="top-k-text"),
        pytest.param(chat(bonito={"top_k": True}), "bonito.top_k", id="top-k-true"),
        pytest.param(chat(bonito={"min_score": 1.1}), "bonito.min_score", id="min-score"),
        pytest.param(chat(bonito={"mode": "semantic"}), "bonito.mode", id="mode"),
        pytest.param(chat(bonito={"on_error": "ignore"}), "bonito.on_error", id="on-error"),
        pytest.param(chat(bonito={"filter": "a"}), "bonito.filter", id="filter"),
        pytest.param(chat(bonito={"knowledge_base": "a"}, messages=[]), "messages", id="no-message"),
        pytest.param(chat(bonito={"knowledge_base": "a"}, messages="hi"), "messages", id="messages-are-text"),
        pytest.param(
            chat(bonito={"knowledge_base": "a"}, messages=[{"role": "user", "content": " "}]), "messages", id="blank"
        ),
        pytest.param(
            chat(bonito={"knowledge_base": "a"}, messages=[{"role": "assistant", "content": "x"}]),
            "messages",
            id="no-user",
        ),
    ],
)
def test_a_wrong_field_is_named(body: Any, param: str | None) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(body)

    assert refused.value.param == param


def test_a_message_of_an_error_repeats_no_content() -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(b'{"model": "x", "messages": "the secret plan", }')

    assert "secret" not in refused.value.message
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("messages", "query"),
    [
        pytest.param(MESSAGES, "How many days?", id="plain"),
        pytest.param(
            [*MESSAGES, {"role": "assistant", "content": "20"}, {"role": "user", "content": " And NY? "}],
            "And NY?",
            id="last",
        ),
        pytest.param(
            [*MESSAGES, {"role": "assistant", "tool_calls": []}, {"role": "tool", "content": "{}"}],
            "How many days?",
            id="before-a-tool",
        ),
        pytest.param(
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What"},
                        {"type": "image_url"},
                        {"type": "text", "text": "is it?"},
                    ],
                }
            ],
            "What\nis it?",
            id="parts",
        ),
        pytest.param(
            [*MESSAGES, {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}],
            "How many days?",
            id="an-image-alone-is-passed-over",
        ),
        pytest.param([{"role": "user", "content": "a\x00b\ud800c"}], "a b\ufffdc", id="what-cannot-be-stored"),
    ],
)
def test_the_last_question_is_searched_for(messages: list[Any], query: str) -> None:
    retrieval = read(chat(messages=messages, bonito={"knowledge_base": "hr"})).retrieval

    assert retrieval is not None
    assert retrieval.query == query


@pytest.mark.parametrize(
    ("field", "header", "expected"),
    [
        pytest.param("hr", None, ("hr",), id="one"),
        pytest.param(["hr", "legal", "hr"], None, ("hr", "legal"), id="several"),
        pytest.param("*", None, "*", id="all"),
        pytest.param(["hr", "*"], None, "*", id="all-and-one"),
        pytest.param(None, "hr", ("hr",), id="header"),
        pytest.param("hr", "legal , ops", ("legal", "ops"), id="the-header-wins"),
        pytest.param("hr", "*", "*", id="header-for-all"),
    ],
)
def test_knowledge_bases_are_named_in_body_or_header(field: Any, header: str | None, expected: Any) -> None:
    retrieval = read(chat(bonito={"knowledge_base": field}), header=header).retrieval

    assert retrieval is not None
    assert retrieval.knowledge_bases == expected


@pytest.mark.parametrize("header", ["", " ", "a,,b", ",", "a" * 30_000])
def test_a_header_without_a_name_is_refused(header: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(chat(), header=header)

    assert refused.value.param == "X-Bonito-Knowledge-Base"


@pytest.mark.parametrize("field", [None, {}, {"top_k": 3}])
def test_without_a_knowledge_base_nothing_is_searched(field: Any) -> None:
    request = read(chat(bonito=field))

    assert request.retrieval is None
    assert json.loads(request.provider_body(model="gpt-4o", context=None)) == {"model": "gpt-4o", "messages": MESSAGES}


def test_embeddings_ignore_the_header_and_refuse_the_field() -> None:
    assert read({"model": "m", "input": "x"}, operation="embeddings", header="hr").retrieval is None
    with pytest.raises(InvalidRequest):
        read({"model": "m", "input": "x", "bonito": {"knowledge_base": "hr"}}, operation="embeddings")


def test_the_context_goes_in_front_and_the_rest_stays() -> None:
    body = (
        b'{"model":"p/m", "messages" :[ {"role":"user","content":"h\\u00e9"} ],"seed":1e3,'
        b'"bonito":{"knowledge_base":"hr"}}'
    )

    sent = read(body).provider_body(model="m", context='Say "é".')

    assert sent == (
        b'{"model":"m", "messages" :[{"role": "system", "content": "Say \\"\xc3\xa9\\"."},'
        b' {"role":"user","content":"h\\u00e9"} ],"seed":1e3}'
    )


def test_a_request_that_needs_no_change_is_the_same_bytes() -> None:
    body = b'{"model" : "m","messages":[],"stream":true,"stream_options":{"include_usage":true, "x":1}}\n'

    assert read(body).provider_body(model="m", context=None) == body


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (None, {"include_usage": True}),
        ({}, {"include_usage": True}),
        ({"include_usage": False, "include_obfuscation": False}, {"include_usage": True, "include_obfuscation": False}),
        ({"include_usage": None}, {"include_usage": True}),
    ],
)
def test_usage_is_asked_of_the_provider_even_when_the_caller_did_not(options: Any, expected: Any) -> None:
    request = read(chat(stream=True, stream_options=options))

    assert not request.wants_usage
    assert json.loads(request.provider_body(model="m", context=None))["stream_options"] == expected


def test_stream_options_of_a_whole_answer_are_left_alone() -> None:
    body = json.dumps(chat(model="m", stream=False, stream_options={"include_usage": False})).encode()

    assert read(body).provider_body(model="m", context=None) == body


def test_a_prompt_is_augmented_in_front() -> None:
    request = read({"model": "m", "prompt": "How many?", "bonito": {"knowledge_base": "hr"}}, operation="completions")

    assert request.retrieval is not None
    assert request.retrieval.query == "How many?"
    assert json.loads(request.provider_body(model="m", context="C"))["prompt"] == "C\n\nHow many?"


@pytest.mark.parametrize("prompt", [None, "", ["a", "b"], [1, 2]])
def test_a_knowledge_base_needs_one_prompt(prompt: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read({"model": "m", "prompt": prompt, "bonito": {"knowledge_base": "hr"}}, operation="completions")

    assert refused.value.param == "prompt"
