from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ["numpy", "litellm", "openai", "httpx", "pydantic", "tokenizers", "boto3", "botocore", "requests", "orjson"]


MODULES = ["bonito.egress.client", "bonito.providers.openai_http", "bonito.providers.sse"]
MODULES += ["bonito.providers.local.extractive", "bonito.providers.litellm_adapter", "bonito.providers.bedrock"]
MODULES += ["bonito.providers.vertex", "bonito.providers.service_account"]


@pytest.mark.parametrize("module", MODULES)
def test_importing_a_provider_loads_nothing_heavy(module: str) -> None:
    script = f"import json, sys, {module}; print(json.dumps(sorted(set({HEAVY}) & set(sys.modules))))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert json.loads(found.stdout) == []
