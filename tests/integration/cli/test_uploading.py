"""`bonito kb upload` in three steps, against a running console."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from typer.testing import CliRunner, Result

from bonito.cli.app import app
from bonito.tenancy.permissions import Role
from tests.integration.conftest import Database
from tests.integration.console.server import serving
from tests.integration.people import make_member


@pytest.fixture
def environment(database: Database, org_id: UUID, tmp_path: Path) -> Iterator[dict[str, str]]:
    with serving(database, tmp_path / "data") as url:
        known = {"BONITO_API_URL": url, "BONITO_API_KEY": make_member(database, org_id, Role.OWNER).token}
        assert run(known, "kb", "create", "notes").exit_code == 0
        yield known


def run(environment: dict[str, str], *arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env=environment)


def stored(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "data" / "uploads").rglob("*") if path.is_file())


def test_files_and_folders_become_documents_in_their_order(environment: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "files"
    (folder / "minutes").mkdir(parents=True)
    for number in range(23):
        (folder / "minutes" / f"{number:02}.txt").write_text(f"Minutes of the meeting {number}")
    (folder / "empty.txt").write_bytes(b"")
    ended = run(environment, "kb", "upload", "notes", str(folder), "--metadata", '{"year": 2026}', "--json")
    again = run(environment, "kb", "upload", "notes", str(folder), "--json")

    items = json.loads(ended.stdout)
    assert [item["name"] for item in items] == ["empty.txt", *(f"minutes/{number:02}.txt" for number in range(23))]
    assert {(item["outcome"], item["metadata"]["year"]) for item in items} == {("created", 2026)}
    assert {item["outcome"] for item in json.loads(again.stdout)} == {"unchanged"}
    assert len(stored(tmp_path)) == 24


@pytest.mark.parametrize("metadata", ["{", "[]", '{"a": NaN}'])
def test_metadata_that_is_none_brings_nothing(environment: dict[str, str], tmp_path: Path, metadata: str) -> None:
    (tmp_path / "a.txt").write_text("x")
    ended = run(environment, "kb", "upload", "notes", str(tmp_path / "a.txt"), "--metadata", metadata)

    assert (ended.exit_code, ended.stderr[:8]) == (1, "bonito: ")
    assert stored(tmp_path) == []


def test_a_base_that_is_not_there_is_told_in_one_line(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    ended = run(environment, "kb", "upload", "nowhere", str(tmp_path / "a.txt"))

    assert (ended.exit_code, ended.stderr) == (1, "bonito: There is no knowledge base nowhere.\n")
