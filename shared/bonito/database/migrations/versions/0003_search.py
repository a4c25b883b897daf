"""BM25 weights, term counts and the search functions."""

from __future__ import annotations

from bonito.database.migrations.script import run_sibling_sql

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Run the SQL beside this file."""
    run_sibling_sql(__file__)
