"""`local/…` through the gateway: quotes from real search, and embeddings of this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import openai
import pytest

from bonito.database.pool import Pool, tenant
from bonito.egress.client import EgressClient
from bonito.egress.policy import EgressPolicy
from bonito.gateway.app import Services, create_app
from bonito.knowledge.search import Searcher
from bonito.metering.sinks import PostgresUsageSink
from bonito.providers import accounts
from bonito.providers.accounts import ProviderSettings
from bonito.providers.local.embedding import LocalEmbeddingModel
from bonito.providers.registry import ProviderRegistry
from bonito.settings import Settings
from tests.integration.conftest import Database
from tests.integration.gateway.conftest import BOX, Gateway, make_key, serving
from tests.integration.knowledge.served import HashModels, create_base, serve

FACT = "Every employee gets twenty-seven days of paid leave a year."
QUESTION: list[Any] = [{"role": "user", "content": "How many days of paid leave does an employee get?"}]


@pytest.fixture
async def gateway(database: Database, org_id: UUID, pool: Pool) -> AsyncIterator[Gateway]:
    client, embedding = EgressClient(EgressPolicy()), LocalEmbeddingModel()
    registry = ProviderRegistry(pool, BOX, client, local_embedding=embedding)
    async with tenant(pool, org_id) as conn:
        settings = ProviderSettings("local", "local")
        account = await accounts.create(
            conn, BOX, org_id=org_id, provider_id=uuid4(), secret_id=uuid4(), settings=settings, credential=None
        )
    await registry.verify(org_id, account)
    usage = PostgresUsageSink(pool, gather_s=0.0)
    key_id, key = await make_key(pool, org_id)
    app = create_app(Services(Settings(), pool, registry, Searcher(pool, HashModels()), usage))
    async with serving(app) as url:
        gateway = Gateway(url, org_id, key, key_id, pool, registry, usage, database)
        yield gateway
        for sdk in gateway.clients:
            await sdk.close()
    await usage.aclose()
    await client.aclose()
    embedding.close()


async def test_a_quoted_answer_cites_its_source_and_costs_nothing(gateway: Gateway) -> None:
    base = await create_base(gateway.pool, gateway.org_id, "hr")
    await serve(gateway.pool, gateway.org_id, base, "pto.md", [FACT, "The cafeteria opens at eight."])
    client = gateway.client()
    private = {"bonito": {"knowledge_base": "hr"}}
    whole: Any = await client.chat.completions.create(model="extractive", messages=QUESTION, extra_body=private)
    stream = await client.chat.completions.create(
        model="local/extractive", messages=QUESTION, extra_body=private, stream=True
    )
    chunks: list[Any] = [chunk async for chunk in stream]
    rows = await gateway.rows()

    number = [source["document"] for source in whole.bonito["sources"]].index("pto.md") + 1
    cited = [n for n, source in enumerate(whole.bonito["sources"], 1) if source["chunk_preview"] == FACT]
    assert number
    assert FACT in whole.choices[0].message.content
    assert f"[{cited[0]}]" in whole.choices[0].message.content
    assert whole.bonito["inference_cost"] == 0
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert chunks[-1].bonito["inference_cost"] == 0
    assert [(row["status"], row["inference_cost_nano_usd"]) for row in rows] == [(200, 0), (200, 0)]
    assert all(row["input_tokens"] > 0 and row["output_tokens"] > 0 and not row["is_estimated"] for row in rows)


async def test_embeddings_of_this_machine_in_both_formats(gateway: Gateway) -> None:
    client = gateway.client()
    texts = ["How many days of leave?", "Wie viele Urlaubstage?"]
    base64_form = await client.embeddings.create(model="local/all-minilm-l6-v2", input=texts)  # the SDK's own choice
    floats = await client.embeddings.create(model="all-minilm-l6-v2", input=texts[0], encoding_format="float")
    rows = await gateway.rows()

    assert [len(entry.embedding) for entry in base64_form.data] == [384, 384]
    assert np.allclose(base64_form.data[0].embedding, floats.data[0].embedding, atol=1e-6)
    assert floats.usage.prompt_tokens > 0
    assert [row["inference_cost_nano_usd"] for row in rows] == [0, 0]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": [1, 2]}, "input"),
        ({"input": ["a", None]}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": "a", "dimensions": 3}, "dimensions"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "a", "extra_body": {"task": "query"}}, "task"),
    ],
)
async def test_what_cannot_be_embedded_is_refused_by_name(gateway: Gateway, fields: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await gateway.client().embeddings.create(model="local/all-minilm-l6-v2", **fields)

    assert refused.value.param == param


async def test_the_answering_model_embeds_nothing_and_the_other_way_round(gateway: Gateway) -> None:
    client = gateway.client()
    with pytest.raises(openai.BadRequestError):
        await client.embeddings.create(model="local/extractive", input="a")
    with pytest.raises(openai.BadRequestError):
        await client.chat.completions.create(model="local/all-minilm-l6-v2", messages=QUESTION)
