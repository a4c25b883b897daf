"""Which files a folder means, and what a filter may be."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bonito.cli.app import app
from bonito.cli.knowledge import _files_below


def test_files_keep_their_path_below_the_folder_and_hidden_ones_stay(tmp_path: Path) -> None:
    (tmp_path / "b" / ".git").mkdir(parents=True)
    for name in ("a.txt", "b/c.txt", "b/.git/config", ".env"):
        (tmp_path / name).write_text("x")

    assert [shown for _, shown in _files_below([tmp_path])] == ["a.txt", "b/c.txt"]
    assert [shown for _, shown in _files_below([tmp_path / "b" / "c.txt", tmp_path / ".env"])] == ["c.txt", ".env"]


@pytest.mark.parametrize("text", ["{", "[]", "1", "null"])
def test_a_filter_is_a_json_object(text: str) -> None:
    refused = CliRunner().invoke(app, ["kb", "search", "notes", "words", "--filter", text])

    assert refused.exit_code == 2
    assert "JSON" in refused.stderr


def test_deleting_where_nobody_can_be_asked_needs_yes() -> None:
    refused = CliRunner().invoke(app, ["kb", "delete", "notes"])

    assert refused.exit_code == 1
    assert "--yes" in refused.stderr
