"""`bonito invoke` says what is wrong with what it was given."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bonito.cli.app import app

ROOT = Path(__file__).parents[3]
SAMPLE = str(ROOT / "events" / "aws" / "schedule-tick.json")


@pytest.mark.parametrize(
    ("door", "content", "says"),
    [
        ("functions.ingest.local", "{}", "a door ends in one of aws, azure, gcp"),
        ("functions.nothing.aws", "{}", "functions.nothing is not here"),
        ("functions.ingest.aws", "{", "the file is no JSON"),
        ("functions.ingest.aws", "[]", "the file holds no JSON object"),
    ],
)
def test_what_cannot_be_invoked_is_wrong_usage(
    door: str, content: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "event.json").write_text(content)

    result = CliRunner().invoke(app, ["invoke", door, "--event", str(tmp_path / "event.json")])

    assert result.exit_code == 2
    assert says in result.output


def test_a_setting_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("BONITO_MAINTENANCE_DATABASE_URL", raising=False)

    result = CliRunner().invoke(app, ["invoke", "functions.maintenance.aws", "--event", SAMPLE])

    assert result.exit_code == 1
    assert "BONITO_MAINTENANCE_DATABASE_URL is not set" in result.output
