"""Addresses of our own that take one file each: what a cloud's signed address is, for servers and laptops."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from bonito.errors import NotFound
from bonito.tenancy.secrets import SecretBox

PURPOSE = b"upload"
SHAPE = struct.Struct(">16s16sHQ")  # organization, upload, number of the file, seconds since 1970


@dataclass(frozen=True)
class Ticket:
    """Leave to bring one file of one upload until a moment (aware)."""

    org_id: UUID
    upload_id: UUID
    number: int
    expires_at: datetime


def issue(box: SecretBox, ticket: Ticket) -> str:
    """The ticket with a signature (HMAC-SHA256), in characters that a URL's query takes as they are."""
    expires = int(ticket.expires_at.timestamp())
    payload = SHAPE.pack(ticket.org_id.bytes, ticket.upload_id.bytes, ticket.number, expires)
    return f"{_encoded(payload)}.{_encoded(_mac(box.signing_keys(PURPOSE)[0], payload))}"


def read(box: SecretBox, text: str, *, now: datetime) -> Ticket:
    """The ticket; NotFound for one that is forged, broken or expired: it leads nowhere."""
    payload_text, _, signature = text.partition(".")
    try:
        payload, mac = _decoded(payload_text), _decoded(signature)
        org_id, upload_id, number, expires = SHAPE.unpack(payload)
    except (binascii.Error, ValueError, struct.error):
        raise _nowhere() from None
    if not any(hmac.compare_digest(mac, _mac(key, payload)) for key in box.signing_keys(PURPOSE)):
        raise _nowhere()
    if expires <= now.timestamp():
        raise _nowhere()
    return Ticket(UUID(bytes=org_id), UUID(bytes=upload_id), number, datetime.fromtimestamp(expires, UTC))


def _nowhere() -> NotFound:
    return NotFound("This address takes no file, or its time is over; ask for a new one.")


def _mac(key: bytes, payload: bytes) -> bytes:
    return hmac.new(key, payload, hashlib.sha256).digest()


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
