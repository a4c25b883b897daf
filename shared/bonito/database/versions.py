"""Which versions of Postgres and pgvector the database must have."""

from __future__ import annotations

import logging

from bonito.errors import SchemaMismatch

logger = logging.getLogger(__name__)

MIN_POSTGRES = 160_000  # as the server tells it: 16.0; GRANT … WITH INHERIT and SET
MIN_PGVECTOR = (0, 8)  # iterative index scans
# Earlier ones have a buffer overflow in parallel HNSW builds and index corruption on vacuum (pgvector's CHANGELOG).
SAFE_PGVECTOR = (0, 8, 4)


def check_postgres(server_version: int) -> None:
    """Refuse a server that is too old; SchemaMismatch."""
    if server_version < MIN_POSTGRES:
        raise SchemaMismatch(f"Postgres {server_version // 10_000} is too old; Bonito needs 16 or newer.")


def check_pgvector(version: str) -> bool:
    """Whether parallel index builds are safe; logs a warning where they are not.

    Raises:
        SchemaMismatch: pgvector is older than 0.8.0, which search needs.
    """
    numbers = tuple(int(part) for part in version.split(".") if part.isdigit())
    if numbers < MIN_PGVECTOR:
        raise SchemaMismatch(f"pgvector {version} is too old; 0.8.0 is needed and 0.8.4 advised.")
    if numbers < SAFE_PGVECTOR:
        logger.warning(
            "pgvector %s has known faults in parallel index builds and in vacuum; update it to 0.8.4 or newer. "
            "Indexes are built by one process until then.",
            version,
        )
    return numbers >= SAFE_PGVECTOR
