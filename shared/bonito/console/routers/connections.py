"""/api/connections: access to customers' cloud accounts, for the buckets that each may be used for."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID, uuid4

from pydantic import BaseModel, Field, StringConstraints

from bonito.console.fields import Body, Name
from bonito.console.pagination import DEFAULT_LIMIT, Limit, Page, TimeCursor, cursor_of, page_of, place_of
from bonito.console.permissions import Call, requires
from bonito.console.problems import responses
from bonito.console.routing import api_router
from bonito.knowledge import verification
from bonito.knowledge.sources import SourcePolicy
from bonito.tenancy import connections
from bonito.tenancy.connections import Cloud, Connection, ConnectionSettings, Credential, FederatedCredential
from bonito.tenancy.permissions import Permission

router = api_router("/connections", "connections")

Bucket = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,221}(/[A-Za-z0-9][A-Za-z0-9-]{1,62})?$",
    ),
    Field(examples=["company-documents"]),
]


class ConnectionBody(Body):
    """A connection as it should be."""

    name: Name
    cloud: Cloud = Field(description="It stays.")
    credential: Credential = Field(description="By which the account knows Bonito; a reference, never a secret.")
    buckets: list[Bucket] = Field(
        default_factory=list,
        max_length=100,
        description="What it may be used for: buckets (AWS, Google Cloud), `account/container` (Azure).",
    )

    def settings(self) -> ConnectionSettings:
        """As the library takes it."""
        return ConnectionSettings(self.name, self.cloud, self.credential, self.buckets)


class Trust(BaseModel):
    """What the account's trust in Bonito's tokens must name."""

    issuer: str
    subject: str = Field(description="The organization's id.")
    audience: str


class ConnectionView(BaseModel):
    """A connection."""

    id: UUID
    name: str
    cloud: Cloud
    credential: dict[str, Any]
    buckets: list[str]
    trust: Trust | None = Field(description="Of a federated credential.")
    created_at: datetime
    updated_at: datetime


class VerificationBody(Body):
    """What to try."""

    prefix: Annotated[str, StringConstraints(max_length=1024, pattern=r"^[^\x00-\x1f\x7f]*$")] = Field(
        default="", description="List below it, where the account allows no more."
    )
    region: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,32}$")] | None = Field(
        default=None, description="Of the buckets, on AWS.", examples=["eu-central-1"]
    )


class BucketCheck(BaseModel):
    """Whether a bucket could be listed."""

    bucket: str
    error: str | None = Field(description="What is missing; null: it was listed.")


class Verification(BaseModel):
    """What came of a trial."""

    is_verified: bool
    error: str | None = Field(description="Why the account gave no session; null: it gave one.")
    buckets: list[BucketCheck] = Field(description="Tried with the session; none where there was no session.")


@router.post("", status_code=201, responses=responses(409))
async def create_connection(
    body: ConnectionBody, call: Annotated[Call, requires(Permission.CONNECTIONS_MANAGE, audit="connection.create")]
) -> ConnectionView:
    """Add a connection; the answer says what the account has to trust."""
    _check(call, body)
    async with call.transaction() as conn:
        created = await connections.create(conn, org_id=call.org_id, connection_id=uuid4(), settings=body.settings())
    call.note(f"connection:{created.id}", name=created.name, cloud=created.cloud, buckets=created.buckets)
    return _shown(call, created)


@router.get("")
async def list_connections(
    call: Annotated[Call, requires(Permission.CONNECTIONS_READ)],
    limit: Limit = DEFAULT_LIMIT,
    cursor: TimeCursor = None,
) -> Page[ConnectionView]:
    """All connections, the oldest first."""
    async with call.transaction() as conn:
        rows = await connections.list_page(conn, org_id=call.org_id, limit=limit + 1, after=place_of(cursor))
    return page_of(
        rows, limit=limit, show=lambda row: _shown(call, row), cursor=lambda row: cursor_of(row.created_at, row.id)
    )


@router.get("/{connection_id}")
async def get_connection(
    connection_id: UUID, call: Annotated[Call, requires(Permission.CONNECTIONS_READ)]
) -> ConnectionView:
    """One connection."""
    return _shown(call, await _find(call, connection_id))


@router.put("/{connection_id}", responses=responses(409))
async def change_connection(
    connection_id: UUID,
    body: ConnectionBody,
    call: Annotated[Call, requires(Permission.CONNECTIONS_MANAGE, audit="connection.change")],
) -> ConnectionView:
    """Set all of a connection but its cloud and external id; sessions that it had are not used any more."""
    await _find(call, connection_id)
    _check(call, body)
    async with call.transaction() as conn:
        changed = await connections.update(
            conn, org_id=call.org_id, connection_id=connection_id, settings=body.settings()
        )
    call.note(f"connection:{connection_id}", name=changed.name, buckets=changed.buckets)
    return _shown(call, changed)


@router.delete("/{connection_id}", status_code=204, responses=responses(409))
async def delete_connection(
    connection_id: UUID, call: Annotated[Call, requires(Permission.CONNECTIONS_MANAGE, audit="connection.delete")]
) -> None:
    """Remove a connection that no knowledge base and no provider uses."""
    old = await _find(call, connection_id)
    async with call.transaction() as conn:
        await connections.delete(conn, org_id=call.org_id, connection_id=connection_id)
    call.note(f"connection:{connection_id}", name=old.name)


@router.post("/{connection_id}/verify")
async def verify_connection(
    connection_id: UUID,
    body: VerificationBody,
    call: Annotated[Call, requires(Permission.CONNECTIONS_MANAGE, audit="connection.verify")],
) -> Verification:
    """Obtain a new session and list each bucket with it; the answer names the step that failed, and why."""
    found = await _find(call, connection_id)
    tried = await verification.verify(
        call.services.accesses, call.services.buckets, call.org_id, found, prefix=body.prefix, region=body.region
    )
    call.note(f"connection:{connection_id}", name=found.name, is_verified=tried.is_verified)
    checks = [BucketCheck(bucket=bucket, error=error) for bucket, error in tried.buckets.items()]
    return Verification(is_verified=tried.is_verified, error=tried.error, buckets=checks)


def _check(call: Call, body: ConnectionBody) -> None:
    """Refuse what this deployment cannot use, and its own buckets; InvalidRequest."""
    call.services.accesses.check(body.credential)
    policy = SourcePolicy.of(call.services.settings)
    for bucket in body.buckets:
        policy.check_bucket(bucket, param="buckets")


async def _find(call: Call, connection_id: UUID) -> Connection:
    async with call.transaction() as conn:
        return await connections.get(conn, org_id=call.org_id, connection_id=connection_id)


def _shown(call: Call, connection: Connection) -> ConnectionView:
    trust = None
    issuer, credential = call.services.accesses.issuer, connection.access
    if isinstance(credential, FederatedCredential) and issuer is not None:
        audience = verification.audience(credential)
        trust = Trust(issuer=issuer.url, subject=str(call.org_id), audience=audience)
    return ConnectionView(**vars(connection), trust=trust)
