"""A transaction-pooling proxy before the database of a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.integration.conftest import Cluster, Database
from tests.pgbouncer import proxied


@pytest.fixture
def proxy_url(cluster: Cluster, database: Database) -> Iterator[str]:
    """The runtime's address through PgBouncer."""
    name = str(conninfo_to_dict(database.runtime_url)["dbname"])
    with proxied(cluster.socket_dir, database=name, login="test_runtime", server_connections=3) as url:
        yield url
