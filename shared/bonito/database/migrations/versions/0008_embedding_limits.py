"""Limits of a provider's embedding models, shared by all workers; ingestion's own rows among the requests."""

from __future__ import annotations

from bonito.database.migrations.script import run_sibling_sql

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Run the SQL beside this file."""
    run_sibling_sql(__file__)
