"""Connections: access to a customer's cloud account, for the buckets that it may be used for. Never a secret."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, LiteralString
from uuid import UUID

from psycopg.errors import ForeignKeyViolation, UniqueViolation
from psycopg.rows import class_row
from psycopg.types.json import Jsonb
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter

from bonito.database.pool import Connection as DatabaseConnection
from bonito.errors import AlreadyExists, InvalidRequest, NotFound, StateConflict

Cloud = Literal["aws", "azure", "gcp"]

RoleArn = Annotated[
    str,
    StringConstraints(pattern=r"^arn:(aws|aws-cn|aws-us-gov):iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]{1,512}$"),
    Field(examples=["arn:aws:iam::123456789012:role/bonito-reader"]),
]
Guid = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")]
SecretName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$"),
    Field(description="Of a secret of this organization: letters, digits and dashes.", examples=["s3-reader"]),
]


class Shape(BaseModel):
    """What every shape has in common: unknown fields are refused, so that no secret is ever stored here."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RoleCredential(Shape):
    """AWS, where Bonito runs there too: a role that trusts Bonito's own under an external id."""

    role_arn: RoleArn
    external_id: str | None = Field(
        default=None, max_length=100, description="Made by Bonito for each connection; it may be sent back as it is."
    )


class FederatedAws(Shape):
    """A role that trusts Bonito as an identity provider."""

    role_arn: RoleArn


class FederatedAzure(Shape):
    """An app registration that has Bonito as a federated credential."""

    tenant_id: Guid
    client_id: Guid


class FederatedGcp(Shape):
    """A workload identity pool that trusts Bonito, perhaps with a service account behind it."""

    provider: Annotated[
        str,
        StringConstraints(
            pattern=r"^projects/[0-9]{1,20}/locations/global/workloadIdentityPools/[a-z0-9-]{4,32}"
            r"/providers/[a-z0-9-]{4,32}$"
        ),
    ] = Field(examples=["projects/1234567/locations/global/workloadIdentityPools/partners/providers/bonito"])
    service_account: (
        Annotated[
            str,
            StringConstraints(
                pattern=r"^[a-z0-9][a-z0-9._-]{0,62}@[a-z0-9.:-]{1,100}\.gserviceaccount\.com$", max_length=200
            ),
        ]
        | None
    ) = Field(default=None, description="Its email; null: the pool's own principal has the rights.")


class FederatedCredential(Shape):
    """By Bonito's own tokens, whose subject is the organization's id."""

    federated: FederatedAws | FederatedAzure | FederatedGcp


class SecretCredential(Shape):
    """By static keys that lie in the secret store."""

    secret: SecretName


Credential = RoleCredential | FederatedCredential | SecretCredential
CREDENTIAL: TypeAdapter[Credential] = TypeAdapter(Credential)
FEDERATED: dict[Cloud, type[Shape]] = {"aws": FederatedAws, "azure": FederatedAzure, "gcp": FederatedGcp}

COLUMNS: LiteralString = "id, name, cloud, credential, buckets, created_at, updated_at"

GET: LiteralString = f"""
    SELECT {COLUMNS} FROM connections WHERE org_id = %(org_id)s AND id = %(id)s
"""  # noqa: S608

LOCK: LiteralString = f"""
    SELECT {COLUMNS} FROM connections WHERE org_id = %(org_id)s AND id = %(id)s FOR UPDATE
"""  # noqa: S608

# Bases take the row's lock too while they are made, so that no bucket is taken from one that is just coming.
SHARE: LiteralString = f"""
    SELECT {COLUMNS} FROM connections WHERE org_id = %(org_id)s AND id = %(id)s FOR SHARE
"""  # noqa: S608

PAGE: LiteralString = f"""
    SELECT {COLUMNS} FROM connections
     WHERE org_id = %(org_id)s
       AND (%(after_at)s::timestamptz IS NULL OR (created_at, id) > (%(after_at)s::timestamptz, %(after_id)s::uuid))
     ORDER BY created_at, id LIMIT %(limit)s
"""  # noqa: S608

INSERT: LiteralString = f"""
    INSERT INTO connections (org_id, id, name, cloud, credential, buckets)
    VALUES (%(org_id)s, %(id)s, %(name)s, %(cloud)s, %(credential)s, %(buckets)s)
    RETURNING {COLUMNS}
"""  # noqa: S608

