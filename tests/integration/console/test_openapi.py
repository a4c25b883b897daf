"""The OpenAPI document is the truth: what it allows is accepted, what it forbids is refused, nothing else comes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import cast
from uuid import UUID

import httpx
import pytest

from bonito.console.app import create_app
from bonito.console.services import Services
from bonito.tenancy.permissions import Role
from tests.integration.conftest import Database
from tests.integration.console.factories import FACTORIES, World
from tests.integration.console.server import serving
from tests.integration.people import make_member

# 400 is for requests that fit the document and make no sense: an expiry in the past. 422 is for those that do not fit.
CONFIGURATION = """
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409", "503"]
"""

# Run by itself: it finds the token that it is called with, and ends it.
LAST = "revoke_token"
DOCUMENT = create_app(cast("Services", None)).openapi()


def run(database: Database, org_id: UUID, directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    with serving(database, directory / "data", has_issuer=False) as url:
        return schemathesis(url, make_member(database, org_id, Role.OWNER).token, directory, *options)


def schemathesis(
    url: str, token: str, directory: Path, *options: str, configuration: str = CONFIGURATION
) -> subprocess.CompletedProcess[str]:
    (directory / "schemathesis.toml").write_text(configuration)
    return subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/api/openapi.json"),
            *("--header", f"Authorization: Bearer {token}"),
            *("--checks", "all", "--continue-on-failure", "--no-color", "--seed", "1"),
            *options,
        ],
        cwd=directory,
        capture_output=True,
        text=True,
    )


def check(finished: subprocess.CompletedProcess[str]) -> None:
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "only returned 401/403" not in finished.stdout, finished.stdout
    assert "Authentication failed" not in finished.stdout, finished.stdout


@pytest.mark.parametrize("half", ["--include-path-regex", "--exclude-path-regex"])
def test_schemathesis_finds_nothing(database: Database, org_id: UUID, tmp_path: Path, half: str) -> None:
    options = ("--phases", "examples,coverage,fuzzing", "--max-examples", "5", "--exclude-operation-id", LAST)

    check(run(database, org_id, tmp_path, *options, half, "^/api/knowledge-bases"))


def test_schemathesis_finds_nothing_where_it_ends_its_own_token(
    database: Database, org_id: UUID, tmp_path: Path
) -> None:
    options = ("--phases", "coverage,fuzzing", "--max-examples", "5", "--include-operation-id", LAST)
    finished = run(database, org_id, tmp_path, *options)

    assert finished.returncode == 0, finished.stdout + finished.stderr


async def test_schemathesis_finds_nothing_about_what_exists(database: Database, org_id: UUID, tmp_path: Path) -> None:
    """Random ids are mostly unknown ones, so here every path names something real."""
    owner = make_member(database, org_id, Role.OWNER)
    with serving(database, tmp_path / "data", has_issuer=False) as url:
        headers = {"Authorization": f"Bearer {owner.token}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as client:
            world = World(database, owner, client)
            made = [f'"path.{name}" = "{await factory(world)}"' for name, factory in FACTORIES.items()]
        options = ("--phases", "fuzzing", "--max-examples", "10", "--exclude-method", "DELETE")
        configuration = "\n".join(["[parameters]", *made, CONFIGURATION])
        finished = schemathesis(
            url, owner.token, tmp_path, *options, "--include-path-regex", "{", configuration=configuration
        )

    check(finished)
    assert "returned 404" not in finished.stdout, finished.stdout


@pytest.mark.exhaustive
@pytest.mark.timeout(1800)
def test_schemathesis_finds_nothing_in_many_examples(database: Database, org_id: UUID, tmp_path: Path) -> None:
    options = ("--phases", "fuzzing,stateful", "--max-examples", "50")

    check(run(database, org_id, tmp_path, *options, "--exclude-operation-id", LAST))


def test_every_operation_is_described() -> None:
    operations = [
        (path, method, operation)
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
    ]
    names = [operation["operationId"] for _, _, operation in operations]

    assert len(names) == len(set(names))
    for path, method, operation in operations:
        assert operation.get("description"), f"{method} {path} says nothing"
        assert {"500", "503"} <= set(operation["responses"]), f"{method} {path}"
        for status, response in operation["responses"].items():
            if not status.startswith("2"):
                assert list(response["content"]) == ["application/problem+json"], f"{method} {path} {status}"
