"""Every change through /api leaves one row in the audit log, whatever became of it, and no secret with it (O2, T4)."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID, uuid4

import httpx
import psycopg

from bonito.console.app import create_app
from bonito.console.permissions import Call, requires
from bonito.console.routing import api_router
from bonito.console.services import Services
from bonito.tenancy.permissions import Permission, Role
from tests.integration.conftest import Database
from tests.integration.console.conftest import Person, client_of
from tests.integration.people import make_member


async def entries(owner: Person) -> list[dict[str, Any]]:
    answer = await owner.client.get("/api/audit-log", params={"limit": 200})
    assert answer.status_code == 200
    return list(reversed(answer.json()["items"]))


async def test_a_change_is_recorded_with_actor_target_and_request(owner: Person) -> None:
    made = await owner.client.post("/api/keys", json={"name": "bot"}, headers={"x-request-id": "r-1"})

    (entry,) = await entries(owner)
    assert entry["actor"] == f"user:{owner.user_id}"
    assert (entry["action"], entry["target"]) == ("key.create", f"key:{made.json()['id']}")
    assert entry["request_id"] == "r-1"
    assert (entry["details"]["outcome"], entry["details"]["status"], entry["details"]["name"]) == (
        "succeeded",
        201,
        "bot",
    )


async def test_reading_leaves_nothing(owner: Person) -> None:
    for path in ("/api/keys", "/api/organization", "/api/audit-log", "/api/members"):
        await owner.client.get(path)

    assert await entries(owner) == []


async def test_a_refused_change_is_recorded_as_refused(owner: Person, services: Services, database: Database) -> None:
    viewer = make_member(database, owner.org_id, Role.VIEWER)
    async with client_of(services, viewer.token) as client:
        await client.post("/api/keys", json={"name": "bot"})
    unknown = uuid4()
    await owner.client.delete(f"/api/keys/{unknown}")

    found = [(e["actor"], e["action"], e["target"], e["details"]["outcome"]) for e in await entries(owner)]
    assert found == [
        (f"user:{viewer.user_id}", "key.create", "/api/keys", "refused"),
        (f"user:{owner.user_id}", "key.revoke", f"/api/keys/{unknown}", "refused"),
    ]


async def test_a_refusal_at_a_path_that_cannot_be_stored_is_recorded_all_the_same(
    owner: Person, services: Services, database: Database
) -> None:
    viewer = make_member(database, owner.org_id, Role.VIEWER)
    async with client_of(services, viewer.token) as client:
        answers = [await client.delete(f"/api/keys/{thing}") for thing in ("%00", "%ff%fe", "x" * 5000)]

    assert [answer.status_code for answer in answers] == [403] * 3
    assert [entry["details"]["outcome"] for entry in await entries(owner)] == ["refused"] * 3


async def test_what_was_not_understood_or_not_authenticated_is_no_entry(
    owner: Person, anonymous: httpx.AsyncClient
) -> None:
    await owner.client.post("/api/keys", json={"nmae": "bot"})
    await owner.client.post("/api/keys", content=b"x", headers={"content-type": "text/plain"})
    await anonymous.post("/api/keys", json={"name": "bot"})

    assert await entries(owner) == []


async def test_a_failed_change_is_rolled_back_and_its_entry_stays(owner: Person, services: Services) -> None:
    app = create_app(services)
    router = api_router("/broken", "broken")

    @router.post("")
    async def broken(call: Annotated[Call, requires(Permission.KEYS_MANAGE, audit="thing.break")]) -> None:
        """Change something, and fail."""
        async with call.transaction() as conn:
            await conn.execute("UPDATE memberships SET role = 'viewer' WHERE org_id = %s", [call.org_id])
            call.note("thing:1", step="changed")
            raise RuntimeError("in the middle")

    app.include_router(router)
    headers = {"Authorization": f"Bearer {owner.token}"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://console", headers=headers
    ) as client:
        answer = await client.post("/api/broken")

    (entry,) = await entries(owner)
    assert answer.status_code == 500
    assert (entry["action"], entry["target"], entry["details"]["outcome"]) == ("thing.break", "thing:1", "failed")
    assert (await owner.client.get("/api/organization")).json()["role"] == "owner"


async def test_a_change_whose_entry_cannot_be_written_does_not_look_like_success(
    owner: Person, database: Database
) -> None:
    with psycopg.connect(database.superuser_url, autocommit=True) as conn:
        conn.execute("REVOKE EXECUTE ON FUNCTION append_audit FROM bonito_runtime")
        try:
            answer = await owner.client.post("/api/keys", json={"name": "bot"})
        finally:
            conn.execute("GRANT EXECUTE ON FUNCTION append_audit TO bonito_runtime")

    assert answer.status_code == 500
    assert "bn-" not in answer.text


async def test_joining_is_recorded_in_the_organization_that_was_joined(
    owner: Person, anonymous: httpx.AsyncClient
) -> None:
    email = f"{uuid4()}@example.com"
    invite = (await owner.client.post("/api/invites", json={"email": email, "role": "viewer"})).json()

    joined = await anonymous.post("/api/invites/accept", json={"token": invite["token"], "email": email})

    assert joined.status_code == 201
    entry = (await entries(owner))[-1]
    user = f"user:{joined.json()['user_id']}"
    assert (entry["actor"], entry["action"], entry["target"]) == (user, "invite.accept", user)


async def test_no_secret_is_in_any_row_that_the_changes_left(
    owner: Person, anonymous: httpx.AsyncClient, database: Database
) -> None:
    email = f"{uuid4()}@example.com"
    key = (await owner.client.post("/api/keys", json={"name": "bot"})).json()
    rotated = (await owner.client.post(f"/api/keys/{key['id']}/rotate", json={})).json()
    token = (await owner.client.post("/api/tokens", json={"name": "ci"})).json()
    invite = (await owner.client.post("/api/invites", json={"email": email})).json()
    joined = (await anonymous.post("/api/invites/accept", json={"token": invite["token"], "email": email})).json()
    shown_once = [key["key"], rotated["key"], token["token"], invite["token"], joined["personal_token"]]

    assert [text[:3] for text in shown_once] == ["bn-", "bn-", "bp-", "bi-", "bp-"]
    with psycopg.connect(database.superuser_url) as conn:
        for table in ("audit_log", "gateway_keys", "personal_tokens", "invites", "users", "memberships"):
            stored = str(conn.execute(f"SELECT t::text FROM {table} t").fetchall())  # type: ignore[arg-type]  # listed here
            assert not [text for text in shown_once if text[12:] in stored]
    for path in ("/api/keys", "/api/tokens", "/api/invites", "/api/audit-log"):
        shown = (await owner.client.get(path)).text
        assert not [text for text in shown_once if text[12:] in shown]


async def test_the_log_is_verified_over_the_api_and_tampering_shows(
    owner: Person, database: Database, org_id: UUID
) -> None:
    for number in range(3):
        await owner.client.post("/api/keys", json={"name": f"key {number}"})
    intact = (await owner.client.get("/api/audit-log/verify")).json()
    noted = await owner.client.get("/api/audit-log/verify", params={"noted": intact["head"]})
    with psycopg.connect(database.superuser_url) as conn:
        conn.execute("UPDATE audit_log SET actor = 'user:nobody' WHERE org_id = %s AND sequence = 2", [org_id])

    tampered = (await owner.client.get("/api/audit-log/verify")).json()

    assert (intact["is_intact"], intact["entries"], noted.json()["is_intact"]) == (True, 3, True)
    assert (tampered["is_intact"], tampered["fault_sequence"]) == (False, 2)
