"""Alembic's entry: runs every revision as the owner, one transaction each."""

from __future__ import annotations

from alembic import context
from sqlalchemy.engine import Connection

AS_OWNER = "SET ROLE bonito_owner"


def run() -> None:
    """Run or render the revisions; the connection comes from `database.migrate`, which holds the lock."""
    connection = context.config.attributes.get("connection")
    if context.is_offline_mode():
        context.configure(dialect_name="postgresql", literal_binds=True, output_buffer=context.config.output_buffer)
        with context.begin_transaction():
            context.get_context().impl.static_output(AS_OWNER + ";")
            context.run_migrations()
        return
    assert isinstance(connection, Connection)  # noqa: S101 - only `database.migrate` calls this
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


run()
