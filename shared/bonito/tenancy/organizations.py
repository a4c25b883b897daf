"""Organizations: the boundary of every row."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString
from uuid import UUID

from psycopg.rows import class_row

from bonito.database.pool import Connection
from bonito.errors import NotFound


@dataclass(frozen=True)
class Organization:
    """The tenant."""

    id: UUID
    name: str
    created_at: datetime


GET: LiteralString = "SELECT id, name, created_at FROM organizations WHERE id = %(org_id)s"


async def get(conn: Connection, *, org_id: UUID) -> Organization:
    """The organization itself; NotFound."""
    async with conn.cursor(row_factory=class_row(Organization)) as cursor:
        await cursor.execute(GET, {"org_id": org_id})
        found = await cursor.fetchone()
    if found is None:
        raise NotFound("There is no such organization.")
    return found
