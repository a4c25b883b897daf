"""What searches of large knowledge bases need without large ones."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.integration.conftest import Database

LIMIT = 40


@pytest.fixture
def small_limit(database: Database) -> Iterator[int]:
    """A base of more than 40 chunks counts as large: candidates come from posting lists and an HNSW index."""
    with psycopg.connect(database.superuser_url, autocommit=True) as connection:
        change = "CREATE OR REPLACE FUNCTION exact_search_limit() RETURNS integer LANGUAGE sql IMMUTABLE RETURN {}"
        connection.execute(change.format(LIMIT))
        yield LIMIT
        connection.execute(change.format(2000))
