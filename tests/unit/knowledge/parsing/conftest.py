from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from bonito.knowledge.parsing import registry
from bonito.knowledge.parsing.base import ParsedDocument, ParseLimits


class ParseBytes(Protocol):
    def __call__(self, content: bytes | str, name: str, **limits: float) -> ParsedDocument: ...


@pytest.fixture
def parse(tmp_path: Path) -> ParseBytes:
    """Parse bytes, or text as UTF-8, under a name; keywords change limits."""

    def parse_bytes(content: bytes | str, name: str, **limits: float) -> ParsedDocument:
        path = tmp_path / "document"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return registry.parse(path, name=name, limits=dataclasses.replace(ParseLimits(), **limits))  # type: ignore[arg-type]

    return parse_bytes


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes], Path]:
    """Write a file below the test's folder."""

    def write_file(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write_file
