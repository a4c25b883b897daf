"""Invites: how everybody but the first owner joins an organization. Signed, single-use, expiring, for one email."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

from psycopg.rows import dict_row

from bonito.database.pool import Connection, Pool, lookup
from bonito.errors import BonitoError, NotFound, PermissionDenied, StateConflict
from bonito.tenancy.credentials import Credential
from bonito.tenancy.permissions import Role

PREFIX = "bi-"
SIGNING_PURPOSE = b"invite"
DEFAULT_LIFETIME = timedelta(days=7)

_IDS_AND_EXPIRY = 16 + 16 + 8
_TOKEN_BYTES = _IDS_AND_EXPIRY + hashlib.sha256().digest_size


@dataclass(frozen=True)
class Claim:
    """What a token says and its signature proves."""

    org_id: UUID
    invite_id: UUID
    expires_at: datetime


@dataclass(frozen=True)
class Invite:
    """An invite as the organization sees it; its token is nowhere kept."""

    id: UUID
    email: str
    role: Role
    invited_by: UUID | None
    expires_at: datetime
    accepted_at: datetime | None
    created_at: datetime


@dataclass(frozen=True)
class Joined:
    """Who joined what through an invite."""

    org_id: UUID
    user_id: UUID
    role: Role


def sign(claim: Claim, key: bytes) -> str:
    """Make the token: the claim, then HMAC-SHA256 over it, in base64."""
    seconds = int(claim.expires_at.timestamp())
    payload = claim.org_id.bytes + claim.invite_id.bytes + seconds.to_bytes(8, "big")
    return PREFIX + base64.urlsafe_b64encode(payload + _signature(payload, key)).rstrip(b"=").decode()


def read(token: str, keys: Sequence[bytes]) -> Claim:
    """Check a token's signature under any of the keys and return what it says.

    Raises:
        NotFound: not a token, changed, or signed by another deployment.
    """
    encoded = token.removeprefix(PREFIX)
    try:
        raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    payload, signature = raw[:_IDS_AND_EXPIRY], raw[_IDS_AND_EXPIRY:]
    is_signed = any(hmac.compare_digest(signature, _signature(payload, key)) for key in keys)
    if not token.startswith(PREFIX) or len(raw) != _TOKEN_BYTES or not is_signed:
        raise NotFound("This is not an invite of this deployment.", param="token")
    expires_at = datetime.fromtimestamp(int.from_bytes(payload[32:], "big"), UTC)
    return Claim(UUID(bytes=payload[:16]), UUID(bytes=payload[16:32]), expires_at)


# Inviting somebody again withdraws what was sent before, so that at most one token per email is good.
WITHDRAW: LiteralString = "DELETE FROM invites WHERE org_id = %(org_id)s AND email = %(email)s AND accepted_at IS NULL"

IS_MEMBER: LiteralString = """
    SELECT EXISTS (SELECT FROM memberships m JOIN users u ON u.id = m.user_id
                    WHERE m.org_id = %(org_id)s AND u.email = %(email)s)
"""

CREATE: LiteralString = """
    INSERT INTO invites (org_id, id, email, role, token_hash, invited_by, expires_at)
    VALUES (%(org_id)s, %(id)s, %(email)s, %(role)s, %(token_hash)s, %(invited_by)s, %(expires_at)s)
    RETURNING id, email, role, invited_by, expires_at, accepted_at, created_at
"""


async def create(
    conn: Connection,
    *,
    org_id: UUID,
    invite_id: UUID,
    email: str,
    role: Role,
    signing_key: bytes,
    by: Role,
    invited_by: UUID | None = None,
    lifetime: timedelta = DEFAULT_LIFETIME,
) -> tuple[Invite, str]:
    """Invite somebody; an earlier open invite for the same email is withdrawn.

    Args:
        conn: a transaction of the organization.
        org_id: the organization.
        invite_id: the invite's id.
        email: whom; kept in lower case.
        role: what the person will be.
        signing_key: the newest of `SecretBox.signing_keys(SIGNING_PURPOSE)`.
        by: the role of whoever invites.
        invited_by: the member who does.
        lifetime: how long it may be accepted.

    Returns:
        The invite and its token, which is shown this once.

    Raises:
        PermissionDenied: the invited would be more than whoever invites.
        StateConflict: the person is a member already.
    """
    if not by.covers(role):
        raise PermissionDenied(f"Whoever is {by} cannot invite somebody as {role}.")
    email = email.lower()
    whom = {"org_id": org_id, "email": email}
    member = await (await conn.execute(IS_MEMBER, whom)).fetchone()
    if member is not None and member[0]:
        raise StateConflict(f"{email} is a member already.")
    await conn.execute(WITHDRAW, whom)
    expires_at = (datetime.now(UTC) + lifetime).replace(microsecond=0)
    token = sign(Claim(org_id, invite_id, expires_at), signing_key)
    row = whom | {"id": invite_id, "role": role, "invited_by": invited_by, "expires_at": expires_at}
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(CREATE, row | {"token_hash": hashlib.sha256(token.encode()).digest()})
        created = await cursor.fetchone()
    assert created is not None  # noqa: S101 - INSERT … RETURNING answers one row
    return _invite(created), token


PAGE: LiteralString = """
    SELECT id, email, role, invited_by, expires_at, accepted_at, created_at
      FROM invites
     WHERE org_id = %(org_id)s
       AND (%(after_at)s::timestamptz IS NULL OR (created_at, id) > (%(after_at)s, %(after_id)s))
     ORDER BY created_at, id LIMIT %(limit)s
