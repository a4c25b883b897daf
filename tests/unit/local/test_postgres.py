"""What the embedded Postgres refuses before it starts anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from bonito.errors import BonitoError
from bonito.local import postgres


def test_a_directory_of_another_version_is_left_alone(tmp_path: Path) -> None:
    directory = tmp_path / "postgres"
    directory.mkdir()
    (directory / "PG_VERSION").write_text("9\n")

    with pytest.raises(BonitoError, match="made by Postgres 9"), postgres.running(directory):
        pass

    assert [path.name for path in tmp_path.rglob("*")] == ["postgres", "PG_VERSION"]
