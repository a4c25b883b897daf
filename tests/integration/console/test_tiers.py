"""Tiers over HTTP: what an organization may have is visible, and what it may not is refused with the way out."""

from __future__ import annotations

import psycopg

from tests.integration.conftest import Database
from tests.integration.console.conftest import Person


def set_tier(database: Database, person: Person, tier: str) -> None:
    with psycopg.connect(database.superuser_url) as conn:
        conn.execute("UPDATE organizations SET tier = %s WHERE id = %s", [tier, person.org_id])


async def test_the_organization_shows_its_tier_with_limits_and_usage(owner: Person, database: Database) -> None:
    before = (await owner.client.get("/api/organization")).json()
    set_tier(database, owner, "free")
    await owner.client.post("/api/knowledge-bases", json={"name": "hr", "source": {"type": "upload"}})

    after = (await owner.client.get("/api/organization")).json()

    assert (before["tier"], before["usage"]) == ("enterprise", {"knowledge_bases": 0, "documents": 0, "chunks": 0})
    assert before["limits"] == {
        "knowledge_bases": None,
        "documents": None,
        "chunks": None,
        "schedules": True,
        "webhooks": True,
        "custom_embedding_models": True,
    }
    assert (after["tier"], after["usage"]["knowledge_bases"]) == ("free", 1)
    assert after["limits"] == {
        "knowledge_bases": 1,
        "documents": 100,
        "chunks": 10_000,
        "schedules": False,
        "webhooks": False,
        "custom_embedding_models": False,
    }


async def test_a_refusal_names_the_tier_that_is_needed(owner: Person, database: Database) -> None:
    set_tier(database, owner, "free")
    body = {"name": "hr", "source": {"type": "upload"}}
    await owner.client.post("/api/knowledge-bases", json=body)

    second = await owner.client.post("/api/knowledge-bases", json=body | {"name": "legal"})
    scheduled = await owner.client.put("/api/knowledge-bases/hr", json={"sync_schedule": "0 3 * * *"})
    model = await owner.client.put("/api/knowledge-bases/hr", json={"embedding_model": "test/hash"})

    problem = second.json()
    assert (second.status_code, problem["code"], problem["required_tier"]) == (403, "tier_limit", "pro")
    assert problem["detail"] == "The tier free holds 1 knowledge base at most; remove some, or change to pro."
    assert (scheduled.status_code, scheduled.json()["required_tier"]) == (403, "pro")
    assert scheduled.json()["param"] == "sync_schedule"
    assert (model.status_code, model.json()["required_tier"]) == (403, "enterprise")
    assert (await owner.client.put("/api/knowledge-bases/hr", json={"sync_schedule": None})).status_code == 200


async def test_the_history_of_syncs_is_paged(owner: Person) -> None:
    await owner.client.post("/api/knowledge-bases", json={"name": "hr", "source": {"type": "upload"}})

    page = (await owner.client.get("/api/knowledge-bases/hr/syncs", params={"limit": 1})).json()

    (sync,) = page["items"]
    assert (sync["status"], sync["trigger"], sync["files_added"]) == ("syncing", "manual", 0)
    assert page["next_cursor"] is None
    assert (await owner.client.get("/api/knowledge-bases/other/syncs")).status_code == 404
