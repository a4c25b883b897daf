"""Secrets that connections refer to by name: each organization sees its own names alone, wherever they are kept."""

from __future__ import annotations

import re
from typing import Literal, LiteralString
from uuid import UUID, uuid5

from bonito.clouds.base import SecretStore
from bonito.database.pool import Connection, Pool, tenant
from bonito.database.snapshots import Snapshots
from bonito.errors import AccessDenied, NotFound
from bonito.tenancy import secrets
from bonito.tenancy.secrets import SecretBox

PURPOSE = "named:"
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
ORG_ID_CHARS = 36
MAX_AGE_S = 300.0
# Azure's and Google's names of secrets have no slashes: https://learn.microsoft.com/en-us/azure/key-vault/general/
# about-keys-secrets-certificates#object-identifiers and https://cloud.google.com/secret-manager/docs/creating-and-accessing-secrets
SEPARATORS = {"local": "/", "aws": "/", "azure": "-", "gcp": "-"}


class NamedSecrets:
    """Reads an organization's secrets out of the deployment's store, remembered for five minutes.

    The reference is the prefix, the organization's id, a separator and the name; the id has a fixed length and the
    name no slash, so that no name of one organization can mean another's secret.
    """

    def __init__(
        self, store: SecretStore, *, cloud: Literal["local", "aws", "azure", "gcp"] = "local", prefix: str = ""
    ) -> None:
        """Read from a store whose references are built as its cloud allows.

        Args:
            store: the deployment's; it reads any reference.
            cloud: where that is.
            prefix: what every reference begins with; '' for the usual one.
        """
        self._separator = SEPARATORS[cloud]
        self._prefix = prefix or f"bonito{self._separator}"
        self._values = Snapshots[str, str](store.read, max_age_s=MAX_AGE_S)

    async def read(self, org_id: UUID, name: str, *, fresh: bool = False) -> str:
        """The secret's value, at most five minutes old, or as it is now.

        Raises:
            AccessDenied: the organization has no such secret, or the store refuses.
            UpstreamError: the store does not answer.
        """
        reference = self.reference(org_id, name)
        if fresh:
            self._values.forget(reference)
        try:
            value = await self._values.get(reference)
        except NotFound:
            value = None
        if value is None:
            raise AccessDenied(f"There is no secret {name}; it is expected at {reference}.")
        return value

    def reference(self, org_id: UUID, name: str) -> str:
        """Where the store has the secret; AccessDenied for what is no name."""
        if not NAME.fullmatch(name):
            raise AccessDenied("A secret's name has small letters, digits and dashes.")
        return f"{self._prefix}{org_id}{self._separator}{name}"


LIST: LiteralString = """
    SELECT substr(purpose, length(%(purpose)s) + 1) FROM secrets
     WHERE org_id = %(org_id)s AND starts_with(purpose, %(purpose)s) AND purpose COLLATE "C" > %(after)s COLLATE "C"
     ORDER BY purpose COLLATE "C" LIMIT %(limit)s
"""

FIND: LiteralString = """
    SELECT id FROM secrets WHERE org_id = %(org_id)s AND id = %(id)s AND purpose = %(purpose)s
"""


class StoredSecrets:
    """SecretStore of deployments without a cloud's: rows in Postgres, sealed under the deployment's keyring."""

    def __init__(self, pool: Pool, box: SecretBox) -> None:
        self._pool, self._box = pool, box

    async def read(self, reference: str) -> str:
        """The secret's present value; NotFound, UnreadableSecret."""
        path, _, name = reference.rpartition("/")
        org_id = UUID(path[-ORG_ID_CHARS:])
        async with tenant(self._pool, org_id) as conn:
            value = await secrets.open_(
                conn, self._box, org_id=org_id, secret_id=_id(org_id, name), purpose=PURPOSE + name
            )
        return value.decode()


async def put(conn: Connection, box: SecretBox, *, org_id: UUID, name: str, value: str) -> None:
    """Store a secret in Postgres, or replace the one of that name."""
    await secrets.put(
        conn, box, org_id=org_id, secret_id=_id(org_id, name), purpose=PURPOSE + name, plaintext=value.encode()
    )


async def list_page(conn: Connection, *, org_id: UUID, limit: int, after: str = "") -> list[str]:
    """Up to `limit` names of secrets in Postgres, those after `after`."""
    row = {"org_id": org_id, "purpose": PURPOSE, "after": PURPOSE + after, "limit": limit}
    return [name for (name,) in await (await conn.execute(LIST, row)).fetchall()]


async def delete(conn: Connection, *, org_id: UUID, name: str) -> None:
    """Forget a secret in Postgres; NotFound."""
    secret_id = _id(org_id, name)
    row = {"org_id": org_id, "id": secret_id, "purpose": PURPOSE + name}
    if await (await conn.execute(FIND, row)).fetchone() is None:
        raise NotFound(f"There is no secret {name}.")
    await secrets.delete(conn, org_id=org_id, secret_id=secret_id)


def _id(org_id: UUID, name: str) -> UUID:
    return uuid5(org_id, PURPOSE + name)
