"""Uploads whose files go straight to the store, by signed addresses."""

from __future__ import annotations

from bonito.database.migrations.script import run_sibling_sql

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Run the SQL beside this file."""
    run_sibling_sql(__file__)
