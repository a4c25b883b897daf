"""Organizations, people, tokens, keys, secrets, providers, connections and the audit log."""

from __future__ import annotations

from bonito.database.migrations.script import run_sibling_sql

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Run the SQL beside this file."""
    run_sibling_sql(__file__)
