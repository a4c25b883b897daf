"""An organization's model providers: the rows, and the credential that each has in the secret store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, LiteralString
from uuid import UUID

from psycopg.errors import UniqueViolation
from psycopg.rows import class_row

from bonito.database.pool import Connection
from bonito.errors import AlreadyExists, InvalidRequest, NotFound
from bonito.tenancy import secrets
from bonito.tenancy.secrets import SecretBox

ProviderType = Literal[
    "openai", "azure_openai", "bedrock", "vertex", "anthropic", "openai_compatible", "litellm", "local"
]

# What the provider of this process has, always: nobody needs to ask it.
LOCAL_MODELS = ("extractive", "all-minilm-l6-v2")
SECRET_PURPOSE = "provider"  # noqa: S105 - what a secret is for, none itself

COLUMNS: LiteralString = """
    id, name, type, base_url, region, vendor, secret_id, connection_id, models, listed_models, verified_at,
    verification_error, requests_per_minute, tokens_per_minute, created_at, updated_at
"""

GET: LiteralString = f"""
    SELECT {COLUMNS} FROM providers WHERE org_id = %(org_id)s AND (id = %(id)s OR name = %(name)s)
"""  # noqa: S608

LOCK: LiteralString = f"""
    SELECT {COLUMNS} FROM providers WHERE org_id = %(org_id)s AND id = %(id)s FOR UPDATE
"""  # noqa: S608

# In the order of creation: where several have a model, that is the order in which they are named.
ALL: LiteralString = f"""
    SELECT {COLUMNS} FROM providers WHERE org_id = %(org_id)s ORDER BY created_at, id
"""  # noqa: S608

PAGE: LiteralString = f"""
    SELECT {COLUMNS} FROM providers
     WHERE org_id = %(org_id)s
       AND (%(after_at)s::timestamptz IS NULL OR (created_at, id) > (%(after_at)s::timestamptz, %(after_id)s::uuid))
     ORDER BY created_at, id LIMIT %(limit)s
"""  # noqa: S608

INSERT: LiteralString = f"""
    INSERT INTO providers (org_id, id, name, type, base_url, region, vendor, secret_id, models, requests_per_minute,
                           tokens_per_minute)
    VALUES (%(org_id)s, %(id)s, %(name)s, %(type)s, %(base_url)s, %(region)s, %(vendor)s, %(secret_id)s, %(models)s,
            %(requests_per_minute)s, %(tokens_per_minute)s)
    RETURNING {COLUMNS}
"""  # noqa: S608

# A changed address, credential or list is a provider that nobody has verified yet.
UPDATE: LiteralString = f"""
    UPDATE providers
       SET base_url = %(base_url)s, region = %(region)s, vendor = %(vendor)s, secret_id = %(secret_id)s,
           models = %(models)s, requests_per_minute = %(requests_per_minute)s,
           tokens_per_minute = %(tokens_per_minute)s, listed_models = NULL, verified_at = NULL,
           verification_error = NULL, updated_at = now()
     WHERE org_id = %(org_id)s AND id = %(id)s
    RETURNING {COLUMNS}
"""  # noqa: S608

DELETE: LiteralString = """
    DELETE FROM providers WHERE org_id = %(org_id)s AND id = %(id)s RETURNING secret_id
"""

# Only if the row is still the one that was called; updated_at stays, since what serves requests did not change.
SET_VERIFIED: LiteralString = f"""
    UPDATE providers
       SET verified_at = CASE WHEN %(is_verified)s THEN now() END, verification_error = %(error)s,
           listed_models = coalesce(%(listed_models)s, listed_models)
     WHERE org_id = %(org_id)s AND id = %(id)s AND updated_at = %(updated_at)s
    RETURNING {COLUMNS}
