"""/api/connections and /api/secrets: access to customers' accounts, by references alone (T4, T9)."""

from __future__ import annotations

import dataclasses
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from bonito.console.services import Services
from bonito.database.pool import lookup, tenant
from bonito.errors import AccessDenied
from bonito.settings import Settings
from bonito.tenancy.accesses import Accesses
from bonito.tenancy.named_secrets import NamedSecrets, StoredSecrets
from tests.integration.conftest import Database
from tests.integration.console.conftest import Person, client_of
from tests.unit.clouds.playing import ISSUER_URL, claims_of, issuer

ROLE = "arn:aws:iam::123456789012:role/reader"
TENANT, CLIENT = "11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-000000000000"
PROVIDER = "projects/1/locations/global/workloadIdentityPools/pool/providers/bonito"
FEDERATED = {
    "aws": {"role_arn": ROLE},
    "azure": {"tenant_id": TENANT, "client_id": CLIENT},
    "gcp": {"provider": PROVIDER, "service_account": "reader@p.iam.gserviceaccount.com"},
}


def wanted(**fields: Any) -> dict[str, Any]:
    body = {"name": "papers", "cloud": "aws", "credential": {"secret": "s3-reader"}, "buckets": ["papers", "minutes"]}
    return body | fields


async def add(person: Person, **fields: Any) -> dict[str, Any]:
    answer = await person.client.post("/api/connections", json=wanted(**fields))
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def make_base(person: Person, **source: Any) -> httpx.Response:
    body = {"name": f"kb-{uuid4()}", "source": {"type": "s3", "bucket": "papers"} | source}
    return await person.client.post("/api/knowledge-bases", json=body)


@pytest.fixture
async def on_aws(services: Services, owner: Person) -> Any:
    """The owner of the same organization, where Bonito runs on AWS."""
    secrets = NamedSecrets(StoredSecrets(services.pool, services.secret_box))
    accesses = Accesses(cloud="aws", issuer=issuer(), secrets=secrets)
    settings = services.settings.model_copy(update={"cloud": "aws"})
    there = dataclasses.replace(services, settings=settings, accesses=accesses)
    async with client_of(there, owner.token) as client:
        yield dataclasses.replace(owner, client=client)


@pytest.mark.parametrize(
    ("cloud", "audience", "bucket"),
    [
        ("aws", "sts.amazonaws.com", "papers"),
        ("azure", "api://AzureADTokenExchange", "example/papers"),
        ("gcp", f"https://iam.googleapis.com/{PROVIDER}", "papers"),
    ],
)
async def test_a_federated_connection_says_what_the_account_has_to_trust(
    owner: Person, cloud: str, audience: str, bucket: str
) -> None:
    credential = {"federated": FEDERATED[cloud]}
    made = await add(owner, cloud=cloud, credential=credential, buckets=[bucket])
    shown = (await owner.client.get(f"/api/connections/{made['id']}")).json()

    assert shown == made
    assert made["credential"] == credential
    assert made["trust"] == {"issuer": ISSUER_URL, "subject": str(owner.org_id), "audience": audience}


async def test_a_role_gets_an_external_id_that_nobody_chose(on_aws: Person) -> None:
    first = await add(on_aws, credential={"role_arn": ROLE})
    second = await add(on_aws, name="other", credential={"role_arn": ROLE})
    chosen = await on_aws.client.post("/api/connections", json=wanted(name="third", credential=first["credential"]))

    ids = [made["credential"]["external_id"] for made in (first, second)]
    assert all(len(external_id) >= 32 for external_id in ids)
    assert len(set(ids)) == 2
    assert (chosen.status_code, chosen.json()["param"]) == (400, "credential.external_id")


