"""Webhooks over HTTP: a signed delivery is done once, and nothing else gets in."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from bonito.console.services import Services
from bonito.database.pool import tenant
from bonito.errors import UpstreamError
from bonito.knowledge import webhooks
from tests.integration.conftest import Database
from tests.integration.console.conftest import Person, client_of
from tests.integration.console.services import ListQueue


@dataclasses.dataclass
class Sender:
    """Signs and sends, as a customer's system does."""

    client: httpx.AsyncClient
    url: str
    secret: str

    def headers(self, body: bytes, *, at: float, delivery: str) -> dict[str, str]:
        timestamp = str(int(at))
        return {
            "x-bonito-timestamp": timestamp,
            "x-bonito-signature": webhooks.sign(self.secret, timestamp=timestamp, body=body),
            "x-bonito-delivery": delivery,
        }

    async def send(
        self, body: bytes = b"", *, delivery: str | None = None, age_s: float = 0, **changed: str
    ) -> httpx.Response:
        headers = self.headers(body, at=time.time() - age_s, delivery=delivery or uuid4().hex)
        headers |= {f"x-bonito-{name}": value for name, value in changed.items()}
        return await self.client.post(self.url, content=body, headers=headers)


async def make(owner: Person, anonymous: httpx.AsyncClient, source: Mapping[str, str] | None = None) -> Sender:
    body = {"name": "hr", "source": source or {"type": "upload"}}
    assert (await owner.client.post("/api/knowledge-bases", json=body)).status_code == 201
    return await rotate(owner, anonymous)


async def rotate(owner: Person, anonymous: httpx.AsyncClient) -> Sender:
    answer = await owner.client.post("/api/knowledge-bases/hr/webhook")
    assert answer.status_code == 201, answer.text
    return Sender(anonymous, answer.json()["url"], answer.json()["secret"])


@pytest.fixture
async def sender(owner: Person, anonymous: httpx.AsyncClient, services: Services) -> Sender:
    made = await make(owner, anonymous)
    queue(services).sent.clear()
    return made


def queue(services: Services) -> ListQueue:
    assert isinstance(services.queue, ListQueue)
    return services.queue


async def entries(owner: Person) -> list[dict[str, Any]]:
    return [e for e in (await owner.client.get("/api/audit-log")).json()["items"] if e["action"] == "webhook.deliver"]


async def test_a_delivery_without_keys_asks_for_a_sync(owner: Person, sender: Sender, services: Services) -> None:
    for body in (b"", b"{}", b'{"event": "deployed"}'):
        answer = await sender.send(body)
        assert (answer.status_code, answer.json()) == (202, {"status": "accepted", "keys": None})

    assert {(name, message["trigger"]) for name, message in queue(services).sent} == {("sync", "webhook")}
    (first, *_) = await entries(owner)
    assert first["actor"].startswith("webhook:")
    assert first["target"].startswith("knowledge_base:")
    assert (first["details"]["received"], first["details"]["outcome"]) == ("accepted", "succeeded")


async def test_keys_are_looked_at_and_nothing_else(owner: Person, sender: Sender, services: Services) -> None:
    with_prefix = {"source_prefix": "docs/"}
    async with tenant(services.pool, owner.org_id) as conn:
        await conn.execute("UPDATE knowledge_bases SET source_prefix = %(source_prefix)s", with_prefix)
    keys = ["docs/a.md", "docs/a.md", "docs/sub/", "docs/", "other/b.md", "docs/caf\u00e9/c d.md"]

    answer = await sender.send(json.dumps({"keys": keys}).encode())

    assert answer.json() == {"status": "accepted", "keys": 2}
    assert [(name, message["path"]) for name, message in queue(services).sent] == [
        ("ingest", "a.md"),
        ("ingest", "caf\u00e9/c d.md"),
    ]


async def test_a_repeated_delivery_is_acknowledged_and_does_nothing(sender: Sender, services: Services) -> None:
    answers = await asyncio.gather(*(sender.send(delivery="d-1") for _ in range(5)))

    codes = sorted(answer.status_code for answer in answers)
    assert codes[0] == 202
    assert set(codes) <= {202, 409}, "whoever comes while it is worked on is told to come again"
    again = await sender.send(b"{}", delivery="d-1")
    assert (again.status_code, again.json()["status"]) == (202, "repeated")
    assert len(queue(services).sent) == 1


async def test_what_is_not_signed_by_the_webhooks_secret_is_refused_alike(
    owner: Person, sender: Sender, services: Services
) -> None:
    unknown = dataclasses.replace(sender, url=f"http://console/hooks/sync/{uuid4()}")
    wrong = dataclasses.replace(sender, secret="whsec_of_somebody_else")
    answers = [
        await unknown.send(),
        await wrong.send(),
        await sender.send(signature=""),
        await sender.send(signature="sha256=" + "0" * 64),
        await sender.send(timestamp=str(int(time.time()) - 1)),
        await sender.client.post(sender.url),
        await sender.client.post(
            sender.url, content=b"other", headers=sender.headers(b"{}", at=time.time(), delivery="d")
        ),
    ]

    assert {answer.status_code for answer in answers} == {401}
    assert {answer.json()["code"] for answer in answers} == {"invalid_signature"}
    assert len({answer.json()["detail"] for answer in answers}) == 1
    assert queue(services).sent == []
    assert await entries(owner) == []


@pytest.mark.parametrize(
    ("changed", "status"),
    [({"age_s": 290}, 202), ({"age_s": -290}, 202), ({"age_s": 310}, 401), ({"age_s": -310}, 401)],
)
async def test_a_delivery_is_taken_within_five_minutes(sender: Sender, changed: dict[str, Any], status: int) -> None:
    assert (await sender.send(**changed)).status_code == status


