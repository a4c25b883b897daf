"""`bonito connections`, `bonito secrets` and cloud sources of `bonito kb create`, against a running console."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from typer.testing import CliRunner, Result

from bonito.cli.app import app
from bonito.tenancy.permissions import Role
from tests.integration.conftest import Database
from tests.integration.console.server import serving
from tests.integration.people import make_member

ROLE = "arn:aws:iam::123456789012:role/reader"
PROVIDER = "projects/1/locations/global/workloadIdentityPools/pool/providers/bonito"
TENANT = "11111111-2222-3333-4444-555555555555"


class Bonito:
    """The command, as the owner of an organization runs it."""

    def __init__(self, url: str, token: str) -> None:
        self._environment = {"BONITO_API_URL": url, "BONITO_API_KEY": token}

    def run(self, *arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, list(arguments), env=self._environment, input=stdin)

    def json(self, *arguments: str, stdin: str | None = None) -> Any:
        ended = self.run(*arguments, "--json", stdin=stdin)
        assert ended.exit_code == 0, ended.output
        return json.loads(ended.stdout)


@pytest.fixture
def bonito(database: Database, org_id: UUID, tmp_path: Path) -> Iterator[Bonito]:
    with serving(database, tmp_path / "data") as url:
        yield Bonito(url, make_member(database, org_id, Role.OWNER).token)


@pytest.mark.parametrize(
    ("options", "credential"),
    [
        (["--cloud", "aws", "--role-arn", ROLE], {"federated": {"role_arn": ROLE}}),
        (
            ["--cloud", "azure", "--tenant-id", TENANT, "--client-id", TENANT],
            {"federated": {"tenant_id": TENANT, "client_id": TENANT}},
        ),
        (["--cloud", "gcp", "--provider", PROVIDER], {"federated": {"provider": PROVIDER}}),
        (["--cloud", "gcp", "--secret", "key"], {"secret": "key"}),
    ],
    ids=["aws", "azure", "gcp", "secret"],
)
def test_a_connection_of_each_kind_is_made_and_shown(
    bonito: Bonito, options: list[str], credential: dict[str, Any]
) -> None:
    made = bonito.json("connections", "create", "Papers", *options)

    assert made["credential"] == credential
    assert bonito.json("connections", "info", "papers") == made
    assert bonito.json("connections", "list") == [made]
    assert bonito.json("connections", "delete", made["id"]) == {"deleted": made["id"]}
    assert bonito.json("connections", "list") == []


def test_a_role_by_external_id_is_told_where_it_works(bonito: Bonito) -> None:
    ended = bonito.run("connections", "create", "p", "--cloud", "aws", "--role-arn", ROLE, "--external-id")

    assert ended.exit_code == 1
    assert "needs a deployment on AWS" in ended.stderr


def test_a_secret_comes_from_stdin_and_a_trial_says_what_is_wrong_with_it(bonito: Bonito) -> None:
    bonito.json("connections", "create", "p", "--cloud", "aws", "--secret", "key", "--bucket", "papers")
    missing = bonito.run("connections", "verify", "p")
    stored = bonito.run("secrets", "set", "key", stdin='{"canary": 1}\n')
    wrong = bonito.run("connections", "verify", "p", "--json")

    assert (missing.exit_code, stored.exit_code, wrong.exit_code) == (1, 0, 1)
    assert "There is no secret key" in missing.stderr
    assert "access_key_id" in json.loads(wrong.stdout)["error"]
    assert "canary" not in stored.output + wrong.output
    assert bonito.json("secrets", "list") == [{"name": "key"}]
    assert "refers to this secret" in bonito.run("secrets", "delete", "key").stderr


@pytest.mark.parametrize(
    ("cloud", "bucket", "options"),
    [
        ("aws", "papers", ["--source", "s3", "--bucket", "papers", "--region", "eu-central-1"]),
        ("azure", "example/papers", ["--source", "azure_blob", "--account", "example", "--container", "papers"]),
        ("gcp", "papers", ["--source", "gcs", "--bucket", "papers"]),
    ],
)
def test_a_knowledge_base_over_a_bucket_names_its_connection(
    bonito: Bonito, cloud: str, bucket: str, options: list[str]
) -> None:
    connection = bonito.json("connections", "create", "Reader", "--cloud", cloud, "--secret", "k", "--bucket", bucket)
    made = bonito.json("kb", "create", "papers", *options, "--prefix", "hr/", "--connection", "reader")

    assert made["connection"] == connection["id"]
    assert made["source"]["prefix"] == "hr/"
    in_use = bonito.run("connections", "delete", "reader")
    assert in_use.exit_code == 1
    assert "The knowledge base papers uses this connection." in in_use.stderr
