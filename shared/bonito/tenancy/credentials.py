"""Bearer credentials of 256 random bits: shown once, kept as SHA-256, recognised by their first 12 characters."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from bonito.errors import InvalidRequest

Kind = Literal["bn-", "bp-"]

ENTROPY_BYTES = 32
PREFIX_LENGTH = 12
WELL_FORMED = re.compile(r"(bn-|bp-)[A-Za-z0-9_-]{43}")


@dataclass(frozen=True)
class Credential:
    """A new credential; `text` is for its holder alone and is nowhere kept."""

    text: str = field(repr=False)
    hash: bytes
    prefix: str


def mint(kind: Kind, entropy: bytes) -> Credential:
    """Make a credential of 32 random bytes; so many need no pepper and no slow hash."""
    if len(entropy) != ENTROPY_BYTES:
        raise ValueError(f"a credential is made of {ENTROPY_BYTES} random bytes, got {len(entropy)}")
    text = kind + base64.urlsafe_b64encode(entropy).rstrip(b"=").decode()
    return Credential(text=text, hash=hash_of(text), prefix=text[:PREFIX_LENGTH])


def hash_of(text: str) -> bytes:
    """What the database keeps and looks up."""
    return hashlib.sha256(text.encode()).digest()


def is_well_formed(kind: Kind, text: str) -> bool:
    """Whether the text can be such a credential at all; everything else is refused without a look-up."""
    return text.startswith(kind) and WELL_FORMED.fullmatch(text) is not None


def check_expiry(expires_at: datetime | None) -> None:
    """Refuse an end that has passed; InvalidRequest."""
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise InvalidRequest("expires_at must lie in the future.", param="expires_at")