"""


async def list_page(
    conn: Connection, *, org_id: UUID, limit: int, after: tuple[datetime, UUID] | None = None
) -> list[Invite]:
    """Up to `limit` invites, accepted and expired ones too, the oldest first, those after the place `after`."""
    after_at, after_id = after or (None, None)
    row = {"org_id": org_id, "after_at": after_at, "after_id": after_id, "limit": limit}
    async with conn.cursor(row_factory=dict_row) as cursor:
        return [_invite(found) for found in await (await cursor.execute(PAGE, row)).fetchall()]


DELETE: LiteralString = """
    DELETE FROM invites WHERE org_id = %(org_id)s AND id = %(id)s AND accepted_at IS NULL RETURNING email
"""


async def delete(conn: Connection, *, org_id: UUID, invite_id: UUID) -> str:
    """Withdraw an invite that nobody has accepted and return whom it was for; NotFound."""
    row = await (await conn.execute(DELETE, {"org_id": org_id, "id": invite_id})).fetchone()
    if row is None:
        raise NotFound("There is no such open invite.")
    return str(row[0])


ACCEPT: LiteralString = """
    SELECT outcome, user_id, role
      FROM accept_invite(%(invite_hash)s, %(org_id)s, %(email)s, %(name)s, %(user_id)s,
                         %(token_id)s, %(token_hash)s, %(token_prefix)s)
"""

REFUSALS: dict[str, tuple[type[BonitoError], str]] = {
    "unknown": (NotFound, "There is no such invite for this email; it may have been withdrawn."),
    "used": (StateConflict, "The invite was accepted already."),
    "expired": (StateConflict, "The invite has expired; ask for a new one."),
    "member": (StateConflict, "This person is a member already."),
}


async def accept(
    pool: Pool,
    *,
    token: str,
    signing_keys: Sequence[bytes],
    email: str,
    name: str,
    user_id: UUID,
    token_id: UUID,
    credential: Credential,
) -> Joined:
    """Join through an invite: user, membership, first personal token and the end of the invite are one transaction.

    Args:
        pool: the runtime's.
        token: the invite's.
        signing_keys: `SecretBox.signing_keys(SIGNING_PURPOSE)`.
        email: the invited person's; it must be the invite's.
        name: the person's, where the deployment does not know the person yet.
        user_id: the person's id, where the deployment does not know the person yet.
        token_id: the first personal token's id.
        credential: a new `bp-` credential.

    Raises:
        NotFound: the token is none of this deployment, the invite was withdrawn, or it is for another email.
        StateConflict: used, expired, or the person is a member already.
    """
    claim = read(token, signing_keys)
    row = {
        "invite_hash": hashlib.sha256(token.encode()).digest(),
        "org_id": claim.org_id,
        "email": email.lower(),
        "name": name,
        "user_id": user_id,
        "token_id": token_id,
        "token_hash": credential.hash,
        "token_prefix": credential.prefix,
    }
    async with lookup(pool) as conn:
        answer = await (await conn.execute(ACCEPT, row)).fetchone()
    assert answer is not None  # noqa: S101 - the function answers one row
    outcome, member_id, role = answer
    if outcome in REFUSALS:
        refusal, message = REFUSALS[outcome]
        raise refusal(message)
    return Joined(claim.org_id, member_id, Role(role))


def _signature(payload: bytes, key: bytes) -> bytes:
    return hmac.digest(key, payload, hashlib.sha256)


def _invite(row: dict[str, Any]) -> Invite:
    return Invite(**row | {"role": Role(row["role"])})
