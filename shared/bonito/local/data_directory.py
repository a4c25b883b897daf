"""The folder that `bonito up` owns: where things lie in it, and the lock that keeps a second process out."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bonito.errors import AlreadyRunning, InvalidSettings

OWNER_ONLY = 0o600


@dataclass(frozen=True)
class Credentials:
    """What the CLI needs to reach a running `bonito up`; the keys are shown once and kept here for the owner alone."""

    api_url: str
    gateway_url: str
    personal_token: str
    gateway_key: str


@dataclass(frozen=True)
class DataDirectory:
    """Paths below one root; nothing of Bonito's lies outside of it."""

    root: Path

    @property
    def postgres(self) -> Path:
        return self.root / "postgres"

    @property
    def uploads(self) -> Path:
        return self.root / "uploads"

    @property
    def encryption_key(self) -> Path:
        return self.root / "encryption.key"

    @property
    def credentials_path(self) -> Path:
        return self.root / "credentials.json"

    @property
    def watched_path(self) -> Path:
        return self.root / "watched.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process; the lock ends with the process, also by kill -9.

        Raises:
            AlreadyRunning: names the process that holds it.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, OWNER_ONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
                raise AlreadyRunning(
                    f"Another `bonito up` (process {holder}) runs on {self.root}. "
                    "Stop it, or give this one its own --data-dir."
                ) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def read_credentials(self) -> Credentials | None:
        """The credentials of an earlier start; None before the first one.

        Raises:
            InvalidSettings: the file was changed and cannot be read any more.
        """
        try:
            return Credentials(**json.loads(self.credentials_path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise InvalidSettings(
                f"{self.credentials_path} cannot be read; remove it, and the next start makes a new one."
            ) from error

    def write_credentials(self, credentials: Credentials) -> None:
        """Replace the file in one step, readable by its owner alone from its first byte on."""
        _replace(self.credentials_path, asdict(credentials))

    def watched_folders(self) -> list[Path]:
        """The folders that `--watch` named, at this start or an earlier one.

        Raises:
            InvalidSettings: the file was changed and cannot be read any more.
        """
        try:
            return [Path(folder) for folder in json.loads(self.watched_path.read_text(encoding="utf-8"))]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError) as error:
            raise InvalidSettings(
                f"{self.watched_path} cannot be read; remove it, and name the folders again with --watch."
            ) from error

    def remember_watched(self, folder: Path) -> None:
        """Let this folder be read at later starts too."""
        known = self.watched_folders()
        if folder not in known:
            _replace(self.watched_path, [str(each) for each in (*known, folder)])


def _replace(path: Path, content: object) -> None:
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