"""  # noqa: S608


@dataclass(frozen=True)
class ProviderAccount:
    """A provider's row.

    Attributes:
        name: the part before the slash in `provider/model`.
        vendor: of the type litellm: LiteLLM's name of it.
        models: all that may be used of it; None is whatever the provider has.
        listed_models: what it listed when it was last asked; None as long as it never answered.
        requests_per_minute: at which each of its embedding models is called at most; None is no limit of ours.
        tokens_per_minute: that each of them is given to read at most.
        verified_at: when it last accepted the credential; None after a refusal or a change.
        updated_at: changes with everything that a call depends on.
    """

    id: UUID
    name: str
    type: ProviderType
    base_url: str | None
    region: str | None
    vendor: str | None
    secret_id: UUID | None
    connection_id: UUID | None
    models: list[str] | None
    listed_models: list[str] | None
    verified_at: datetime | None
    verification_error: str | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    created_at: datetime
    updated_at: datetime

    def known_models(self) -> Sequence[str]:
        """What may be offered: its own list, or what it listed."""
        if self.models is not None:
            return self.models
        return LOCAL_MODELS if self.type == "local" else self.listed_models or ()

    @property
    def is_unlisted(self) -> bool:
        """Whether it may have any model: it is not held to a list, and has never told what it has."""
        return self.models is None and self.listed_models is None and self.type != "local"


@dataclass(frozen=True)
class ProviderSettings:
    """What a person decides about a provider; `ProviderRegistry.check` tells whether one can be made of it."""

    name: str
    type: ProviderType
    base_url: str | None = None
    region: str | None = None
    vendor: str | None = None
    models: Sequence[str] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


async def get(conn: Connection, *, org_id: UUID, name_or_id: str) -> ProviderAccount:
    """The provider of that name or id; NotFound."""
    row = {"org_id": org_id, "id": _uuid_or_none(name_or_id), "name": name_or_id}
    async with conn.cursor(row_factory=class_row(ProviderAccount)) as cursor:
        found = await (await cursor.execute(GET, row)).fetchone()
    if found is None:
        raise NotFound("There is no such provider.")
    return found


async def list_all(conn: Connection, *, org_id: UUID) -> list[ProviderAccount]:
    """Every provider of the organization, the oldest first."""
    async with conn.cursor(row_factory=class_row(ProviderAccount)) as cursor:
        return await (await cursor.execute(ALL, {"org_id": org_id})).fetchall()


async def list_page(
    conn: Connection, *, org_id: UUID, limit: int, after: tuple[datetime, UUID] | None = None
) -> list[ProviderAccount]:
    """Up to `limit` providers, the oldest first, those after the place `after`."""
    after_at, after_id = after or (None, None)
    async with conn.cursor(row_factory=class_row(ProviderAccount)) as cursor:
        row = {"org_id": org_id, "after_at": after_at, "after_id": after_id, "limit": limit}
        return await (await cursor.execute(PAGE, row)).fetchall()


async def create(
    conn: Connection,
    box: SecretBox,
    *,
    org_id: UUID,
    provider_id: UUID,
    secret_id: UUID,
    settings: ProviderSettings,
    credential: Mapping[str, str] | None,
) -> ProviderAccount:
    """Write a provider and its credential.

    Args:
        conn: a transaction of the organization.
        box: seals the credential.
        org_id: the organization.
        provider_id: the new row's id.
        secret_id: the new secret's id; not used without a credential.
        settings: what it is.
        credential: by field, as `{"api_key": …}`; None for a provider that asks for none.

    Raises:
        AlreadyExists: a provider has the name.
    """
    if credential:
        await _store(conn, box, org_id=org_id, secret_id=secret_id, credential=credential)
    row = _row(settings) | {"org_id": org_id, "id": provider_id, "secret_id": secret_id if credential else None}
    return await _write(conn, INSERT, row)


async def update(
    conn: Connection,
    box: SecretBox,
    *,
    org_id: UUID,
    provider_id: UUID,
    secret_id: UUID,
    settings: ProviderSettings,
    credential: Mapping[str, str] | None,
) -> ProviderAccount:
    """Write other settings; name and type stay, since callers and knowledge bases go by the name.

    Args:
        conn: a transaction of the organization.
        box: seals the credential.
        org_id: the organization.
        provider_id: the row's id.
        secret_id: the id of a new secret, where the provider had none.
        settings: what it is from now on.
        credential: None keeps the stored one, {} forgets it. Where the address changes it must be given anew: a stored
            credential is not sent to an address that it was not entered for.

    Raises:
        NotFound: there is no such provider.
        InvalidRequest: the name or the type changes; or the address without the credential.
    """
    async with conn.cursor(row_factory=class_row(ProviderAccount)) as cursor:
        old = await (await cursor.execute(LOCK, {"org_id": org_id, "id": provider_id})).fetchone()
    if old is None:
        raise NotFound("There is no such provider.")
    for field in ("name", "type"):
        if getattr(settings, field) != getattr(old, field):
            raise InvalidRequest(f"A provider's {field} cannot change; add another provider.", param=field)
    if credential is None and old.secret_id is not None and settings.base_url != old.base_url:
        raise InvalidRequest("Another base_url needs the credential again.", param="credential")
    kept_id = old.secret_id
    if credential:
        kept_id = old.secret_id or secret_id
        await _store(conn, box, org_id=org_id, secret_id=kept_id, credential=credential)
    forgotten = old.secret_id if credential is not None and not credential else None
    row = _row(settings) | {"org_id": org_id, "id": provider_id, "secret_id": None if forgotten else kept_id}
    updated = await _write(conn, UPDATE, row)
    if forgotten is not None:
        await secrets.delete(conn, org_id=org_id, secret_id=forgotten)
    return updated


async def delete(conn: Connection, *, org_id: UUID, provider_id: UUID) -> None:
    """Remove a provider with its credential; NotFound."""
    row = await (await conn.execute(DELETE, {"org_id": org_id, "id": provider_id})).fetchone()
    if row is None:
        raise NotFound("There is no such provider.")
    if row[0] is not None:
        await secrets.delete(conn, org_id=org_id, secret_id=row[0])


async def set_verified(
    conn: Connection,
    *,
    org_id: UUID,
    account: ProviderAccount,
    is_verified: bool,
    listed_models: Sequence[str] | None,
    error: str | None,
) -> ProviderAccount | None:
    """Note what a call to the provider told; None where the row was changed or removed meanwhile.

    Args:
        conn: a transaction of the organization.
        org_id: the organization.
        account: as it was called.
        is_verified: whether it accepted the credential.
        listed_models: what it listed; None keeps what was listed before.
        error: why it refused; None where it did not.
    """
    row = {
        "org_id": org_id,
        "id": account.id,
        "updated_at": account.updated_at,
        "is_verified": is_verified,
        "listed_models": None if listed_models is None else list(listed_models),
        "error": error,
    }
    async with conn.cursor(row_factory=class_row(ProviderAccount)) as cursor:
        return await (await cursor.execute(SET_VERIFIED, row)).fetchone()


async def open_credential(
    conn: Connection, box: SecretBox, *, org_id: UUID, account: ProviderAccount
) -> Mapping[str, str]:
    """The credential by field, {} where there is none; UnreadableSecret."""
    if account.secret_id is None:
        return {}
    opened = await secrets.open_(conn, box, org_id=org_id, secret_id=account.secret_id, purpose=SECRET_PURPOSE)
    credential: dict[str, str] = json.loads(opened)
    return credential


async def _store(
    conn: Connection, box: SecretBox, *, org_id: UUID, secret_id: UUID, credential: Mapping[str, str]
) -> None:
    plaintext = json.dumps(dict(credential)).encode()
    await secrets.put(conn, box, org_id=org_id, secret_id=secret_id, purpose=SECRET_PURPOSE, plaintext=plaintext)


async def _write(conn: Connection, statement: LiteralString, row: Mapping[str, object]) -> ProviderAccount:
    async with conn.cursor(row_factory=class_row(ProviderAccount)) as cursor:
        try:
            written = await (await cursor.execute(statement, row)).fetchone()
        except UniqueViolation as error:
            raise AlreadyExists(f"There is a provider named {row['name']} already.", param="name") from error
    assert written is not None  # noqa: S101 - an INSERT, or an UPDATE of the locked row, answers one row
    return written


def _row(settings: ProviderSettings) -> dict[str, object]:
    return {**vars(settings), "models": None if settings.models is None else list(settings.models)}


def _uuid_or_none(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
