"""Alembic revisions, each a thin module beside the SQL that it runs."""