# clock_timestamp: sessions are kept by it, so two changes in one transaction are two versions.
UPDATE: LiteralString = f"""
    UPDATE connections
       SET name = %(name)s, credential = %(credential)s, buckets = %(buckets)s, updated_at = clock_timestamp()
     WHERE org_id = %(org_id)s AND id = %(id)s
    RETURNING {COLUMNS}
"""  # noqa: S608

DELETE: LiteralString = "DELETE FROM connections WHERE org_id = %(org_id)s AND id = %(id)s RETURNING id"

FIND_USER: LiteralString = """
    SELECT 'The knowledge base ' || name FROM knowledge_bases
     WHERE org_id = %(org_id)s AND connection_id = %(id)s AND deleted_at IS NULL
     UNION ALL
    SELECT 'The provider ' || name FROM providers WHERE org_id = %(org_id)s AND connection_id = %(id)s
     LIMIT 1
"""

FIND_BEREFT: LiteralString = """
    SELECT name, source_bucket FROM knowledge_bases
     WHERE org_id = %(org_id)s AND connection_id = %(id)s AND deleted_at IS NULL
       AND NOT source_bucket = ANY (%(buckets)s::text[])
     LIMIT 1
"""

FIND_USER_OF: LiteralString = """
    SELECT name FROM connections WHERE org_id = %(org_id)s AND credential ->> 'secret' = %(secret)s LIMIT 1
"""


@dataclass(frozen=True)
class Connection:
    """A row of connections.

    Attributes:
        credential: by which the account knows us; `CREDENTIAL` reads it.
        buckets: what it may be used for: `bucket` (AWS, Google Cloud), `account/container` (Azure).
        updated_at: the version, by which sessions are kept.
    """

    id: UUID
    name: str
    cloud: Cloud
    credential: dict[str, Any]
    buckets: list[str]
    created_at: datetime
    updated_at: datetime

    @property
    def access(self) -> Credential:
        """The credential, read."""
        return CREDENTIAL.validate_python(self.credential)


@dataclass(frozen=True)
class ConnectionSettings:
    """What a caller may say of a connection."""

    name: str
    cloud: Cloud
    credential: Credential
    buckets: Sequence[str]


async def create(
    conn: DatabaseConnection, *, org_id: UUID, connection_id: UUID, settings: ConnectionSettings
) -> Connection:
    """Insert a connection; a role gets an external id that nobody chose.

    Raises:
        AlreadyExists: a connection has the name.
        InvalidRequest: the credential or a bucket is not of the cloud, or an external id is given.
    """
    credential = _checked(settings, external_id=None)
    if isinstance(credential, RoleCredential):
        credential = credential.model_copy(update={"external_id": new_external_id()})
    row = _row(settings, credential) | {"org_id": org_id, "id": connection_id, "cloud": settings.cloud}
    return await _write(conn, INSERT, row)


async def get(conn: DatabaseConnection, *, org_id: UUID, connection_id: UUID) -> Connection:
    """The connection of that id; NotFound also for another organization's."""
    return await _one(conn, GET, org_id=org_id, connection_id=connection_id)


async def share(conn: DatabaseConnection, *, org_id: UUID, connection_id: UUID) -> Connection:
    """As `get`; until the transaction ends the connection neither changes nor goes."""
    return await _one(conn, SHARE, org_id=org_id, connection_id=connection_id)


async def list_page(
    conn: DatabaseConnection, *, org_id: UUID, limit: int, after: tuple[datetime, UUID] | None = None
) -> list[Connection]:
    """Up to `limit` connections, the oldest first, those after this place."""
    after_at, after_id = after or (None, None)
    row = {"org_id": org_id, "limit": limit, "after_at": after_at, "after_id": after_id}
    async with conn.cursor(row_factory=class_row(Connection)) as cursor:
        await cursor.execute(PAGE, row)
        return await cursor.fetchall()


