"""Uploads of a deployment in a cloud: below their organization in its own bucket, by addresses that S3 itself takes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx
import pytest

from bonito.assembly.upload_places import UploadBucket, places_of
from bonito.clouds.aws.clients import open_client
from bonito.errors import InvalidRequest
from bonito.knowledge.direct_uploads import Announced, Upload
from bonito.knowledge.upload_places import UploadFolders
from bonito.settings import Settings
from bonito.tenancy.secrets import SecretBox
from tests.emulators import moto

CONTENT = b"# Leave"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """S3 as a function of ours finds it: by its environment."""
    with moto.serving() as url:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": moto.REGION,
            "AWS_DEFAULT_REGION": moto.REGION,
            "AWS_ENDPOINT_URL": url,
        }.items():
            monkeypatch.setenv(name, value)
        yield url


async def test_a_file_goes_straight_to_the_deployments_bucket(aws: str) -> None:
    org_id, base_id = uuid4(), uuid4()
    async with open_client("s3", access=None) as s3:
        await s3.create_bucket(Bucket="deployment")
    places = UploadBucket("aws", "deployment")
    file = Announced("policies/leave.md", len(CONTENT), hashlib.sha256(CONTENT).digest())
    upload = Upload(uuid4(), base_id, [file], datetime.now(UTC) + timedelta(hours=1))

    address = await places.address(org_id, upload, 0, expires=timedelta(hours=1))
    async with httpx.AsyncClient(trust_env=False) as anybody:
        answer = await anybody.put(address.address, content=CONTENT, headers=dict(address.headers))

    assert answer.status_code == 200, answer.text
    assert (await places.uploads(org_id, base_id).head("policies/leave.md")).size == len(CONTENT)
    async with open_client("s3", access=None) as s3:
        listed = await s3.list_objects_v2(Bucket="deployment")
    assert [item["Key"] for item in listed["Contents"]] == [f"uploads/{org_id}/{base_id}/policies/leave.md"]


def test_a_cloud_deployment_without_a_bucket_takes_no_uploads() -> None:
    with pytest.raises(InvalidRequest, match="BONITO_UPLOAD_BUCKET"):
        UploadBucket("gcp", "").uploads(uuid4(), uuid4())


@pytest.mark.parametrize(("cloud", "bucket"), [("aws", "b"), ("azure", "account/container"), ("gcp", "b")])
def test_each_cloud_has_a_store_that_signs(cloud: str, bucket: str) -> None:
    places = places_of(Settings.model_validate({"cloud": cloud, "upload_bucket": bucket}), SecretBox([bytes(32)]))

    assert hasattr(places.uploads(uuid4(), uuid4()), "signed_upload")


def test_elsewhere_uploads_lie_on_the_disk() -> None:
    assert isinstance(places_of(Settings(), SecretBox([bytes(32)])), UploadFolders)