async def test_an_external_id_stays_through_every_change(on_aws: Person) -> None:
    made = await add(on_aws, credential={"role_arn": ROLE})
    path, external_id = f"/api/connections/{made['id']}", made["credential"]["external_id"]
    other_role = ROLE.replace("reader", "writer")

    sent_back = await on_aws.client.put(path, json=wanted(credential=made["credential"]))
    left_out = await on_aws.client.put(path, json=wanted(credential={"role_arn": other_role}))
    forged = await on_aws.client.put(path, json=wanted(credential={"role_arn": ROLE, "external_id": "mine"}))

    assert sent_back.json()["credential"] == made["credential"]
    assert left_out.json()["credential"] == {"role_arn": other_role, "external_id": external_id}
    assert (forged.status_code, forged.json()["param"]) == (400, "credential.external_id")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        pytest.param({"credential": {"role_arn": ROLE}}, 400, id="a-role-where-bonito-is-not-on-aws"),
        pytest.param({"cloud": "gcp", "credential": {"role_arn": ROLE}}, 400, id="a-role-of-another-cloud"),
        pytest.param({"credential": {"federated": FEDERATED["azure"]}}, 400, id="a-federation-of-another-cloud"),
        pytest.param({"credential": {"access_key_id": "AKIA", "secret_access_key": "canary"}}, 422, id="keys"),
        pytest.param({"credential": {"federated": {"role_arn": ROLE, "key": "canary"}}}, 422, id="an-unknown-field"),
        pytest.param({"credential": {"role_arn": "arn:aws:iam::1:role/x"}}, 422, id="no-role"),
        pytest.param({"credential": {"secret": "../other/secret"}}, 422, id="a-name-that-climbs"),
        pytest.param({"cloud": "gcp", "credential": {"service_account": "a@b.iam.gserviceaccount.com"}}, 422, id="sa"),
        pytest.param({"cloud": "moon"}, 422, id="no-cloud"),
        pytest.param({"buckets": ["example/papers"]}, 400, id="a-container-on-aws"),
        pytest.param({"cloud": "azure", "buckets": ["papers"]}, 400, id="a-bucket-on-azure"),
        pytest.param({"buckets": ["arn:aws:s3:::papers"]}, 422, id="an-arn"),
        pytest.param({"name": ""}, 422, id="no-name"),
    ],
)
async def test_what_cannot_be_a_connection_is_refused_and_not_kept(
    owner: Person, fields: dict[str, Any], status: int
) -> None:
    answer = await owner.client.post("/api/connections", json=wanted(**fields))

    assert (answer.status_code, answer.json()["code"]) == (status, "invalid_request_error"), answer.text
    assert "canary" not in answer.text
    assert (await owner.client.get("/api/connections")).json()["items"] == []


async def test_the_deployments_own_buckets_are_in_no_connection(owner: Person, services: Services) -> None:
    settings = Settings.model_validate(vars(services.settings) | {"upload_bucket": "papers"})
    async with client_of(dataclasses.replace(services, settings=settings), owner.token) as client:
        answer = await client.post("/api/connections", json=wanted())

    assert (answer.status_code, answer.json()["param"]) == (400, "buckets")


async def test_without_an_issuer_there_is_no_federation(owner: Person, services: Services) -> None:
    secrets = NamedSecrets(StoredSecrets(services.pool, services.secret_box))
    there = dataclasses.replace(services, accesses=Accesses(cloud="local", issuer=None, secrets=secrets))
    async with client_of(there, owner.token) as client:
        refused = await client.post("/api/connections", json=wanted(credential={"federated": FEDERATED["aws"]}))
        document = await client.get("/.well-known/openid-configuration")
        keys = await client.get("/.well-known/jwks.json")

    assert refused.status_code == 400
    assert "BONITO_PUBLIC_URL" in refused.json()["detail"]
    assert (document.status_code, keys.status_code) == (404, 404)


async def test_anybody_may_read_by_which_keys_tokens_are_known(anonymous: httpx.AsyncClient) -> None:
    document = await anonymous.get("/.well-known/openid-configuration")
    keys = await anonymous.get("/.well-known/jwks.json")
    token = await issuer().token(subject="somebody", audience="a cloud")

    assert document.json()["jwks_uri"] == f"{ISSUER_URL}/.well-known/jwks.json"
    assert claims_of(token, keys.json())["iss"] == document.json()["issuer"]
    assert document.headers["cache-control"] == keys.headers["cache-control"] == "public, max-age=3600"


