"""Organizations: the boundary of every row. Only a login that acts as the owner of the tables makes them."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from bonito.database.pool import Connection
from bonito.database.roles import ACT_AS_OWNER
from bonito.errors import AlreadyExists, InvalidRequest, NotFound
from bonito.tenancy import credentials, tiers
from bonito.tenancy.permissions import Role
from bonito.tenancy.tiers import Tier

EMAIL = re.compile(r"[A-Za-z0-9._%+'-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63}){0,3}")
NAME = re.compile(r"[^\x00-\x20\x7f]([^\x00-\x1f\x7f]{0,253}[^\x00-\x20\x7f])?")


@dataclass(frozen=True)
class Organization:
    """The tenant."""

    id: UUID
    name: str
    tier: Tier
    created_at: datetime


@dataclass(frozen=True)
class CreatedOrganization:
    """A new organization and its first owner's token, which is shown this once."""

    org_id: UUID
    user_id: UUID
    token: str = field(repr=False)


GET: LiteralString = "SELECT id, name, tier, created_at FROM organizations WHERE id = %(org_id)s"


async def get(conn: Connection, *, org_id: UUID) -> Organization:
    """The organization itself; NotFound."""
    async with conn.cursor(row_factory=class_row(Organization)) as cursor:
        await cursor.execute(GET, {"org_id": org_id})
        found = await cursor.fetchone()
    if found is None:
        raise NotFound("There is no such organization.")
    return found


CREATE: LiteralString = """
    INSERT INTO organizations (id, name, tier) VALUES (%(org_id)s, %(name)s, %(tier)s)
    ON CONFLICT (lower(name)) DO NOTHING RETURNING id
"""

# A person who is known to the deployment stays the same person.
ADD_USER: LiteralString = """
    INSERT INTO users (id, email) VALUES (%(user_id)s, %(email)s) ON CONFLICT (email) DO NOTHING
"""

FIND_USER: LiteralString = "SELECT id FROM users WHERE email = %(email)s"

ADD_OWNER: LiteralString = "INSERT INTO memberships (org_id, user_id, role) VALUES (%(org_id)s, %(user_id)s, %(role)s)"

FIRST_ACCESS: LiteralString = """
    INSERT INTO personal_tokens (org_id, id, user_id, name, token_hash, token_prefix, role)
    VALUES (%(org_id)s, %(token_id)s, %(user_id)s, 'first token', %(token_hash)s, %(token_prefix)s, %(role)s)
"""

SET_ORGANIZATION: LiteralString = "SELECT set_config('app.org_id', %(org_id)s::text, true)"

AUDIT: LiteralString = """
    SELECT append_audit(%(org_id)s, 'system', 'organization.create', %(target)s, %(details)s, 'admin')
"""


def create_organization(url: str, *, name: str, owner_email: str, tier: Tier = tiers.DEFAULT) -> CreatedOrganization:
    """Make an organization, its first owner, and the owner's first personal token, all or nothing.

    Args:
        url: a login that acts as bonito_owner, as for a migration.
        name: unique in the deployment, whatever the case of its letters.
        owner_email: a person that the deployment knows already is added, not made anew.
        tier: what it may have.

    Raises:
        AlreadyExists: the name is taken.
        InvalidRequest: the name or the email cannot be one.
    """
    if NAME.fullmatch(name) is None:
        raise InvalidRequest("A name has 1 to 255 printable characters and no space at its ends.", param="name")
    if EMAIL.fullmatch(owner_email) is None:
        raise InvalidRequest("This is not an email address.", param="owner_email")
    token = credentials.mint("bp-", secrets.token_bytes(credentials.ENTROPY_BYTES))
    row: dict[str, Any] = {
        "org_id": uuid4(),
        "name": name,
        "tier": tier,
        "user_id": uuid4(),
        "email": owner_email.lower(),
        "token_id": uuid4(),
        "token_hash": token.hash,
        "token_prefix": token.prefix,
        "role": Role.OWNER,
    }
    with psycopg.connect(url) as conn:
        conn.execute(ACT_AS_OWNER)
        if conn.execute(CREATE, row).fetchone() is None:
            raise AlreadyExists(f"There is an organization named {name} already.", param="name")
        conn.execute(ADD_USER, row)
        user = conn.execute(FIND_USER, row).fetchone()
        assert user is not None  # noqa: S101 - added just now, if it was not there
        row |= {"user_id": user[0], "target": f"organization:{row['org_id']}"}
        conn.execute(ADD_OWNER, row)
        conn.execute(FIRST_ACCESS, row)
        conn.execute(SET_ORGANIZATION, row)
        conn.execute(AUDIT, row | {"details": Jsonb({"owner": str(user[0]), "tier": tier})})
    return CreatedOrganization(org_id=row["org_id"], user_id=row["user_id"], token=token.text)


