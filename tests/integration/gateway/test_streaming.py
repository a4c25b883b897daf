"""Streams: at once, untouched, with the bonito key, and what happens when either side breaks off."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
import openai
import pytest

from tests.integration.conftest import Database
from tests.integration.gateway.conftest import Gateway, running
from tests.stub_provider import USAGE, WORDS, StubProvider, stream_events

QUESTION: list[Any] = [{"role": "user", "content": "How many days of leave?"}]
PATIENCE_S = 60.0


@asynccontextmanager
async def streaming(gateway: Gateway, model: str, **fields: Any) -> AsyncIterator[httpx.Response]:
    """A raw stream, so that bytes can be compared."""
    body = {"model": model, "messages": QUESTION, "stream": True} | fields
    headers = {"authorization": f"Bearer {gateway.key}", "accept-encoding": "gzip, br"}
    async with (
        httpx.AsyncClient(timeout=PATIENCE_S) as client,
        client.stream("POST", f"{gateway.url}/v1/chat/completions", json=body, headers=headers) as response,
    ):
        yield response


async def test_the_sdk_reads_a_stream_and_the_last_chunk_has_the_key(gateway: Gateway, stub: StubProvider) -> None:
    stream = await gateway.client().chat.completions.create(model="stub/echo", messages=QUESTION, stream=True)
    chunks = [chunk async for chunk in stream]

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "".join(WORDS)
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "stop"
    assert chunks[-1].model_extra is not None
    assert chunks[-1].model_extra["bonito"]["route"]["provider"] == "stub"
    assert all("bonito" not in (chunk.model_extra or {}) for chunk in chunks[:-1])
    assert all(chunk.usage is None for chunk in chunks)
    assert stub.received[-1].json()["stream_options"] == {"include_usage": True}


async def test_the_sdks_own_accumulator_gets_one_message(gateway: Gateway) -> None:
    async with gateway.client().chat.completions.stream(model="stub/echo", messages=QUESTION) as stream:
        final = await stream.get_final_completion()

    assert final.choices[0].message.role == "assistant"
    assert final.choices[0].message.content == "".join(WORDS)


async def test_usage_is_shown_to_a_caller_who_asked_for_it(gateway: Gateway) -> None:
    stream = await gateway.client().chat.completions.create(
        model="stub/echo", messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]

    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == USAGE["total_tokens"]
    assert "bonito" in (chunks[-2].model_extra or {})


async def test_all_bytes_but_the_last_chunk_are_the_providers(gateway: Gateway) -> None:
    async with streaming(gateway, "stub/echo") as response:
        body = await response.aread()

    sent = stream_events({"model": "echo", "messages": QUESTION, "stream_options": {"include_usage": True}})
    assert body.startswith(b"".join(sent[:-3]))
    assert body.endswith(b"}\n\ndata: [DONE]\n\n")
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert "content-encoding" not in response.headers  # G3
    assert response.headers["x-accel-buffering"] == "no"


async def test_the_first_chunk_is_here_before_the_provider_sends_the_second(
    gateway: Gateway, stub: StubProvider
) -> None:
    async with streaming(gateway, "stub/gated") as response:
        pieces = response.aiter_raw()
        first = await anext(pieces)
        assert not stub.gate.is_set()
        assert first.startswith(b"data: {")
        assert first.endswith(b"\n\n")
        stub.gate.set()
        rest = b"".join([piece async for piece in pieces])

    assert rest.endswith(b"data: [DONE]\n\n")


async def test_a_caller_who_hangs_up_cancels_the_provider_and_is_metered(gateway: Gateway, stub: StubProvider) -> None:
    async with streaming(gateway, "stub/gated") as response:
        await anext(response.aiter_raw())
    await asyncio.wait_for(stub.hung_up.wait(), PATIENCE_S)
    row = await one_row(gateway)

    assert row["status"] == 499
    assert row["error_code"] == "client_disconnected"
    assert row["is_estimated"]
    assert row["output_tokens"] == 1
    assert row["input_tokens"] == len(QUESTION[0]["content"]) // 4 + 1
    assert row["is_stream"]
    assert row["first_token_ms"] is not None


async def test_a_caller_who_hangs_up_before_the_answer_cancels_too(gateway: Gateway, stub: StubProvider) -> None:
    asking = asyncio.create_task(gateway.client().chat.completions.create(model="stub/hang", messages=QUESTION))
    await asyncio.wait_for(stub.has_begun.wait(), PATIENCE_S)
    asking.cancel()
    await asyncio.wait_for(stub.hung_up.wait(), PATIENCE_S)
    row = await one_row(gateway)

    assert (row["status"], row["is_estimated"], row["model_used"]) == (499, True, "stub/hang")
    assert row["output_tokens"] == 0


@pytest.mark.parametrize("model", ["breaks", "error-event", "truncated"])
async def test_an_error_after_the_first_byte_is_an_event_and_the_end(gateway: Gateway, model: str) -> None:
    async with streaming(gateway, f"stub/{model}") as response:
        events = (await response.aread()).decode().split("\n\n")
    row = await one_row(gateway)

    assert response.status_code == 200
    error = json.loads(events[-3].removeprefix("data: "))["error"]
    assert (error["type"], error["code"]) == ("upstream_error", "upstream_error")
    assert "canary" not in str(events)
    assert events[-2:] == ["data: [DONE]", ""]
    assert (row["status"], row["error_code"], row["is_estimated"]) == (502, "upstream_error", True)


async def test_the_sdk_raises_what_came_after_the_first_byte(gateway: Gateway) -> None:
    stream = await gateway.client().chat.completions.create(model="stub/error-event", messages=QUESTION, stream=True)

    with pytest.raises(openai.APIError, match="ended its answer with an error"):
        async for _ in stream:
            pass


async def test_an_error_as_the_first_event_still_has_a_status(gateway: Gateway, stub: StubProvider) -> None:
    stub.events = [b'data: {"error": {"code": 429}}\n\n', b"data: [DONE]\n\n"]

    with pytest.raises(openai.RateLimitError):
        await gateway.client().chat.completions.create(model="stub/echo", messages=QUESTION, stream=True)


async def test_a_stream_without_its_usual_end_is_ended(gateway: Gateway) -> None:
    async with streaming(gateway, "stub/no-done") as response:
        body = await response.aread()

    assert body.count(b"[DONE]") == 1
    assert b'"bonito"' in body


async def test_tokens_are_estimated_where_the_provider_reports_none(gateway: Gateway) -> None:
    async with streaming(gateway, "stub/silent") as response:
        await response.aread()
    row = await one_row(gateway)

    assert (row["status"], row["is_estimated"]) == (200, True)
    assert row["output_tokens"] > 0


async def test_a_provider_that_knows_no_stream_options_is_asked_without_them(
    gateway: Gateway, stub: StubProvider
) -> None:
    client = gateway.client()
    for _ in range(2):
        stream = await client.chat.completions.create(model="stub/strict", messages=QUESTION, stream=True)
        chunks: list[Any] = [chunk async for chunk in stream]
    with pytest.raises(openai.BadRequestError, match="stream_options: Not permitted"):
        await client.chat.completions.create(
            model="stub/strict", messages=QUESTION, stream=True, stream_options={"include_usage": True}
        )
    rows = await gateway.rows()

    assert ["stream_options" in one.json() for one in stub.received] == [True, False, False, True]
    assert [attempt["outcome"] for attempt in chunks[-1].bonito["route"]["attempts"]] == ["ok"]
    assert [(row["status"], row["is_estimated"]) for row in rows] == [(200, True), (200, True), (400, False)]


async def test_a_request_that_the_servers_end_cuts_short_is_recorded(
    database: Database, org_id: UUID, stub: StubProvider
) -> None:
    async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
        async with running(database, org_id, stub) as gateway:
            headers = {"authorization": f"Bearer {gateway.key}"}
            body = {"model": "stub/hang", "messages": QUESTION}
            url = f"{gateway.url}/v1/chat/completions"
            asking = asyncio.create_task(client.post(url, json=body, headers=headers))
            await asyncio.wait_for(stub.has_begun.wait(), PATIENCE_S)
        with pytest.raises(httpx.HTTPError):
            (await asking).raise_for_status()

    await asyncio.wait_for(stub.hung_up.wait(), PATIENCE_S)
    assert [(row["status"], row["error_code"]) for row in gateway.all_rows()] == [(503, "cancelled")]


async def one_row(gateway: Gateway) -> dict[str, Any]:
    """The request's only row; a cancelled one is recorded moments later."""
    async with asyncio.timeout(PATIENCE_S):
        while not (rows := await gateway.rows()):
            await asyncio.sleep(0.01)
    [row] = rows
    return row