async def update(
    conn: DatabaseConnection, *, org_id: UUID, connection_id: UUID, settings: ConnectionSettings
) -> Connection:
    """Set all but the cloud; the external id stays.

    Raises:
        NotFound: there is none of this id.
        AlreadyExists: another connection has the name.
        InvalidRequest: another cloud, or as `create`.
        StateConflict: a knowledge base reads a bucket that would not be allowed any more.
    """
    old = await _one(conn, LOCK, org_id=org_id, connection_id=connection_id)
    if settings.cloud != old.cloud:
        raise InvalidRequest("A connection's cloud cannot change; add another connection.", param="cloud")
    external_id = old.credential.get("external_id")
    credential = _checked(settings, external_id=external_id)
    if isinstance(credential, RoleCredential):
        credential = credential.model_copy(update={"external_id": external_id or new_external_id()})
    row = _row(settings, credential) | {"org_id": org_id, "id": connection_id}
    bereft = await (await conn.execute(FIND_BEREFT, row)).fetchone()
    if bereft is not None:
        raise StateConflict(f"The knowledge base {bereft[0]} reads {bereft[1]}, so that must stay allowed.")
    return await _write(conn, UPDATE, row)


async def delete(conn: DatabaseConnection, *, org_id: UUID, connection_id: UUID) -> None:
    """Remove a connection that nothing uses.

    Raises:
        NotFound: there is none of this id.
        StateConflict: a knowledge base or a provider uses it.
    """
    await _one(conn, LOCK, org_id=org_id, connection_id=connection_id)
    row = {"org_id": org_id, "id": connection_id}
    user = await (await conn.execute(FIND_USER, row)).fetchone()
    if user is not None:
        raise StateConflict(f"{user[0]} uses this connection.")
    try:
        await conn.execute(DELETE, row)
    except ForeignKeyViolation as error:
        raise StateConflict("A knowledge base that used this connection is still being deleted; try later.") from error


async def secret_user(conn: DatabaseConnection, *, org_id: UUID, secret: str) -> str | None:
    """The name of a connection whose credential is this secret; None where there is none."""
    row = await (await conn.execute(FIND_USER_OF, {"org_id": org_id, "secret": secret})).fetchone()
    return row[0] if row else None


def new_external_id() -> str:
    """192 random bits in letters, digits, `-` and `_`, which is what AWS takes."""
    return f"bonito-{secrets.token_urlsafe(24)}"


def _checked(settings: ConnectionSettings, *, external_id: str | None) -> Credential:
    """The credential, where it is one of the cloud, and the buckets look like the cloud's; InvalidRequest."""
    cloud, credential = settings.cloud, settings.credential
    if isinstance(credential, RoleCredential):
        if cloud != "aws":
            raise InvalidRequest("Only AWS has roles.", param="credential.role_arn")
        if credential.external_id not in (None, external_id):
            raise InvalidRequest(
                "Bonito makes the external id, so that nobody can choose another organization's.",
                param="credential.external_id",
            )
    if isinstance(credential, FederatedCredential) and not isinstance(credential.federated, FEDERATED[cloud]):
        wanted = ", ".join(FEDERATED[cloud].model_fields)
        raise InvalidRequest(f"A federated credential of {cloud} has {wanted}.", param="credential.federated")
    for bucket in settings.buckets:
        if ("/" in bucket) is not (cloud == "azure"):
            form = "account/container" if cloud == "azure" else "a bucket's plain name"
            raise InvalidRequest(f"{bucket} is not {form}.", param="buckets")
    return credential


def _row(settings: ConnectionSettings, credential: Credential) -> dict[str, object]:
    return {
        "name": settings.name,
        "credential": Jsonb(credential.model_dump(exclude_none=True)),
        "buckets": [canonical(settings.cloud, bucket) for bucket in dict.fromkeys(settings.buckets)],
    }


def canonical(cloud: Cloud, bucket: str) -> str:
    """The one name of a bucket: Azure's are part of host names, which have no case."""
    return bucket.lower() if cloud == "azure" else bucket


async def _one(conn: DatabaseConnection, statement: LiteralString, *, org_id: UUID, connection_id: UUID) -> Connection:
    async with conn.cursor(row_factory=class_row(Connection)) as cursor:
        await cursor.execute(statement, {"org_id": org_id, "id": connection_id})
        found = await cursor.fetchone()
    if found is None:
        raise NotFound("There is no such connection.")
    return found


async def _write(conn: DatabaseConnection, statement: LiteralString, row: dict[str, object]) -> Connection:
    async with conn.cursor(row_factory=class_row(Connection)) as cursor:
        try:
            await cursor.execute(statement, row)
        except UniqueViolation as error:
            raise AlreadyExists(f"There is a connection named {row['name']} already.", param="name") from error
        written = await cursor.fetchone()
    assert written is not None  # noqa: S101 - an INSERT, or an UPDATE of the locked row, answers one row
    return written
