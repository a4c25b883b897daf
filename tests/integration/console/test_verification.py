"""POST /api/connections/{id}/verify against S3: which step failed, and what is missing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from uuid import uuid4

import pytest

from bonito.clouds.aws.clients import open_client
from bonito.console.services import Services
from bonito.knowledge.buckets import Buckets
from tests.emulators import moto
from tests.integration.console.conftest import Person, client_of


@pytest.fixture(scope="module")
def aws_url() -> Iterator[str]:
    with moto.serving() as url:
        yield url


async def test_each_bucket_is_listed_with_a_new_session(owner: Person, services: Services, aws_url: str) -> None:
    there, missing = f"docs-{uuid4().hex}", f"gone-{uuid4().hex}"
    async with open_client("s3", access=moto.StaticAccess(), region=moto.REGION, endpoint_url=aws_url) as s3:
        await s3.create_bucket(Bucket=there)
    buckets = Buckets(services.accesses, endpoints={"aws": aws_url})
    async with client_of(dataclasses.replace(services, buckets=buckets), owner.token) as client:
        body = {"name": "c", "cloud": "aws", "credential": {"secret": "keys"}, "buckets": [there, missing]}
        path = f"/api/connections/{(await client.post('/api/connections', json=body)).json()['id']}/verify"
        without = (await client.post(path, json={"region": moto.REGION})).json()
        keys = json.dumps({"access_key_id": "testing", "secret_access_key": "testing"})
        await client.post("/api/secrets", json={"name": "keys", "value": keys})
        tried = (await client.post(path, json={"region": moto.REGION, "prefix": "hr/"})).json()

    assert (without["is_verified"], without["buckets"]) == (False, [])
    assert "There is no secret keys" in without["error"]
    assert (tried["is_verified"], tried["error"]) == (False, None)
    assert tried["buckets"][0] == {"bucket": there, "error": None}
    assert missing in tried["buckets"][1]["error"]