async def test_a_name_is_taken_once(owner: Person, stranger: Person) -> None:
    await add(owner)
    await add(stranger)
    again = await owner.client.post("/api/connections", json=wanted(name="PAPERS"))

    assert (again.status_code, again.json()["code"]) == (409, "already_exists")


async def test_a_base_reads_through_a_connection_that_is_for_its_bucket(owner: Person) -> None:
    made = await add(owner)
    base = await make_base(owner, connection=made["id"], prefix="hr/")

    assert base.status_code == 201, base.text
    assert base.json()["connection"] == made["id"]
    assert base.json()["source"] == {
        "type": "s3",
        "bucket": "papers",
        "prefix": "hr/",
        "connection": made["id"],
    }


async def test_a_connection_that_does_not_reach_the_source_is_refused(owner: Person, stranger: Person) -> None:
    made, foreign = await add(owner), await add(stranger)
    asked: list[dict[str, Any]] = [
        {"connection": made["id"], "bucket": "elsewhere"},
        {"connection": made["id"], "type": "gcs"},
        {"connection": foreign["id"]},
        {"connection": str(uuid4())},
        {},
    ]

    for source in asked:
        answer = await make_base(owner, **source)
        assert (answer.status_code, answer.json()["param"]) == (400, "source.connection"), source
    assert (await owner.client.get("/api/knowledge-bases")).json()["items"] == []


async def test_a_connection_in_use_is_neither_removed_nor_taken_from_its_bucket(owner: Person) -> None:
    made = await add(owner)
    path = f"/api/connections/{made['id']}"
    base = (await make_base(owner, connection=made["id"])).json()

    removed = await owner.client.delete(path)
    narrowed = await owner.client.put(path, json=wanted(buckets=["minutes"]))
    kept = await owner.client.put(path, json=wanted(buckets=["papers"]))

    assert (removed.status_code, narrowed.status_code, kept.status_code) == (409, 409, 200)
    assert base["name"] in removed.json()["detail"]
    assert base["name"] in narrowed.json()["detail"]
    await owner.client.delete(f"/api/knowledge-bases/{base['id']}")
    assert (await owner.client.delete(path)).status_code == 409  # the sweeper has yet to come
    assert (await owner.client.get(path)).status_code == 200


async def test_an_unused_connection_is_removed(owner: Person) -> None:
    made = await add(owner)

    assert (await owner.client.delete(f"/api/connections/{made['id']}")).status_code == 204
    assert (await owner.client.get(f"/api/connections/{made['id']}")).status_code == 404


async def test_the_cloud_of_a_connection_stays(owner: Person) -> None:
    made = await add(owner)
    answer = await owner.client.put(f"/api/connections/{made['id']}", json=wanted(cloud="gcp"))

    assert (answer.status_code, answer.json()["param"]) == (400, "cloud")


async def test_a_source_keeps_its_connection(owner: Person) -> None:
    first, second = await add(owner), await add(owner, name="other")
    base = (await make_base(owner, connection=first["id"])).json()
    source = {"type": "s3", "bucket": "papers", "connection": second["id"]}

    answer = await owner.client.put(f"/api/knowledge-bases/{base['id']}", json={"source": source})

    assert (answer.status_code, answer.json()["param"]) == (400, "source")


async def test_a_notification_is_for_bases_whose_connection_is_for_the_bucket(
    owner: Person, services: Services, database: Database
) -> None:
    made = await add(owner)
    base = (await make_base(owner, connection=made["id"])).json()

    async def concerned() -> list[str]:
        async with lookup(services.pool) as conn:
            rows = await (await conn.execute("SELECT * FROM find_knowledge_bases('s3', 'papers')")).fetchall()
        return [str(knowledge_base_id) for org, knowledge_base_id, _ in rows if org == owner.org_id]

    before = await concerned()
    with psycopg.connect(database.superuser_url) as conn:
        conn.execute("UPDATE connections SET buckets = '{minutes}' WHERE id = %s", [made["id"]])

    assert (before, await concerned()) == ([base["id"]], [])


