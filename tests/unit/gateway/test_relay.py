"""The relay of streams: the provider's bytes as they come, our one key, and what is held back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bonito.errors import ProviderFailed, RateLimited
from bonito.gateway.relay import StreamRelay, usage_of, with_bonito
from bonito.metering.usage import Operation
from bonito.providers.base import Usage
from tests.stub_provider import USAGE, WORDS, chunk, encode, head, stream_events

DONE = b"data: [DONE]\n\n"
ROLE = chunk("m", {"role": "assistant", "content": ""})
TEXT = chunk("m", {"content": "hello"})
FINISH = chunk("m", {}, finish_reason="stop")
USAGE_CHUNK = encode({**head("m"), "choices": [], "usage": USAGE})


def closing(usage: Usage | None) -> bytes:
    return json.dumps({"tokens": usage.output_tokens if usage else None}).encode()


def make(
    *, opening: bytes | None = None, shows_usage: bool = False, operation: Operation = "chat.completions"
) -> StreamRelay:
    return StreamRelay(operation, opening=opening, closing=closing, shows_usage=shows_usage)


def relay_all(*pieces: bytes, **options: Any) -> bytes:
    relay = make(**options)
    out = b"".join(relay.feed(piece) for piece in pieces) + relay.finish()
    assert relay.failure is None
    return out


def finished(event: bytes, tokens: int | None) -> bytes:
    """The event with our key."""
    return event.rstrip()[:-1] + b',"bonito":' + json.dumps({"tokens": tokens}).encode() + b"}\n\n"


def test_bytes_pass_untouched_and_the_last_chunk_carries_the_key() -> None:
    out = relay_all(ROLE, TEXT, FINISH, USAGE_CHUNK, DONE)

    assert out == ROLE + TEXT + finished(FINISH, 3) + DONE


def test_a_caller_who_asked_for_usage_gets_it_behind_the_finish() -> None:
    out = relay_all(ROLE, TEXT, FINISH, USAGE_CHUNK, DONE, shows_usage=True)

    assert out == ROLE + TEXT + finished(FINISH, 3) + USAGE_CHUNK + DONE


def test_a_chunk_passes_as_soon_as_it_is_whole() -> None:
    relay = make()

    assert relay.feed(ROLE + TEXT[:20]) == ROLE
    assert relay.feed(TEXT[20:]) == TEXT
    assert relay.feed(b": keep-alive\n\n") == b": keep-alive\n\n"


def test_our_first_chunk_looks_like_the_providers_and_tells_the_role_once() -> None:
    out = relay_all(ROLE, TEXT, FINISH, DONE, opening=b'{"sources":[]}')

    first, second, *_ = (json.loads(event[6:]) for event in out.split(b"\n\n")[:2])
    assert first == {
        **head("m"),
        "choices": [{"index": 0, "delta": {"role": "assistant"}, "logprobs": None, "finish_reason": None}],
        "bonito": {"sources": []},
    }
    assert second["choices"][0]["delta"] == {"content": ""}
    assert out.endswith(TEXT + finished(FINISH, None) + DONE)


def test_our_first_chunk_comes_before_a_first_chunk_without_choices() -> None:
    azure = encode({"choices": [], "created": 0, "id": "", "model": "", "prompt_filter_results": []})

    out = relay_all(azure, ROLE, FINISH, DONE, opening=b"{}")

    assert b'"bonito":{}' in out.split(b"\n\n")[0]
    assert out.split(b"\n\n")[1] == azure.strip()
    assert out.count(b'"role"') == 1


@pytest.mark.parametrize("stream_end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_every_way_to_end_a_line_is_understood(stream_end: bytes) -> None:
    events = [event[:-2] + stream_end for event in (ROLE, TEXT, FINISH, USAGE_CHUNK, DONE)]

    out = relay_all(*events)

    assert out == events[0] + events[1] + finished(FINISH, 3) + events[4]


@example([1, 248, 400], False, False)  # cuts the last CRLF of an event in two
@given(st.lists(st.integers(min_value=1, max_value=400), max_size=12), st.booleans(), st.booleans())
def test_any_split_into_pieces_gives_the_same_bytes(sizes: list[int], shows_usage: bool, has_opening: bool) -> None:
    stream = b"\xef\xbb\xbf" + ROLE + b": hi\n\n" + TEXT + b"id: 3\r\nevent: x\r\n" + TEXT[:-2] + b"\r\n\r\n"
    stream += FINISH + USAGE_CHUNK + DONE
    options: dict[str, Any] = {"shows_usage": shows_usage, "opening": b"{}" if has_opening else None}
    pieces, rest = [], stream
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]

    assert relay_all(*pieces, rest, **options) == relay_all(stream, **options)


@pytest.mark.parametrize("stream_end", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r", b"\r\n\n", b"\n\r\n", b"\r\r\n"])
def test_every_byte_may_come_alone(stream_end: bytes) -> None:
    stream = b"".join(event[:-2] + stream_end for event in (ROLE, TEXT, TEXT, FINISH, USAGE_CHUNK, DONE))

    out = relay_all(*(stream[at : at + 1] for at in range(len(stream))))

    assert [line for line in out.replace(b"\r", b"\n").split(b"\n") if line] == [
        line for line in (ROLE + TEXT + TEXT + finished(FINISH, 3) + DONE).split(b"\n") if line
    ]


def test_tool_calls_and_several_choices_keep_their_order() -> None:
    tool = chunk("m", {"tool_calls": [{"index": 0, "function": {"arguments": '{"error": "finish_reason"'}}]})
    events = [
        ROLE,
        chunk("m", {"role": "assistant"}, index=1),
        tool,
        chunk("m", {}, finish_reason="tool_calls"),
        chunk("m", {"content": "x"}, index=1),
        chunk("m", {}, finish_reason="length", index=1),
    ]

    out = relay_all(*events, USAGE_CHUNK, DONE)

    assert out == b"".join(events[:-1]) + finished(events[-1], 3) + DONE


def test_the_second_choices_role_stays() -> None:
    second = chunk("m", {"role": "assistant", "content": ""}, index=1)

    assert second in relay_all(ROLE, second, FINISH, DONE, opening=b"{}")


def test_usage_on_the_last_chunk_itself_counts_and_stays() -> None:
    both = encode(json.loads(FINISH[6:]) | {"usage": USAGE})

    assert relay_all(ROLE, both, DONE) == ROLE + finished(both, 3) + DONE


def test_a_chunk_behind_the_finish_stays_behind_it() -> None:
    late = encode({**head("m"), "choices": [], "x_filter": 1})

    assert relay_all(ROLE, FINISH, late, USAGE_CHUNK, DONE) == ROLE + finished(FINISH, 3) + late + DONE


def test_json_on_several_lines_is_understood() -> None:
    pretty = b"data: {\ndata:  " + FINISH[7:-3] + b"\ndata: }\n\n"

    last = relay_all(ROLE, pretty, DONE).split(b"\n\n")[1]

    assert json.loads(last[6:]) == json.loads(FINISH[6:]) | {"bonito": {"tokens": None}}


def test_a_provider_that_forgets_the_end_is_given_one() -> None:
    assert relay_all(ROLE, TEXT, FINISH) == ROLE + TEXT + finished(FINISH, None) + DONE


def test_a_last_event_without_its_empty_line_counts() -> None:
    assert relay_all(ROLE, FINISH, DONE.rstrip()) == ROLE + finished(FINISH, None) + DONE


def test_a_stream_that_just_stops_is_a_failure() -> None:
    relay = make()
    relay.feed(ROLE + TEXT)

    assert relay.finish() == b""
    assert isinstance(relay.failure, ProviderFailed)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "boom sk-secret", "type": "server_error", "code": None}, ProviderFailed),
        ({"message": "slow down", "code": "rate_limit_exceeded"}, RateLimited),
        ({"code": 429}, RateLimited),
        ("boom", ProviderFailed),
    ],
)
def test_an_error_inside_of_a_stream_is_typed_and_not_repeated(error: Any, kind: type[Exception]) -> None:
    relay = make()
    relay.feed(ROLE)

    assert relay.feed(encode({"error": error}) + TEXT) == b""
    assert isinstance(relay.failure, kind)
    assert "secret" not in str(relay.failure)
    assert relay.finish() == b""


def test_a_null_error_is_none() -> None:
    event = encode(json.loads(TEXT[6:]) | {"error": None})

    assert event in relay_all(ROLE, event, FINISH, DONE)


@pytest.mark.parametrize("event", [b"data: not json\n\n", b"data: [1]\n\n", b"event: ping\n\n", b"\n\n"])
def test_what_is_not_understood_passes(event: bytes) -> None:
    assert event in relay_all(ROLE, event, FINISH, DONE)


def test_an_event_without_end_is_refused() -> None:
    relay = make()
    with pytest.raises(ProviderFailed):
        for _ in range(40):
            relay.feed(b"data: " + b"x" * 2**20)


def test_legacy_completions_are_relayed_too() -> None:
    events = stream_events({"model": "m", "prompt": "x", "stream_options": {"include_usage": True}})

    out = relay_all(*events, operation="completions", opening=b"{}")

    first, *middle, last, done, end = out.split(b"\n\n")
    assert json.loads(first[6:])["choices"] == [{"index": 0, "text": "", "logprobs": None, "finish_reason": None}]
    assert len(middle) == len(WORDS)
    assert json.loads(last[6:])["bonito"] == {"tokens": 3}
    assert (done, end) == (b"data: [DONE]", b"")


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b'{"a":1}', b'{"a":1,"bonito":{}}'),
        (b" { } \n", b' { "bonito":{}} \n'),
        (b'{"a":"\\"bonito\\""}', b'{"a":"\\"bonito\\"","bonito":{}}'),
        (b'{"bonito":{"theirs":1},"a":1}', b'{"bonito":{},"a":1}'),
    ],
)
def test_our_key_is_added_to_an_object(payload: bytes, expected: bytes) -> None:
    assert with_bonito(payload, b"{}") == expected


@pytest.mark.parametrize(
    ("answer", "usage"),
    [
        pytest.param(b'{"usage":{"prompt_tokens":7,"completion_tokens":2}}', Usage(7, 2), id="both"),
        pytest.param(b'{"usage":{"prompt_tokens":7,"total_tokens":7}}', Usage(7, None), id="embeddings"),
        pytest.param(b'{"usage":null}', Usage(), id="null"),
        pytest.param(b'{"usage":{"prompt_tokens":-1,"completion_tokens":1.5}}', Usage(), id="nonsense"),
        pytest.param(b'{"usage":{"prompt_tokens":99999999999,"completion_tokens":true}}', Usage(), id="too-many"),
        pytest.param(b'{"x":NaN,"usage":{"prompt_tokens":7,"completion_tokens":2}}', Usage(7, 2), id="nan"),
        pytest.param(
            b'{"data":"'
            + b"A" * 3_000_000
            + b'","usage":{"prompt_tokens":7,"d":{"x":1},"total_tokens":7},"model":"m"}\n',
            Usage(7, None),
            id="large",
        ),
        pytest.param(b'{"data":"' + b"A" * 3_000_000 + b'"}', Usage(), id="large-and-silent"),
    ],
)
def test_usage_is_read_from_whole_answers(answer: bytes, usage: Usage) -> None:
    assert usage_of(answer) == usage


@pytest.mark.parametrize("answer", [b"", b"[]", b"null", b"<html>", b"\xff", b"[" * 100_000, b"A" * 3_000_000])
def test_an_answer_that_is_no_object_is_a_failure(answer: bytes) -> None:
    with pytest.raises(ProviderFailed):
        usage_of(answer)
