"""What fields of requests have in common: every text can be stored, every unknown field is refused."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

RFC3339 = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})")


def _is_rfc3339(value: object) -> object:
    if not isinstance(value, str) or RFC3339.fullmatch(value) is None:
        raise ValueError("a moment is written as 2031-01-31T00:00:00Z, with its offset from UTC")
    return value


def _is_json_number(value: object) -> object:
    if isinstance(value, bool | str | bytes):
        raise ValueError("a number is expected")
    return value


# Numbers as JSON has them: 5 and 5.0 are the same, `true` and "5" are none.
Whole = Annotated[int, BeforeValidator(_is_json_number)]
# Bounds come before the validator where a type stands in a union: in the other order the schema loses them.
PerMinute = Annotated[int, Field(ge=1, le=1_000_000_000), BeforeValidator(_is_json_number)]
Number = Annotated[float, BeforeValidator(_is_json_number), Field(allow_inf_nan=False)]


class Body(BaseModel):
    """The base of every request's body; its numbers are `Whole` and `Number`, its switches `StrictBool`."""

    model_config = ConfigDict(extra="forbid")


# Printable, without control characters, and without a space at either end.
Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00-\x20\x7f]([^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?$"),
    Field(description="1 to 255 printable characters.", examples=["support bot"]),
]

# Plain ASCII, so that letters have one lower case everywhere.
Email = Annotated[
    str,
    StringConstraints(
        max_length=320, pattern=r"^[A-Za-z0-9._%+'-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63}){0,3}$"
    ),
    Field(examples=["ada@example.com"]),
]

# A moment with its offset from UTC. Pydantic alone would also take numbers, as seconds since 1970.
Moment = Annotated[
    AwareDatetime,
    BeforeValidator(_is_rfc3339),
    Field(description="RFC 3339, with the offset from UTC.", examples=["2031-01-31T00:00:00Z"]),
]