async def test_a_trial_tells_that_the_secret_is_missing(owner: Person) -> None:
    made = await add(owner)
    answer = await owner.client.post(f"/api/connections/{made['id']}/verify", json={})

    assert answer.status_code == 200, answer.text
    assert not answer.json()["is_verified"]
    assert "There is no secret s3-reader" in answer.json()["error"]


async def test_every_change_of_a_connection_is_in_the_audit_log(owner: Person) -> None:
    made = await add(owner)
    path = f"/api/connections/{made['id']}"
    await owner.client.put(path, json=wanted(name="renamed"))
    await owner.client.post(f"{path}/verify", json={})
    await owner.client.delete(path)

    entries = (await owner.client.get("/api/audit-log")).json()["items"]
    assert [entry["action"] for entry in reversed(entries)] == [
        "connection.create",
        "connection.change",
        "connection.verify",
        "connection.delete",
    ]
    assert {entry["target"] for entry in entries} == {f"connection:{made['id']}"}


async def test_a_secret_goes_in_and_does_not_come_out(
    owner: Person, stranger: Person, services: Services, database: Database
) -> None:
    canary = '{"access_key_id": "AKIA", "secret_access_key": "canary-0123456789"}'
    stored = await owner.client.post("/api/secrets", json={"name": "s3-reader", "value": canary})
    shown = [stored.text] + [(await owner.client.get(path)).text for path in ("/api/secrets", "/api/audit-log")]
    secrets = NamedSecrets(StoredSecrets(services.pool, services.secret_box))

    assert stored.status_code == 200
    assert not [text for text in shown if "canary" in text]
    with psycopg.connect(database.superuser_url) as conn:
        rows = str(conn.execute("SELECT s::text, convert_from(ciphertext, 'LATIN1') FROM secrets s").fetchall())
    assert "canary" not in rows
    assert await secrets.read(owner.org_id, "s3-reader") == canary
    with pytest.raises(AccessDenied, match="There is no secret s3-reader"):
        await secrets.read(stranger.org_id, "s3-reader")


async def test_a_secret_that_was_replaced_is_read_anew_when_it_is_asked_for(owner: Person, services: Services) -> None:
    secrets = NamedSecrets(StoredSecrets(services.pool, services.secret_box))
    read = []
    for value in ("old", "new"):
        await owner.client.post("/api/secrets", json={"name": "k", "value": value})
        read.append(await secrets.read(owner.org_id, "k"))
    read.append(await secrets.read(owner.org_id, "k", fresh=True))

    assert read == ["old", "old", "new"]


async def test_a_secret_in_use_is_not_removed(owner: Person) -> None:
    for name in ("s3-reader", "unused"):
        await owner.client.post("/api/secrets", json={"name": name, "value": "x"})
    await add(owner)

    used = await owner.client.delete("/api/secrets/s3-reader")
    unused = await owner.client.delete("/api/secrets/unused")
    unknown = await owner.client.delete("/api/secrets/unused")

    assert (used.status_code, unused.status_code, unknown.status_code) == (409, 204, 404)
    names = (await owner.client.get("/api/secrets")).json()["items"]
    assert names == [{"name": "s3-reader"}]


async def test_secrets_of_a_cloud_deployment_are_its_operators(on_aws: Person) -> None:
    answer = await on_aws.client.post("/api/secrets", json={"name": "k", "value": "x"})

    assert (answer.status_code, answer.json()["code"]) == (409, "state_conflict")


async def test_a_provider_key_is_no_named_secret(owner: Person, services: Services) -> None:
    """They lie in one table; the purpose is part of what seals them."""
    from bonito.tenancy import secrets as sealed

    async with tenant(services.pool, owner.org_id) as conn:
        await sealed.put(
            conn,
            services.secret_box,
            org_id=owner.org_id,
            secret_id=uuid4(),
            purpose="provider",
            plaintext=b"canary",
        )

    assert (await owner.client.get("/api/secrets")).json()["items"] == []
