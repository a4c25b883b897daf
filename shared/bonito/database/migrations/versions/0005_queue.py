"""The queue of servers and laptops: procrastinate's own schema, as its package ships it."""

from __future__ import annotations

from procrastinate.schema import SchemaManager

from bonito.database.migrations.script import run_sql

revision = "0005"
down_revision = "0004"

GRANTS = """
GRANT SELECT, INSERT, UPDATE, DELETE
   ON procrastinate_jobs, procrastinate_events, procrastinate_periodic_defers, procrastinate_workers TO bonito_runtime;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO bonito_runtime;
"""


def upgrade() -> None:
    """Create the queue's tables and let the runtime work on them."""
    run_sql(SchemaManager.get_schema())
    run_sql(GRANTS)
