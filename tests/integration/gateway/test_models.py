"""/v1/models and /v1/embeddings."""

from __future__ import annotations

import asyncio
import base64
from array import array
from typing import Any
from uuid import UUID, uuid4

import openai
import pytest

from bonito.database.pool import tenant
from bonito.providers import accounts
from bonito.providers.accounts import ProviderSettings
from tests.integration.gateway.conftest import BOX, Gateway, add_provider, make_key
from tests.stub_provider import StubProvider
from tests.unit.providers.conftest import Serve, serve
from tests.unit.providers.test_azure_openai import KEY, SMALL, Resource

__all__ = ["serve"]


async def test_models_are_listed_by_provider_and_model(gateway: Gateway, stub: StubProvider) -> None:
    await add_provider(gateway.pool, gateway.registry, gateway.org_id, "few", stub.base_url, models=["a/b", "c"])
    models = [model async for model in gateway.client().models.list()]

    assert [model.id for model in models] == [
        "stub/echo",
        "stub/gpt-4o",
        "stub/text-embedding-3-small",
        "few/a/b",
        "few/c",
    ]
    assert {model.owned_by for model in models} == {"stub", "few"}
    assert {model.object for model in models} == {"model"}


async def test_one_model_is_found_by_a_name_with_slashes(gateway: Gateway, stub: StubProvider) -> None:
    await add_provider(gateway.pool, gateway.registry, gateway.org_id, "few", stub.base_url, models=["a/b"])
    client = gateway.client()

    assert (await client.models.retrieve("few/a/b")).id == "few/a/b"
    with pytest.raises(openai.NotFoundError) as refused:
        await client.models.retrieve("few/c")
    assert refused.value.code == "model_not_found"


async def test_another_organizations_models_are_not_listed(gateway: Gateway, other_org_id: UUID) -> None:
    _, key = await make_key(gateway.pool, other_org_id)

    assert [model async for model in gateway.client(key=key).models.list()] == []


async def test_listing_models_leaves_no_usage(gateway: Gateway) -> None:
    await gateway.client().models.list()

    assert await gateway.rows() == []


async def test_a_provider_that_is_down_keeps_its_last_list(gateway: Gateway, stub: StubProvider) -> None:
    account = await add_provider(gateway.pool, gateway.registry, gateway.org_id, "gone", "http://127.0.0.1:9/v1")
    models = [model.id async for model in gateway.client().models.list()]

    assert account.verification_error is not None
    assert "stub/echo" in models


async def test_embeddings_pass_through_with_the_key(gateway: Gateway, stub: StubProvider) -> None:
    answer = await gateway.client().embeddings.create(
        model="stub/text-embedding-3-small", input=[1, 2, 3], dimensions=2, encoding_format="float"
    )
    [row] = await gateway.rows()

    assert answer.data[0].embedding == [0.25, -0.5]
    assert answer.model_extra is not None
    assert answer.model_extra["bonito"]["route"]["model"] == "text-embedding-3-small"
    assert stub.received[-1].json()["input"] == [1, 2, 3]
    assert (row["operation"], row["input_tokens"], row["output_tokens"]) == ("embeddings", 8, None)
    assert not row["is_estimated"]


async def test_embeddings_cost_by_the_catalogues_price_and_chats_have_none_yet(gateway: Gateway, serve: Serve) -> None:
    settings = ProviderSettings("az", "azure_openai", await serve(Resource().handle), models=[SMALL])
    async with tenant(gateway.pool, gateway.org_id) as conn:
        await accounts.create(
            conn,
            BOX,
            org_id=gateway.org_id,
            provider_id=uuid4(),
            secret_id=uuid4(),
            settings=settings,
            credential={"api_key": KEY},
        )
    gateway.registry.forget(gateway.org_id)

    answer = await gateway.client().embeddings.create(model=f"az/{SMALL}", input=["a", "bb"])
    with pytest.raises(openai.BadRequestError, match="has no operation chat"):
        await gateway.client().chat.completions.create(model=f"az/{SMALL}", messages=[{"role": "user", "content": "x"}])
    embedded, refused = await gateway.rows()

    assert [entry.embedding[0] for entry in answer.data] == [1.0, 2.0]
    assert (embedded["input_tokens"], embedded["inference_cost_nano_usd"]) == (6, 6 * 22)
    assert (refused["status"], refused["inference_cost_nano_usd"]) == (400, None)


async def test_many_embeddings_pass_without_being_parsed(gateway: Gateway, stub: StubProvider) -> None:
    vector = base64.b64encode(array("f", [0.5] * 1536).tobytes())
    entry = b'{"object":"embedding","index":0,"embedding":"' + vector + b'"}'
    body = b'{"object":"list","data":[' + b",".join([entry] * 400) + b'],"usage":{"prompt_tokens":4,"total_tokens":4}}'
    stub.answer = body
    answer = await gateway.client().embeddings.with_raw_response.create(model="stub/e", input="x")
    [row] = await gateway.rows()

    assert answer.content.startswith(body[:-1] + b',"bonito":')
    assert row["input_tokens"] == 4


async def test_embeddings_take_no_knowledge_base(gateway: Gateway) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await gateway.client().embeddings.create(
            model="stub/e", input="x", extra_body={"bonito": {"knowledge_base": "hr"}}
        )

    assert refused.value.param == "bonito.knowledge_base"


async def test_concurrent_requests_each_leave_one_row(gateway: Gateway) -> None:
    client = gateway.client()
    question: list[Any] = [{"role": "user", "content": "x"}]
    models = ["stub/echo", "stub/status-500", "stub/status-400", "nobody/x"] * 10
    await asyncio.gather(
        *(client.chat.completions.create(model=model, messages=question) for model in models), return_exceptions=True
    )
    rows = await gateway.rows()

    assert len(rows) == 40
    assert sorted({row["status"] for row in rows}) == [200, 400, 404, 502]
    assert len({row["id"] for row in rows}) == 40
