"""Secrets at rest: sealed with AES-256-GCM under the deployment's keyring, bound to organization, purpose and id."""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString
from uuid import UUID

from psycopg import AsyncConnection

from bonito.clouds.private_files import read_private, write_once, write_private
from bonito.database.pool import Connection
from bonito.database.roles import ACT_AS_OWNER
from bonito.errors import InvalidSettings, NotFound, UnreadableSecret

if TYPE_CHECKING:
    from bonito.settings import Settings

KEY_BYTES = 32
NONCE_BYTES = 12
KEY_FILE = "encryption.key"
CHECK_WITH = "BONITO_ENCRYPTION_KEY expects 32 bytes in base64, several comma-separated with the newest first"


@dataclass(frozen=True)
class Sealed:
    """A ciphertext with its tag, the nonce it was made with, and which key made it."""

    key_id: str
    nonce: bytes
    ciphertext: bytes


class SecretBox:
    """A keyring: the newest key seals, every key opens what it sealed. Never prints a key."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Take the master keys, newest first; each is only ever used through keys derived for one purpose."""
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise ValueError(f"a keyring has at least one key, each of {KEY_BYTES} bytes")
        self._masters = {_key_id(key): key for key in keys}
        self._newest = _key_id(keys[0])

    def __repr__(self) -> str:
        return f"SecretBox(key_ids={list(self._masters)})"

    @property
    def newest_key_id(self) -> str:
        """Which key seals now."""
        return self._newest

    def seal(self, plaintext: bytes, *, org_id: UUID, purpose: str, secret_id: UUID) -> Sealed:
        """Encrypt under the newest key, for this row alone."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = secrets.token_bytes(NONCE_BYTES)
        cipher = AESGCM(_derive(self._masters[self._newest], b"bonito secrets v1"))
        return Sealed(self._newest, nonce, cipher.encrypt(nonce, plaintext, _row_of(org_id, purpose, secret_id)))

    def open(self, sealed: Sealed, *, org_id: UUID, purpose: str, secret_id: UUID) -> bytes:
        """Decrypt what was sealed for this row.

        Raises:
            UnreadableSecret: its key is not in the keyring, or the row is not the one that was sealed.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        master = self._masters.get(sealed.key_id)
        if master is None:
            raise UnreadableSecret(
                f"A secret was sealed with the key {sealed.key_id}, which this deployment does not have; "
                "add it to BONITO_ENCRYPTION_KEY behind the newest."
            )
        cipher = AESGCM(_derive(master, b"bonito secrets v1"))
        try:
            return cipher.decrypt(sealed.nonce, sealed.ciphertext, _row_of(org_id, purpose, secret_id))
        except InvalidTag as error:
            raise UnreadableSecret("A stored secret was changed or moved, and does not open; set it anew.") from error

    def signing_keys(self, purpose: bytes) -> tuple[bytes, ...]:
        """Keys for HMAC-SHA256, newest first, that share nothing with those that seal."""
        return tuple(_derive(master, b"bonito signing v1 " + purpose) for master in self._masters.values())


SAVE: LiteralString = """
    INSERT INTO secrets (org_id, id, purpose, key_id, nonce, ciphertext)
    VALUES (%(org_id)s, %(id)s, %(purpose)s, %(key_id)s, %(nonce)s, %(ciphertext)s)
    ON CONFLICT (org_id, id) DO UPDATE
       SET key_id = excluded.key_id, nonce = excluded.nonce, ciphertext = excluded.ciphertext
     WHERE secrets.purpose = excluded.purpose
    RETURNING id
"""


async def put(
    conn: Connection, box: SecretBox, *, org_id: UUID, secret_id: UUID, purpose: str, plaintext: bytes
) -> None:
    """Store a secret, or replace the one of that id and purpose; a secret never changes its purpose."""
    sealed = box.seal(plaintext, org_id=org_id, purpose=purpose, secret_id=secret_id)
    cursor = await conn.execute(SAVE, {"org_id": org_id, "id": secret_id, "purpose": purpose} | _columns(sealed))
    if await cursor.fetchone() is None:
        raise ValueError("a secret of this id exists for another purpose")


FIND: LiteralString = """
    SELECT key_id, nonce, ciphertext FROM secrets WHERE org_id = %(org_id)s AND id = %(id)s AND purpose = %(purpose)s
"""


async def open_(conn: Connection, box: SecretBox, *, org_id: UUID, secret_id: UUID, purpose: str) -> bytes:
    """Read a secret that was stored for this purpose; NotFound, UnreadableSecret."""
    cursor = await conn.execute(FIND, {"org_id": org_id, "id": secret_id, "purpose": purpose})
    row = await cursor.fetchone()
    if row is None:
        raise NotFound("There is no such secret.")
    return box.open(Sealed(*row), org_id=org_id, purpose=purpose, secret_id=secret_id)


DELETE: LiteralString = "DELETE FROM secrets WHERE org_id = %(org_id)s AND id = %(id)s"


async def delete(conn: Connection, *, org_id: UUID, secret_id: UUID) -> None:
    """Forget a secret; nothing happens where there is none."""
    await conn.execute(DELETE, {"org_id": org_id, "id": secret_id})


