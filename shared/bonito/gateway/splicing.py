"""Edits JSON text and leaves the rest as it came: numbers, spaces, escapes, unknown members."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

SPACES = frozenset(" \t\n\r")
WHITESPACE = re.compile(r"[ \t\n\r]*")
# A name without escapes, which is nearly every one, with its colon and the space around.
PLAIN_NAME = re.compile(r'[ \t\n\r]*"([^"\\\x00-\x1f]*)"[ \t\n\r]*:[ \t\n\r]*')


class MalformedJson(ValueError):
    """The text is no JSON object, or names a member twice."""


@dataclass(frozen=True)
class Member:
    """A member's place in the text.

    Attributes:
        start: behind the brace or comma before it.
        value_start: where the value begins.
        value_end: behind the value.
        end: at the comma or brace after it.
        value: parsed; numbers are bytes, their own text: 1e400 and integers of a thousand digits are not ours to round.
    """

    start: int
    value_start: int
    value_end: int
    end: int
    value: Any


@dataclass(frozen=True)
class JsonObject:
    """An object's text and where its members are, in their order."""

    text: str
    members: Mapping[str, Member]
    start: int  # of the opening brace
    end: int  # behind the closing brace

    def value(self, name: str) -> Any:  # noqa: ANN401 - JSON is anything
        """The member's value; None where there is none."""
        member = self.members.get(name)
        return None if member is None else member.value

    def source(self, name: str) -> str:
        """The member's value as it was written; KeyError."""
        member = self.members[name]
        return self.text[member.value_start : member.value_end]

    def edited(self, edits: Mapping[str, str | None]) -> str:
        """The text with other values (JSON) or without members (None); a name that is not there is appended."""
        segments: list[str] = []
        for name, member in self.members.items():
            if name not in edits:
                segments.append(self.text[member.start : member.end])
            elif (new := edits[name]) is not None:
                segments.append(
                    self.text[member.start : member.value_start] + new + self.text[member.value_end : member.end]
                )
        segments += [f"{json.dumps(n)}:{new}" for n, new in edits.items() if n not in self.members and new is not None]
        return f"{self.text[: self.start + 1]}{','.join(segments)}{self.text[self.end - 1 :]}"


def parse_object(text: str) -> JsonObject:
    """Find the members of the object that the text is.

    Raises:
        MalformedJson: no object, more text behind it, a repeated member, NaN or Infinity, or nesting beyond what Python
            reads. The message holds positions and at most a member's name.
    """
    try:
        found = _scan(text, _skip(text, 0))
    except json.JSONDecodeError as error:
        raise MalformedJson(f"wrong at character {error.pos}") from None
    except RecursionError:
        raise MalformedJson("nested too deeply") from None
    if _skip(text, found.end) != len(text):
        raise MalformedJson(f"more text behind its end at character {found.end}")
    return found


def prepended(array: str, item: str) -> str:
    """A JSON array's text with one more item in front."""
    rest = array[1:]
    separator = "" if rest[_skip(rest, 0) :] == "]" else ","
    return f"[{item}{separator}{rest}"


def _scan(text: str, start: int) -> JsonObject:
    if text[start : start + 1] != "{":
        raise json.JSONDecodeError("no object", text, start)
    members: dict[str, Member] = {}
    begin = start + 1
    end = _skip(text, begin)
    if text[end : end + 1] == "}":
        return JsonObject(text, members, start, end + 1)
    while True:
        name, value_start = _name(text, begin)
        value, value_end = DECODER.raw_decode(text, value_start)
        if name in members:
            raise MalformedJson(f"its member {name[:60]!r} is there twice")
        end = _skip(text, value_end)
        members[name] = Member(begin, value_start, value_end, end, value)
        sign = text[end : end + 1]
        if sign == "}":
            return JsonObject(text, members, start, end + 1)
        if sign != ",":
            raise json.JSONDecodeError("no comma", text, end)
        begin = end + 1


def _name(text: str, begin: int) -> tuple[str, int]:
    """A member's name, and where its value begins."""
    plain = PLAIN_NAME.match(text, begin)
    if plain is not None:
        return plain[1], plain.end()
    at = _skip(text, begin)
    if text[at : at + 1] != '"':
        raise json.JSONDecodeError("no name", text, at)
    name, at = DECODER.raw_decode(text, at)
    at = _skip(text, at)
    if text[at : at + 1] != ":":
        raise json.JSONDecodeError("no colon", text, at)
    return name, _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    if text[at : at + 1] not in SPACES:
        return at
    found = WHITESPACE.match(text, at)
    return at if found is None else found.end()


def _refuse_constant(name: str) -> NoReturn:
    raise json.JSONDecodeError(f"{name} is no JSON", name, 0)


DECODER = json.JSONDecoder(parse_int=str.encode, parse_float=str.encode, parse_constant=_refuse_constant)
