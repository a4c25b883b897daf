"""T4 and O5: no credential in answers, logs, errors and rows; no content in logs."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import openai
import psycopg
import pytest

from tests.integration.gateway.conftest import PROVIDER_KEY, Gateway
from tests.stub_provider import StubProvider, encode

CONTENT = "content-canary-77"
ANSWER = "answer-canary-78"
MODELS = ["echo", "status-400", "status-401", "status-500", "not-json", "breaks", "error-event", "truncated", "hang-up"]


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
async def test_neither_credentials_nor_content_leave_through_answers_logs_or_rows(
    gateway: Gateway, stub: StubProvider, caplog: pytest.LogCaptureFixture, is_stream: bool
) -> None:
    stub.answer = f'{{"choices":[],"x":"{ANSWER}"}}'.encode()
    said: list[str] = []
    with caplog.at_level(logging.DEBUG):
        for logger in ("openai", "httpx", "httpcore"):  # the caller's own
            caplog.set_level(logging.CRITICAL, logger)
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {gateway.key}"}) as client:
            for model in MODELS:
                body: dict[str, Any] = {"model": f"stub/{model}", "stream": is_stream}
                body["messages"] = [{"role": "user", "content": CONTENT}]
                answer = await client.post(f"{gateway.url}/v1/chat/completions", json=body)
                said += [answer.text, str(answer.headers)]
            said.append((await client.get(f"{gateway.url}/v1/models")).text)
        rows = await gateway.rows()

    assert len(rows) == len(MODELS)
    for secret in (PROVIDER_KEY, gateway.key, PROVIDER_KEY[3:]):
        assert secret not in "".join(said)
        assert secret not in caplog.text
        assert secret not in str(rows)
    for content in (CONTENT, ANSWER):
        assert content not in caplog.text
        assert content not in str(rows)


async def test_no_table_but_the_sealed_secrets_knows_the_credential(gateway: Gateway) -> None:
    await gateway.client().chat.completions.create(model="stub/echo", messages=[{"role": "user", "content": CONTENT}])
    await gateway.rows()
    with psycopg.connect(gateway.database.superuser_url) as connection:
        tables = connection.execute(
            "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace"
            " AND c.relkind = 'r'"
        ).fetchall()
        for (table,) in tables:
            dump = connection.execute(f"SELECT coalesce(string_agg(t::text, ' '), '') FROM {table} t").fetchone()
            assert dump is not None
            for secret in (PROVIDER_KEY, gateway.key, CONTENT):
                assert secret not in dump[0], table
                assert secret.encode().hex() not in dump[0], table


async def test_a_refusal_that_repeats_the_credential_is_cleaned(gateway: Gateway, stub: StubProvider) -> None:
    stub.events = [encode({"error": {"message": f"bad key {PROVIDER_KEY}", "code": "invalid_api_key"}})]
    with pytest.raises(openai.APIError) as refused:
        await gateway.client().chat.completions.create(
            model="stub/echo", messages=[{"role": "user", "content": "x"}], stream=True
        )

    assert PROVIDER_KEY not in str(refused.value.body)
