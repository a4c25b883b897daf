"""/v1/chat/completions without a knowledge base, asked by OpenAI's own SDK."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import UUID

import httpx
import openai
import pytest

from bonito.settings import Settings
from tests import stub_provider
from tests.integration.conftest import Database
from tests.integration.gateway.conftest import PROVIDER_KEY, Gateway, add_provider, make_key, running
from tests.stub_provider import StubProvider

QUESTION: list[Any] = [{"role": "user", "content": "How many days of leave?"}]


async def test_the_sdk_gets_the_providers_answer_and_one_more_key(gateway: Gateway) -> None:
    answer = await gateway.client().chat.completions.create(model="stub/echo", messages=QUESTION)

    assert answer.choices[0].message.content == "Twenty days a year [1]."
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 12
    bonito: Any = answer.model_extra["bonito"] if answer.model_extra else None
    latency_ms = bonito["route"]["attempts"][0].pop("latency_ms")
    assert isinstance(latency_ms, int)
    assert bonito == {
        "inference_cost": None,
        "cost": None,
        "route": {"model": "echo", "provider": "stub", "attempts": [{"model": "stub/echo", "outcome": "ok"}]},
    }


async def test_the_synchronous_sdk_gets_it_too(gateway: Gateway) -> None:
    def ask() -> Any:
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as client:
            whole = client.chat.completions.create(model="stub/echo", messages=QUESTION)
            stream = client.chat.completions.create(model="stub/echo", messages=QUESTION, stream=True)
            return whole, [chunk.choices[0].delta.content or "" for chunk in stream]

    whole, pieces = await asyncio.to_thread(ask)

    assert whole.choices[0].message.content == "".join(pieces)


async def test_the_provider_gets_its_own_key_and_name_of_the_model(gateway: Gateway, stub: StubProvider) -> None:
    client = gateway.client(default_headers={"openai-beta": "x=1", "x-secret": "y", "cookie": "z=1"})
    await client.chat.completions.create(model="stub/echo", messages=QUESTION)

    sent = stub.received[-1]
    headers = sent.headers
    assert sent.path == "/v1/chat/completions"
    assert sent.json()["model"] == "echo"
    assert headers["authorization"] == f"Bearer {PROVIDER_KEY}"
    assert headers["openai-beta"] == "x=1"
    assert not headers.keys() & {"x-secret", "cookie", "x-stainless-lang"}
    assert gateway.key not in str(sent)


async def test_the_head_tells_the_route_the_times_and_the_request(gateway: Gateway) -> None:
    raw = await gateway.client().chat.completions.with_raw_response.create(
        model="stub/echo", messages=QUESTION, extra_headers={"x-request-id": "my-request.1"}
    )

    assert raw.headers["x-request-id"] == "my-request.1"
    assert raw.headers["x-bonito-route"] == "model=echo; provider=stub"
    assert [part.split(";")[0].strip() for part in raw.headers["server-timing"].split(",")] == [
        "auth",
        "route",
        "provider",
    ]


@pytest.mark.parametrize("sent", ["a b", "x" * 200, "é".encode().decode("latin-1"), "a;b"])
async def test_a_request_id_that_is_not_well_formed_is_replaced(gateway: Gateway, sent: str) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{gateway.url}/healthz", headers={b"x-request-id": sent.encode("latin-1")})

    assert answer.headers["x-request-id"] != sent
    assert len(answer.headers["x-request-id"]) == 32


async def test_a_model_is_found_by_its_plain_name_once_its_provider_was_asked(
    gateway: Gateway, stub: StubProvider
) -> None:
    answer = await gateway.client().chat.completions.create(model="gpt-4o", messages=QUESTION)

    assert answer.model == "gpt-4o"
    assert [received.path for received in stub.received] == ["/v1/chat/completions"]


async def test_a_model_that_several_providers_have_must_be_named_whole(gateway: Gateway, stub: StubProvider) -> None:
    for name in ("one", "two"):
        await add_provider(gateway.pool, gateway.registry, gateway.org_id, name, stub.base_url, models=["twin"])

    with pytest.raises(openai.BadRequestError, match="one/twin, two/twin"):
        await gateway.client().chat.completions.create(model="twin", messages=QUESTION)


async def test_an_organization_never_reaches_anothers_provider(
    gateway: Gateway, other_org_id: UUID, stub: StubProvider
) -> None:
    _, key = await make_key(gateway.pool, other_org_id)

    with pytest.raises(openai.NotFoundError) as refused:
        await gateway.client(key=key).chat.completions.create(model="stub/echo", messages=QUESTION)

    assert refused.value.code == "model_not_found"
    assert stub.received == []


async def test_legacy_completions_work_streaming_and_not(gateway: Gateway) -> None:
    client = gateway.client()
    whole = await client.completions.create(model="stub/echo", prompt="How many?")
    stream = await client.completions.create(model="stub/echo", prompt="How many?", stream=True)
    pieces = [chunk async for chunk in stream]

    assert whole.choices[0].text == "Twenty days a year [1]."
    assert "".join(chunk.choices[0].text for chunk in pieces) == whole.choices[0].text
    assert whole.model_extra is not None
    assert whole.model_extra["bonito"]["route"]["provider"] == "stub"


async def test_an_answer_of_any_size_and_unknown_members_passes_as_it_came(
    gateway: Gateway, stub: StubProvider
) -> None:
    stub.answer = b'{"id": 1e400, "x": "' + b"\\u00e9" * 500_000 + b'", "n":12345678901234567890123 }\n'

    async with httpx.AsyncClient() as client:
        answer = await client.post(
            f"{gateway.url}/v1/chat/completions",
            headers={"authorization": f"Bearer {gateway.key}", "accept-encoding": "gzip"},
            json={"model": "stub/echo", "messages": QUESTION},
        )

    assert answer.headers["content-length"] == str(len(answer.content))
    assert "content-encoding" not in answer.headers
    assert answer.content.startswith(stub.answer.rstrip()[:-1] + b',"bonito":{')
    assert answer.content.endswith(b"}\n")


async def test_two_gateways_in_a_row_leave_one_key(
    gateway: Gateway, database: Database, other_org_id: UUID, stub: StubProvider
) -> None:
    async with stub_provider.serving() as unused, running(database, other_org_id, unused) as front:
        await add_provider(front.pool, front.registry, other_org_id, "behind", f"{gateway.url}/v1", api_key=gateway.key)
        answer = await front.client().chat.completions.with_raw_response.create(
            model="behind/stub/echo", messages=QUESTION
        )

    assert answer.text.count('"bonito"') == 1
    assert json.loads(answer.text)["bonito"]["route"]["provider"] == "behind"


async def test_the_limit_on_bodies_is_a_setting(database: Database, org_id: UUID, stub: StubProvider) -> None:
    async with running(database, org_id, stub, settings=Settings(max_request_bytes=2000)) as gateway:
        with pytest.raises(openai.APIStatusError) as refused:
            await gateway.client().chat.completions.create(
                model="stub/echo", messages=[{"role": "user", "content": "x" * 2000}]
            )
        [row] = await gateway.rows()

    assert refused.value.status_code == 413
    assert refused.value.code == "payload_too_large"
    assert (row["status"], row["error_code"], row["model_requested"]) == (413, "payload_too_large", "")