@pytest.mark.parametrize("delivery", ["", " ", "a b", "x" * 129, "\u00e9"])
async def test_a_delivery_needs_an_id(sender: Sender, delivery: str) -> None:
    answer = await sender.send(delivery="d")
    assert answer.status_code == 202
    headers = sender.headers(b"", at=time.time(), delivery="d")
    sent = [(name.encode(), value.encode()) for name, value in headers.items() if name != "x-bonito-delivery"]
    sent.append((b"x-bonito-delivery", delivery.encode("latin-1")))

    assert (await sender.client.post(sender.url, headers=sent)).status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"keys=a", id="no-json"),
        pytest.param(b"[]", id="no-object"),
        pytest.param(b"\xff", id="no-utf8"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b'{"keys": "a"}', id="no-list"),
        pytest.param(b'{"keys": [1]}', id="no-text"),
        pytest.param(b'{"keys": [""]}', id="empty-key"),
        pytest.param(b'{"keys": ["a\\u0000"]}', id="nul"),
        pytest.param(b'{"keys": ["\\ud800"]}', id="half-a-character"),
        pytest.param(json.dumps({"keys": ["x" * 1025]}).encode(), id="long-key"),
        pytest.param(json.dumps({"keys": ["x"] * 1001}).encode(), id="many-keys"),
    ],
)
async def test_a_signed_body_that_makes_no_sense_is_told(sender: Sender, services: Services, body: bytes) -> None:
    answer = await sender.send(body)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request_error")
    assert queue(services).sent == []


async def test_a_body_above_the_limit_is_refused(sender: Sender) -> None:
    answer = await sender.send(b" " * (webhooks.MAX_BODY_BYTES + 1))

    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")


async def test_another_secret_ends_the_one_before_at_the_same_address(
    owner: Person, sender: Sender, anonymous: httpx.AsyncClient
) -> None:
    second = await rotate(owner, anonymous)

    assert (second.url, second.secret != sender.secret) == (sender.url, True)
    assert (await sender.send()).status_code == 401
    assert (await second.send()).status_code == 202


async def test_a_webhook_is_taken_away_and_goes_with_its_base(
    owner: Person, sender: Sender, anonymous: httpx.AsyncClient, database: Database
) -> None:
    assert (await owner.client.delete("/api/knowledge-bases/hr/webhook")).status_code == 204
    assert (await owner.client.delete("/api/knowledge-bases/hr/webhook")).status_code == 204
    assert (await sender.send()).status_code == 401
    again = await rotate(owner, anonymous)
    assert again.url != sender.url
    await owner.client.delete("/api/knowledge-bases/hr")

    assert (await again.send()).status_code == 401
    with psycopg.connect(database.superuser_url) as conn:
        left = conn.execute("SELECT count(*) FROM secrets WHERE org_id = %s", [owner.org_id]).fetchone()
    assert left == (1,), "until the sweeper comes"


async def test_too_many_deliveries_are_told_to_wait_and_may_come_again(
    sender: Sender, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "SHARE", timedelta(minutes=1))
    monkeypatch.setattr(webhooks, "AHEAD", timedelta(minutes=2))
    answers = [await sender.send(delivery=f"d-{number}") for number in range(5)]

    assert [answer.status_code for answer in answers] == [202, 202, 202, 429, 429]
    assert int(answers[-1].headers["retry-after"]) > 0
    assert answers[-1].json()["code"] == "rate_limit_exceeded"
    monkeypatch.setattr(webhooks, "AHEAD", timedelta(hours=1))
    assert (await sender.send(delivery="d-4")).json()["status"] == "accepted", "it was not done before"


async def test_a_delivery_that_the_queue_did_not_take_may_come_again(
    owner: Person, sender: Sender, services: Services
) -> None:
    class Full:
        async def send(self, *_: object, **__: object) -> None:
            raise UpstreamError("The message could not be queued.")

    async with client_of(dataclasses.replace(services, queue=Full())) as broken:
        failed = await dataclasses.replace(sender, client=broken).send(delivery="d-1")
    assert failed.status_code == 502

    assert (await sender.send(delivery="d-1")).json()["status"] == "accepted"


async def test_a_delivery_that_a_process_was_lost_over_may_come_again(
    owner: Person, sender: Sender, services: Services
) -> None:
    await sender.send(delivery="d-1")
    async with tenant(services.pool, owner.org_id) as conn:
        await conn.execute("UPDATE sync_webhook_deliveries SET done_at = NULL")
    assert (await sender.send(delivery="d-1")).status_code == 409
    async with tenant(services.pool, owner.org_id) as conn:
        await conn.execute("UPDATE sync_webhook_deliveries SET received_at = received_at - interval '2 minutes'")

    assert (await sender.send(delivery="d-1")).json()["status"] == "accepted"


async def test_a_tier_without_webhooks_has_none_and_stops_those_that_there_are(
    owner: Person, sender: Sender, database: Database
) -> None:
    with psycopg.connect(database.superuser_url) as conn:
        conn.execute("UPDATE organizations SET tier = 'pro' WHERE id = %s", [owner.org_id])

    for answer in (await owner.client.post("/api/knowledge-bases/hr/webhook"), await sender.send()):
        assert (answer.status_code, answer.json()["code"]) == (403, "tier_limit")
        assert answer.json()["required_tier"] == "enterprise"


async def test_no_secret_is_in_the_audit_log_or_the_database(owner: Person, sender: Sender, database: Database) -> None:
    await sender.send()

    told = (await owner.client.get("/api/audit-log")).text
    with psycopg.connect(database.superuser_url) as conn:
        stored = conn.execute("SELECT string_agg(s::text, '') FROM secrets s").fetchone()
    assert sender.secret not in told
    assert stored is not None
    assert sender.secret.encode().hex() not in stored[0]
