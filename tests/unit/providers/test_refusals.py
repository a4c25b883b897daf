from __future__ import annotations

import datetime as dt
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonito.errors import BonitoError, InvalidRequest, ModelNotFound, ProviderFailed, RateLimited
from bonito.providers import refusals

NOW = dt.datetime(2026, 3, 1, 12, 0, 0, tzinfo=dt.UTC)


def refuse(status: int, body: object = None, headers: dict[str, str] | None = None) -> BonitoError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return refusals.refusal(
        "acme", status=status, headers=headers or {}, body=raw, now=NOW, secrets=["hunter2-hunter2"]
    )


OPENAI = {"error": {"message": "max_tokens is too large", "type": "invalid_request_error", "param": "max_tokens"}}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequest),
        (404, InvalidRequest),
        (413, InvalidRequest),
        (422, InvalidRequest),
        (401, ProviderFailed),
        (402, ProviderFailed),
        (403, ProviderFailed),
        (405, ProviderFailed),
        (409, ProviderFailed),
        (418, ProviderFailed),
        (429, RateLimited),
        (500, ProviderFailed),
        (502, ProviderFailed),
        (503, ProviderFailed),
        (529, ProviderFailed),
        (100, ProviderFailed),
    ],
)
def test_each_status_is_one_typed_error(status: int, kind: type[BonitoError]) -> None:
    assert type(refuse(status, OPENAI)) is kind


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(OPENAI, "max_tokens is too large", id="openai"),
        pytest.param([OPENAI], "max_tokens is too large", id="google-list"),
        pytest.param({"error": "model 'x' not found"}, "model 'x' not found", id="ollama"),
        pytest.param({"object": "error", "message": "too long"}, "too long", id="vllm"),
        pytest.param({"detail": "Not Found"}, "Not Found", id="fastapi"),
        pytest.param({"detail": [{"msg": "field required"}, {"msg": "b"}]}, "field required; b", id="fastapi-list"),
        pytest.param(
            {"detail": [{"loc": ["body", "stream_options", 0], "msg": "Extra inputs are not permitted"}]},
            "stream_options.0: Extra inputs are not permitted",
            id="fastapi-list-with-places",
        ),
        pytest.param({"type": "error", "error": {"type": "x", "message": "bad"}}, "bad", id="anthropic"),
    ],
)
def test_the_callers_mistake_is_told_in_the_providers_own_words(body: object, message: str) -> None:
    error = refuse(400, body)

    assert type(error) is InvalidRequest
    assert error.message == message


def test_the_parameter_that_the_provider_names_is_kept() -> None:
    assert refuse(400, OPENAI).param == "max_tokens"
    assert refuse(400, {"error": {"message": "x", "param": ["a"]}}).param is None


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(
            404,
            {"error": {"message": "The model `x` does not exist or you do not have access to it.", "param": None}}
            | {"type": "invalid_request_error", "code": "model_not_found"},
            id="openai",
        ),
        pytest.param(
            403,
            {"error": {"message": "Project p has no access to `x`", "code": "model_not_found"}},
            id="openai-no-access",
        ),
        pytest.param(400, {"error": {"code": "model_not_found", "message": "No such thing."}}, id="code-with-400"),
        pytest.param(404, {"error": {"message": "model 'x' not found"}}, id="ollama"),
        pytest.param(404, {"object": "error", "message": "The model `x` does not exist.", "code": 404}, id="vllm"),
        pytest.param(404, {"type": "error", "error": {"type": "not_found_error", "message": "model: x"}}, id="claude"),
        pytest.param(404, {"error": {"code": 404, "message": "models/x is not found for v1beta"}}, id="gemini"),
        pytest.param(404, {"error": {"code": "DeploymentNotFound", "message": "It does not exist."}}, id="azure"),
    ],
)
def test_a_model_that_the_provider_does_not_have_is_not_found(status: int, body: object) -> None:
    error = refuse(status, body)

    assert type(error) is ModelNotFound
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
    assert error.message


@pytest.mark.parametrize(
    ("status", "message"),
    [(404, "Not Found"), (404, "Invalid URL (POST /v1/chat)"), (400, "This model reads no images."), (422, "no model")],
)
def test_another_refusal_is_none_about_an_unknown_model(status: int, message: str) -> None:
    assert type(refuse(status, {"error": {"message": message, "code": 404}})) is InvalidRequest


@pytest.mark.parametrize(
    "body", [b"", b"<html>nginx</html>", b"null", b"[]", b"{}", b'{"error": 5}', b"\xff\xfe", b"[" * 9999]
)
def test_a_body_that_is_no_error_is_the_providers_fault(body: bytes) -> None:
    error = refuse(404, body)

    assert type(error) is ProviderFailed
    assert "html" not in error.message
    assert type(refuse(413, body)) is InvalidRequest


def test_a_refused_credential_says_so_and_repeats_nothing() -> None:
    error = refuse(401, {"error": {"message": "Incorrect API key provided: sk-abcdef123456."}})

    assert "stored credential" in error.message
    assert "sk-" not in error.message
    assert not isinstance(error, InvalidRequest)


def test_what_a_failing_server_says_is_not_passed_on() -> None:
    assert "pg_hba" not in refuse(500, {"error": {"message": "pg_hba.conf rejects 10.0.0.7"}}).message


@pytest.mark.parametrize(
    "secret",
    [
        "hunter2-hunter2",
        "sk-proj-abc123DEF456",
        "sk-ab***********yz",
        "bn-0123456789abcdef",
        "AIzaSyA1234567890abcdefghij",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOi.eyJzdWIiOi.SflKxw",
        "Bearer abcdef.ghijkl",
    ],
)
def test_no_credential_passes_in_a_message(secret: str) -> None:
    error = refuse(400, {"error": {"message": f"key '{secret}' may not use gpt-4o-2024-08-06"}})

    assert secret.split()[-1] not in error.message
    assert error.message.endswith("may not use gpt-4o-2024-08-06")


@given(st.text(max_size=3000))
def test_any_message_becomes_one_bounded_line(text: str) -> None:
    message = refusals.safe_message(text)

    assert len(message) <= refusals.MAX_MESSAGE_CHARS
    assert "\n" not in message
    assert "\x1b" not in message


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "999999999"}, 86_400.0),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:30 -0000"}, 30.0),
        ({"retry-after": "Sun, 01 Mar 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "Sun, 99 Mar 2026 11:00:00 GMT"}, None),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "2"}, 2.0),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(headers: dict[str, str], expected: float | None) -> None:
    assert refuse(429, OPENAI, headers).retry_after_s == expected
