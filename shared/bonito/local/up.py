"""`bonito up`: Postgres, gateway, console, watcher, worker and schedule in one process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from uuid import UUID

from bonito.assembly import maintenance
from bonito.assembly.parts import Parts, assembled
from bonito.clouds.local import open_queue
from bonito.database import migrate
from bonito.errors import AuthenticationFailed, InvalidSettings
from bonito.knowledge.parsing.process import ParserProcess
from bonito.knowledge.sources import SourcePolicy
from bonito.local import announcement, external, first_start, postgres, servers, watcher, worker
from bonito.local.data_directory import Credentials, DataDirectory
from bonito.local.postgres import DatabaseUrls
from bonito.settings import Settings
from bonito.tenancy import tokens

logger = logging.getLogger(__name__)

# Reading the demo takes some seconds; who has changed it may never see this answer.
ANSWER_WITHIN_S = 120.0


@dataclass(frozen=True)
class Options:
    """What the command line adds to the settings; `speech` is how address and key are told on stdout."""

    host: str = "127.0.0.1"
    port: int = 8000
    watch: Path | None = None
    demo: bool = True
    speech: Literal["text", "json", "none"] = "text"


def run(settings: Settings, options: Options) -> None:
    """Run until Ctrl-C.

    Raises:
        AlreadyRunning: another process holds the data directory.
        InvalidSettings: the port is taken, or the logins of an external database are not all there.
        SchemaMismatch, UnsafeDatabaseRole: an external database is not ready for this code.
    """
    directory = DataDirectory(settings.data_dir.resolve())
    options = replace(options, watch=options.watch.resolve() if options.watch else None)
    settings = settings.model_copy(update={"data_dir": directory.root})
    servers.log_to_stderr(settings)
    # A signal also ends the making of the database; asyncio leaves a handler that it finds in place.
    with (
        servers.until_stopped(),
        directory.locked(),
        _listening(options.host, options.port) as listener,
        _database(settings, directory) as urls,
    ):
        known, owner_token = first_start.credentials_of(directory, urls.owner)
        if options.watch is not None:
            directory.remember_watched(options.watch)
        settings = _with_roots(settings, directory.watched_folders())
        asyncio.run(_Start(settings, options, directory, urls, known, owner_token).serve(listener))


@contextlib.contextmanager
def administered(settings: Settings) -> Iterator[str]:
    """The owner's URL of this deployment's database, which is brought up where it is the embedded one.

    Raises:
        AlreadyRunning: `bonito up` runs on the data directory; what is done here needs it stopped.
        InvalidSettings: an external database, without the login that owns it.
    """
    if settings.database_url is None and settings.migration_database_url is not None:
        yield settings.migration_database_url.get_secret_value()
        return
    directory = DataDirectory(settings.data_dir.resolve())
    with directory.locked(), _database(settings, directory) as urls:
        yield urls.owner


@dataclass(frozen=True)
class _Start:
    """Everything that the event loop begins with."""

    settings: Settings
    options: Options
    directory: DataDirectory
    urls: DatabaseUrls
    known: Credentials | None
    owner_token: str

    @property
    def is_alone(self) -> bool:
        """The embedded database has no other process, and no proxy in front of it."""
        return self.settings.database_url is None

    async def serve(self, listener: socket.socket) -> None:
        """Serve until a signal; then stop everything in the reverse order."""
        url = self.urls.runtime
        async with (
            open_queue(url) as queue,
            assembled(self.settings, url, queue, is_laptop=True) as parts,
            ParserProcess() as parser,
        ):
            await maintenance.make_partitions(self.urls.maintenance)  # before the first request of a new month
            credentials, demo = await self._prepare(parts, listener)
            ingestion = parts.ingestion(parser)
            work = servers.worker_options(self.settings, self.urls.maintenance, is_alone=self.is_alone)
            async with asyncio.TaskGroup() as background:
                running = [
                    background.create_task(worker.run(ingestion, queue, work)),
                    background.create_task(watcher.run(ingestion)),
                ]
                if demo is not None and self.options.speech == "text":
                    running.append(background.create_task(_show_answer(credentials, demo)))
                await servers.serve_here(parts, listener, announce=lambda: self._announce(credentials, demo))
                for task in running:
                    task.cancel()

    async def _prepare(self, parts: Parts, listener: socket.socket) -> tuple[Credentials, str | None]:
        """The first start's rows, the watched folder, and the credentials with today's address."""
        org_id = await self._organization(parts)
        demo = await first_start.base_of(parts.pool, org_id, first_start.DEMO_FOLDER)
        if self.known is None:
            await first_start.add_providers(parts.pool, parts.box, org_id, os.environ)
            gateway_key = await first_start.make_gateway_key(parts.pool, org_id)
            if self.options.demo and first_start.DEMO_FOLDER.is_dir():
                demo = await self._follow(parts, org_id, first_start.DEMO_FOLDER, first_start.DEMO)
        else:
            gateway_key = self.known.gateway_key
        if self.options.watch is not None:
            await self._follow(parts, org_id, self.options.watch, first_start.name_of(self.options.watch))
        address = f"http://{_in_url(self.options.host)}:{listener.getsockname()[1]}"
        credentials = Credentials(
            api_url=address,
            gateway_url=f"{address}/v1",
            personal_token=self.owner_token,
            gateway_key=gateway_key,
        )
        self.directory.write_credentials(credentials)
        return credentials, demo

    async def _organization(self, parts: Parts) -> UUID:
        try:
            return (await tokens.authenticate(parts.pool, self.owner_token)).org_id
        except AuthenticationFailed as error:
            raise InvalidSettings(
                f"The token in {self.directory.credentials_path} is not valid any more; put another one of yours there."
            ) from error

    async def _follow(self, parts: Parts, org_id: UUID, folder: Path, name: str) -> str:
        sources = SourcePolicy.of(parts.settings)
        return await first_start.follow_folder(
            parts.pool, parts.registry, sources, org_id=org_id, folder=folder, name=name
        )

    def _text(self, credentials: Credentials, demo: str | None) -> str:
        kept_in = self.directory.credentials_path
        return announcement.text(credentials, kept_in, demo=demo, shows_key=self.known is None)

    def _announce(self, credentials: Credentials, demo: str | None) -> None:
        if self.options.speech == "text":
            sys.stdout.write(self._text(credentials, demo))
        elif self.options.speech == "json":
            told = {"api_url": credentials.api_url, "gateway_url": credentials.gateway_url}
            told |= {"gateway_key": credentials.gateway_key, "data_dir": str(self.directory.root)}
            sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


async def _show_answer(credentials: Credentials, demo: str) -> None:
    """Print what the question is answered with, once the demo has been read."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            sys.stdout.write(await announcement.first_answer(credentials, demo=demo))
            sys.stdout.flush()
    except Exception as error:  # noqa: BLE001 - a background task: nobody's server ends for want of a greeting
        logger.info("The first question was not answered (%s).", type(error).__name__)


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """Take the port before anything is started, so that a taken one is told in a second."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise InvalidSettings(
                f"Cannot listen on {host}:{port} ({error.strerror}); choose another --port."
            ) from error
        yield listener


@contextlib.contextmanager
def _database(settings: Settings, directory: DataDirectory) -> Iterator[DatabaseUrls]:
    """The embedded Postgres, or the external one that the settings name."""
    if settings.database_url is None:
        with postgres.running(directory.postgres) as urls:
            yield urls
        return
    if settings.migration_database_url is None:
        raise InvalidSettings("With BONITO_DATABASE_URL, `bonito up` needs BONITO_MIGRATION_DATABASE_URL too.")
    owner, maintenance = settings.migration_database_url, settings.maintenance_database_url
    urls = DatabaseUrls(
        owner=owner.get_secret_value(),
        maintenance=(maintenance or owner).get_secret_value(),
        runtime=settings.database_url.get_secret_value(),
    )
    external.check_reachable("BONITO_MIGRATION_DATABASE_URL", urls.owner)
    migrate.ensure_current(urls.owner)
    external.check_reachable("BONITO_DATABASE_URL", urls.runtime)
    yield urls


def _with_roots(settings: Settings, watched: Sequence[Path]) -> Settings:
    """What may be read besides the roots that are set: the demo, and what whoever starts Bonito here named to watch."""
    named = [settings.local_roots, str(first_start.DEMO_FOLDER), *map(str, watched)]
    return settings.model_copy(update={"local_roots": os.pathsep.join(root for root in named if root)})


def _in_url(host: str) -> str:
    """How a browser on this machine reaches what listens there."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - recognised, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