# Locked in the order of ids, so that two rotations at once wait for each other instead of deadlocking.
FIND_STALE: LiteralString = """
    SELECT id, purpose, key_id, nonce, ciphertext FROM secrets
     WHERE org_id = %(org_id)s AND key_id <> %(newest)s
     ORDER BY id FOR UPDATE
"""

RESEAL: LiteralString = """
    UPDATE secrets SET key_id = %(key_id)s, nonce = %(nonce)s, ciphertext = %(ciphertext)s
     WHERE org_id = %(org_id)s AND id = %(id)s
"""


async def rotate(conn: Connection, box: SecretBox, *, org_id: UUID) -> int:
    """Seal every secret of the organization under the newest key; afterwards the older ones are not needed for it.

    Returns:
        How many secrets were under an older key.

    Raises:
        UnreadableSecret: one does not open; none is changed.
    """
    rows = await (await conn.execute(FIND_STALE, {"org_id": org_id, "newest": box.newest_key_id})).fetchall()
    for secret_id, purpose, *columns in rows:
        plaintext = box.open(Sealed(*columns), org_id=org_id, purpose=purpose, secret_id=secret_id)
        sealed = box.seal(plaintext, org_id=org_id, purpose=purpose, secret_id=secret_id)
        await conn.execute(RESEAL, {"org_id": org_id, "id": secret_id} | _columns(sealed))
    return len(rows)


ORGANIZATIONS: LiteralString = "SELECT id FROM organizations ORDER BY id"


@dataclass(frozen=True)
class Rotation:
    """What a rotation of all organizations did; the old keys are needed as long as one is left behind."""

    resealed: int
    left_behind: tuple[UUID, ...]


async def rotate_everywhere(url: str, box: SecretBox) -> Rotation:
    """Rotate organization by organization, a transaction each; a run that was broken off is simply run again.

    Args:
        url: a login that acts as bonito_owner, as for a migration.
        box: with the new key first and the old ones behind it.

    Returns:
        How many secrets were under an older key, and the organizations that have one which does not open.
    """
    resealed, left_behind = 0, []
    async with await AsyncConnection.connect(url, autocommit=True) as conn:
        await conn.execute(ACT_AS_OWNER)
        for (org_id,) in await (await conn.execute(ORGANIZATIONS)).fetchall():
            try:
                async with conn.transaction():
                    resealed += await rotate(conn, box, org_id=org_id)
            except UnreadableSecret:
                left_behind.append(org_id)
    return Rotation(resealed, tuple(left_behind))


def parse_keys(text: str) -> list[bytes]:
    """Read a keyring: base64 of 32 bytes each, separated by commas or line ends, newest first.

    Raises:
        InvalidSettings: something in it is no such key; the text itself is never repeated.
    """
    keys = []
    for part in text.replace(",", "\n").split():
        try:
            key = base64.b64decode(part, validate=True)
        except (binascii.Error, ValueError):
            raise InvalidSettings(CHECK_WITH) from None
        if len(key) != KEY_BYTES:
            raise InvalidSettings(f"{CHECK_WITH}; one has {len(key)} bytes")
        keys.append(key)
    if not keys:
        raise InvalidSettings(CHECK_WITH)
    return keys


def open_box(settings: Settings) -> SecretBox:
    """The deployment's keyring: from the setting, else from the key file; InvalidSettings."""
    if settings.encryption_key is not None:
        return SecretBox(parse_keys(settings.encryption_key.get_secret_value()))
    return SecretBox(load_keys(settings.data_dir))


def load_keys(data_dir: Path) -> list[bytes]:
    """Read the key file of a data directory, and make it first where there is none; safe among processes.

    Raises:
        InvalidSettings: others may read the file, or it holds no key.
    """
    path = data_dir / KEY_FILE
    if not path.exists():
        write_once(path, _encoded(secrets.token_bytes(KEY_BYTES)))
    return parse_keys(read_private(path))


def add_key(data_dir: Path) -> None:
    """Put a new newest key into the key file; `rotate` then re-seals, organization by organization."""
    path = data_dir / KEY_FILE
    text = _encoded(secrets.token_bytes(KEY_BYTES)) + read_private(path)
    fresh = path.with_suffix(f".{secrets.token_hex(8)}")
    write_private(fresh, text)
    fresh.replace(path)


def _encoded(key: bytes) -> str:
    return base64.b64encode(key).decode() + "\n"


def _key_id(master: bytes) -> str:
    return hashlib.sha256(b"bonito key id v1" + master).hexdigest()[:16]


def _derive(master: bytes, info: bytes) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(master)


def _row_of(org_id: UUID, purpose: str, secret_id: UUID) -> bytes:
    """The associated data; the two ids have a fixed length, so no two rows read alike."""
    return org_id.bytes + secret_id.bytes + purpose.encode()


def _columns(sealed: Sealed) -> dict[str, Any]:
    return {"key_id": sealed.key_id, "nonce": sealed.nonce, "ciphertext": sealed.ciphertext}
