"""What callers may attach to knowledge bases and documents: a JSON object of bounded size that Postgres can hold."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from bonito.errors import InvalidRequest

MAX_BYTES = 16 * 1024
MAX_DEPTH = 16


def check_metadata(value: dict[str, Any]) -> dict[str, Any]:
    """Give the object back, or refuse what `jsonb` refuses and what is too much.

    Raises:
        InvalidRequest: NaN and infinite numbers, the character NUL, halves of surrogate pairs, more than 16 KiB of
            JSON or more than 16 levels.
    """
    if _depth(value) > MAX_DEPTH:
        raise _refused(f"nests deeper than {MAX_DEPTH} levels")
    try:
        encoded = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise _refused("holds half of a surrogate pair, which is no character") from None
    except ValueError:
        raise _refused("holds a number that is not finite") from None
    if len(encoded) > MAX_BYTES:
        raise _refused(f"has more than {MAX_BYTES} bytes as JSON")
    if b"\\u0000" in encoded and "\0" in _all_text(value):
        raise _refused("holds the character NUL, which cannot be stored")
    return value


Metadata = Annotated[
    dict[str, Any],
    AfterValidator(check_metadata),
    Field(description="Any JSON object of up to 16 KiB: tags, categories, owners; searches can filter by it."),
]


def _refused(why: str) -> InvalidRequest:
    return InvalidRequest(f"The metadata {why}.", param="metadata")


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
