"""moto, and a bucket of its own for each test."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from bonito.clouds.aws.clients import open_client
from tests.emulators import moto


@pytest.fixture(scope="module")
def aws_url() -> Iterator[str]:
    with moto.serving() as url:
        yield url


@pytest.fixture(autouse=True)
def own_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Lambda gives a function: keys and a region in its environment."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": moto.REGION,
        "AWS_REGION": moto.REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
async def s3(aws_url: str) -> AsyncIterator[Any]:
    """A client of the buckets' owner."""
    async with open_client("s3", access=moto.StaticAccess(), region=moto.REGION, endpoint_url=aws_url) as client:
        yield client


@pytest.fixture
async def bucket(s3: Any) -> str:
    name = f"docs-{uuid.uuid4().hex}"
    await s3.create_bucket(Bucket=name)
    return name
