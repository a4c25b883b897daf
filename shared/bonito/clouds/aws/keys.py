"""Keys of S3: what a document's may be."""

from __future__ import annotations

MAX_KEY_BYTES = 1024  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html


def is_storable(key: str) -> bool:
    """Whether the key can be a document's path: S3 knows keys with a NUL in them, Postgres has no text for them."""
    try:
        return 0 < len(key.encode()) <= MAX_KEY_BYTES and "\0" not in key
    except UnicodeEncodeError:  # half of a surrogate pair, which no key of S3 holds
        return False
