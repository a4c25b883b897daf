"""What every request through the gateway used, by month."""

from __future__ import annotations

from bonito.database.migrations.script import run_sibling_sql

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Run the SQL beside this file."""
    run_sibling_sql(__file__)