FIND_OWNER: LiteralString = """
    SELECT m.org_id, m.user_id
      FROM organizations o JOIN memberships m ON m.org_id = o.id JOIN users u ON u.id = m.user_id
     WHERE lower(o.name) = lower(%(name)s) AND u.email = %(email)s AND m.role = 'owner'
"""

AUDIT_REENTRY: LiteralString = """
    SELECT append_audit(%(org_id)s, 'system', 'token.create', %(target)s, '{}', 'admin')
"""


def issue_owner_token(url: str, *, name: str, owner_email: str) -> CreatedOrganization:
    """Make another personal token for an owner who has lost his; the operator's way back in.

    Args:
        url: a login that acts as bonito_owner, as for a migration.
        name: the organization's.
        owner_email: one of its owners'.

    Raises:
        NotFound: there is no such organization, or this is none of its owners.
    """
    token = credentials.mint("bp-", secrets.token_bytes(credentials.ENTROPY_BYTES))
    row: dict[str, Any] = {"name": name, "email": owner_email.lower(), "token_id": uuid4(), "role": Role.OWNER}
    with psycopg.connect(url) as conn:
        conn.execute(ACT_AS_OWNER)
        found = conn.execute(FIND_OWNER, row).fetchone()
        if found is None:
            raise NotFound(f"{owner_email} is no owner of an organization named {name}.")
        row |= {"org_id": found[0], "user_id": found[1], "token_hash": token.hash, "token_prefix": token.prefix}
        conn.execute(FIRST_ACCESS, row)
        conn.execute(SET_ORGANIZATION, row)
        conn.execute(AUDIT_REENTRY, row | {"target": f"token:{row['token_id']}"})
    return CreatedOrganization(org_id=row["org_id"], user_id=row["user_id"], token=token.text)


SET_TIER: LiteralString = """
    UPDATE organizations o SET tier = %(tier)s FROM organizations before
     WHERE lower(o.name) = lower(%(name)s) AND before.id = o.id RETURNING o.id, before.tier
"""

AUDIT_TIER: LiteralString = """
    SELECT append_audit(%(org_id)s, 'system', 'organization.set_tier', %(target)s, %(details)s, 'admin')
"""


def set_tier(url: str, *, name: str, tier: Tier) -> UUID:
    """Change what an organization may have; what it has above the new limits stays.

    Args:
        url: a login that acts as bonito_owner, as for a migration.
        name: the organization's.
        tier: the new one.

    Returns:
        The organization's id.

    Raises:
        NotFound: there is no such organization.
    """
    with psycopg.connect(url) as conn:
        conn.execute(ACT_AS_OWNER)
        found = conn.execute(SET_TIER, {"name": name, "tier": tier}).fetchone()
        if found is None:
            raise NotFound(f"There is no organization named {name}.")
        org_id: UUID = found[0]
        row = {"org_id": org_id, "target": f"organization:{org_id}"}
        conn.execute(SET_ORGANIZATION, row)
        conn.execute(AUDIT_TIER, row | {"details": Jsonb({"before": found[1], "tier": tier})})
    return org_id
