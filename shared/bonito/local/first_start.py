"""What the first start of `bonito up` makes: an organization, its providers, a key, and the demo knowledge base."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import LiteralString
from uuid import UUID, uuid4

from bonito.database.pool import Pool, tenant
from bonito.errors import AlreadyExists
from bonito.knowledge import configuration
from bonito.knowledge.configuration import NewKnowledgeBase
from bonito.knowledge.sources import LocalSource, SourcePolicy
from bonito.local.data_directory import Credentials, DataDirectory
from bonito.providers import accounts
from bonito.providers.accounts import ProviderSettings, ProviderType
from bonito.providers.construction import OPENAI_BASE_URL
from bonito.providers.registry import ProviderRegistry
from bonito.tenancy import credentials, keys, organizations
from bonito.tenancy.secrets import SecretBox

ORGANIZATION = "local"
OWNER_EMAIL = "owner@localhost"
GATEWAY_KEY = "bonito up"
DEMO = "handbook"
# Where a checkout has the demo documents; an installed package has none.
DEMO_FOLDER = Path(__file__).parents[3] / "examples" / "handbook"


def credentials_of(directory: DataDirectory, owner_url: str) -> tuple[Credentials | None, str]:
    """What an earlier start left, and the owner's token.

    Without the file the organization is made or, where a start was killed or the file is lost, entered anew.
    """
    known = directory.read_credentials()
    if known is not None:
        return known, known.personal_token
    try:
        made = organizations.create_organization(owner_url, name=ORGANIZATION, owner_email=OWNER_EMAIL)
    except AlreadyExists:
        made = organizations.issue_owner_token(owner_url, name=ORGANIZATION, owner_email=OWNER_EMAIL)
    return None, made.token


async def add_providers(pool: Pool, box: SecretBox, org_id: UUID, environ: Mapping[str, str]) -> None:
    """Register the local models, and OpenAI or what speaks like it where the environment has its key or address."""
    wanted: list[tuple[ProviderSettings, dict[str, str] | None]] = [
        (ProviderSettings(name="local", type="local"), None)
    ]
    key, base_url = environ.get("OPENAI_API_KEY"), environ.get("OPENAI_BASE_URL")
    if key or base_url:
        is_openai = base_url in (None, "", OPENAI_BASE_URL)
        kind: ProviderType = "openai" if is_openai else "openai_compatible"
        wanted.append(
            (ProviderSettings(name="openai", type=kind, base_url=base_url or None), {"api_key": key} if key else None)
        )
    for settings, credential in wanted:
        with suppress(AlreadyExists):  # an earlier start came so far
            async with tenant(pool, org_id) as conn:
                await accounts.create(
                    conn,
                    box,
                    org_id=org_id,
                    provider_id=uuid4(),
                    secret_id=uuid4(),
                    settings=settings,
                    credential=credential,
                )


async def make_gateway_key(pool: Pool, org_id: UUID) -> str:
    """A key for the owner's own applications."""
    credential = credentials.mint("bn-", secrets.token_bytes(credentials.ENTROPY_BYTES))
    key_id = uuid4()
    try:
        async with tenant(pool, org_id) as conn:
            await keys.create(conn, org_id=org_id, key_id=key_id, name=GATEWAY_KEY, credential=credential)
    except AlreadyExists:  # made by a start whose credentials are lost; whoever has that key goes on using it
        name = f"{GATEWAY_KEY} {key_id}"
        async with tenant(pool, org_id) as conn:
            await keys.create(conn, org_id=org_id, key_id=key_id, name=name, credential=credential)
    return credential.text


async def follow_folder(
    pool: Pool, registry: ProviderRegistry, sources: SourcePolicy, *, org_id: UUID, folder: Path, name: str
) -> str:
    """Make the knowledge base of a folder (absolute, links followed), unless there is one; return its name."""
    known = await base_of(pool, org_id, folder)
    if known is not None:
        return known
    new = NewKnowledgeBase(name=name, source=LocalSource(type="local", path=str(folder)))
    return (await configuration.create_base(pool, registry, org_id=org_id, new=new, sources=sources)).name


FIND_BY_FOLDER: LiteralString = """
    SELECT name FROM knowledge_bases
     WHERE org_id = %(org_id)s AND source_type = 'local' AND source_bucket = %(folder)s AND deleted_at IS NULL
     ORDER BY created_at LIMIT 1
"""


async def base_of(pool: Pool, org_id: UUID, folder: Path) -> str | None:
    """The name of the knowledge base over this folder, if there is one."""
    async with tenant(pool, org_id) as conn:
        row = await (await conn.execute(FIND_BY_FOLDER, {"org_id": org_id, "folder": str(folder)})).fetchone()
    return row[0] if row else None


def name_of(folder: Path) -> str:
    """A knowledge base's name out of a folder's."""
    return re.sub(r"[^a-z0-9._-]+", "-", folder.name.lower()).strip("-._")[:63] or "folder"
