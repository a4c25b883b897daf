"""Knowledge bases, documents, revisions, chunks and the search index."""

from __future__ import annotations

from bonito.database.migrations.script import run_sibling_sql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Run the SQL beside this file."""
    run_sibling_sql(__file__)
