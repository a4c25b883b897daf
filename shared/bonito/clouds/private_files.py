"""Files of keys: readable by their owner alone, and whole or not there at all, among any number of processes."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from bonito.errors import InvalidSettings


def write_once(path: Path, text: str) -> None:
    """Appear whole or not at all: written aside, then linked, which fails where another process was first."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_suffix(f".{secrets.token_hex(8)}")
    write_private(fresh, text)
    try:
        os.link(fresh, path)
    except FileExistsError:
        return
    finally:
        fresh.unlink()


def write_private(path: Path, text: str) -> None:
    """Make a new file (ASCII) that only its owner may read, safe on the disk; FileExistsError."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read_private(path: Path) -> str:
    """The file's text; InvalidSettings where others than its owner may read it."""
    with path.open(encoding="ascii", errors="replace") as file:
        if os.fstat(file.fileno()).st_mode & 0o077:
            raise InvalidSettings(f"{path} may be read by others than its owner; run `chmod 600 {path}`")
        return file.read()
