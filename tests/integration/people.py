"""Members of every role, inserted as the owner of the tables does."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from uuid import UUID, uuid4

import psycopg

from bonito.tenancy import credentials
from bonito.tenancy.permissions import Role
from tests.integration.conftest import Database


@dataclass(frozen=True)
class Member:
    """A member and a personal token that acts with the member's whole role."""

    org_id: UUID
    user_id: UUID
    token_id: UUID
    token: str
    email: str


def make_member(database: Database, org_id: UUID, role: Role) -> Member:
    """Insert a user, a membership and a token."""
    user_id, token_id = uuid4(), uuid4()
    token = credentials.mint("bp-", secrets.token_bytes(32))
    email = f"{user_id}@example.com"
    with psycopg.connect(database.superuser_url) as conn:
        conn.execute("INSERT INTO users (id, email) VALUES (%s, %s)", [user_id, email])
        conn.execute("INSERT INTO memberships (org_id, user_id, role) VALUES (%s, %s, %s)", [org_id, user_id, role])
        conn.execute(
            "INSERT INTO personal_tokens (org_id, id, user_id, name, token_hash, token_prefix, role)"
            " VALUES (%s, %s, %s, 'test', %s, %s, %s)",
            [org_id, token_id, user_id, token.hash, token.prefix, role],
        )
    return Member(org_id, user_id, token_id, token.text, email)
