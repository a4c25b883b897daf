"""What importing a door pulls in, in a fresh interpreter: a cold start pays for each of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOORS = sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in ROOT.glob("functions/*/aws.py"))
FORBIDDEN = {
    "aiobotocore",
    "alembic",
    "aws_lambda_powertools",
    "aws_xray_sdk",
    "azure",
    "boto3",
    "botocore",
    "docx",
    "google",
    "httpx",
    "litellm",
    "lxml",
    "numpy",
    "openai",
    "pypdfium2",
    "selectolax",
    "semantic_text_splitter",
    "starlette",
    "tokenizers",
    "typer",
    "unstructured",
}


@pytest.mark.parametrize("door", DOORS)
def test_importing_a_door_pulls_in_nothing_heavy(door: str) -> None:
    # What stands there before is the interpreter's: namespaces that some packages make at its start, empty.
    code = f"import sys; there = {{*sys.modules}}; import {door}, json; print(json.dumps([*{{*sys.modules}} - there]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)

    assert {name.partition(".")[0] for name in json.loads(done.stdout)} & FORBIDDEN == set()


def test_all_doors_are_looked_at() -> None:
    assert [door.split(".")[1] for door in DOORS] == ["embed", "ingest", "maintenance", "sync"]
