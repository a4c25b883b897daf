"""What callers may attach to knowledge bases and documents: a JSON object of bounded size that Postgres can hold."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import AfterValidator, Field

MAX_BYTES = 16 * 1024
MAX_DEPTH = 16


def check_metadata(value: dict[str, Any]) -> dict[str, Any]:
    """Give the object back; ValueError for what `jsonb` refuses or what is too much.

    Refused are NaN and infinite numbers, the character NUL, halves of surrogate pairs, more than 16 KiB of JSON and
    more than 16 levels.
    """
    if _depth(value) > MAX_DEPTH:
        raise ValueError(f"metadata nests deeper than {MAX_DEPTH} levels")
    try:
        encoded = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise ValueError("metadata holds half of a surrogate pair, which is no character") from None
    except ValueError:
        raise ValueError("metadata holds a number that is not finite") from None
    if len(encoded) > MAX_BYTES:
        raise ValueError(f"metadata has more than {MAX_BYTES} bytes as JSON")
    if b"\\u0000" in encoded and "\0" in _all_text(value):
        raise ValueError("metadata holds the character NUL, which cannot be stored")
    return value


def check_text(text: str) -> str:
    """Give the text back; ValueError for the character NUL, which Postgres cannot store, and half surrogate pairs."""
    if "\0" in text:
        raise ValueError("the character NUL cannot be stored")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text holds half of a surrogate pair, which is no character") from None
    return text


def without_control_characters(text: str) -> str:
    """Give the text back; ValueError for control characters, which no name of a store or a document needs."""
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
        raise ValueError("control characters are not allowed")
    return check_text(text)


Metadata = Annotated[
    dict[str, Any],
    AfterValidator(check_metadata),
    Field(description="Any JSON object of up to 16 KiB: tags, categories, owners; searches can filter by it."),
]
Text = Annotated[str, AfterValidator(check_text)]


def _depth(value: object) -> int:
    """Levels of objects and arrays, one for a flat object; stops soon after MAX_DEPTH."""
    level, depth = [value], 0
    while depth <= MAX_DEPTH:
        containers = [item for item in level if isinstance(item, dict | list)]
        if not containers:
            break
        depth += 1
        level = [member for item in containers for member in (item.values() if isinstance(item, dict) else item)]
    return depth


def _all_text(value: object) -> str:
    """Every key and string of a JSON value, joined."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return "".join(key + _all_text(member) for key, member in value.items())
    if isinstance(value, list):
        return "".join(_all_text(member) for member in value)
    return ""
