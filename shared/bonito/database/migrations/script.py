"""Runs a revision's SQL as one script: no parameters, so that Postgres parses it whole."""

from __future__ import annotations

from pathlib import Path

from alembic import context, op


def run_sibling_sql(revision_file: str) -> None:
    """Run the .sql file that has the revision's name."""
    run_sql(Path(revision_file).with_suffix(".sql").read_text(encoding="utf-8"))


def run_sql(script: str) -> None:
    """Run a script of many statements, or write it out where Alembic only renders (`bonito migrate --sql`)."""
    if context.is_offline_mode():
        op.get_context().impl.static_output(script)
        return
    driver_connection = op.get_bind().connection.driver_connection
    assert driver_connection is not None  # noqa: S101 - a bound connection always has one
    driver_connection.execute(script)
