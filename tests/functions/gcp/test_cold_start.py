"""What a door on Google Cloud loads before its first call, in a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# Google's clients first: the doors speak to its services without them. What is read with a document comes with it.
FORBIDDEN = {
    "aiobotocore",
    "alembic",
    "azure",
    "boto3",
    "botocore",
    "charset_normalizer",
    "croniter",
    "docx",
    "fastapi",
    "google.api_core",
    "google.auth",
    "google.cloud.pubsub_v1",
    "google.cloud.secretmanager",
    "google.cloud.storage",
    "google.cloud.tasks_v2",
    "google_crc32c",
    "grpc",
    "httpx",
    "litellm",
    "lxml",
    "numpy",
    "openai",
    "orjson",
    "procrastinate",
    "pypdfium2",
    "requests",
    "selectolax",
    "semantic_text_splitter",
    "starlette",
    "tokenizers",
    "uvicorn",
}


@pytest.mark.parametrize("unit", ["ingest", "embed", "sync", "maintenance"])
def test_a_door_loads_nothing_that_its_first_call_may_not_need(unit: str) -> None:
    code = f"import functions.{unit}.gcp, json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert set(json.loads(done.stdout)) & FORBIDDEN == set()
