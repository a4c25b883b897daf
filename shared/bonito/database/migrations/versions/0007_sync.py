"""Tiers of organizations, and webhooks that have a source synced."""

from __future__ import annotations

from bonito.database.migrations.script import run_sibling_sql

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Run the SQL beside this file."""
    run_sibling_sql(__file__)
