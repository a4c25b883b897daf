"""What the functions of a cloud deployment share between calls: the parts of ingestion, made from the settings."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from bonito.assembly.parts import Parts, assembled
from bonito.clouds.base import MessageQueue
from bonito.errors import InvalidSettings
from bonito.knowledge.context import Ingestion
from bonito.knowledge.parsing.process import ParserProcess
from bonito.settings import Settings


class OpenQueue(Protocol):
    """Opens the queue of a cloud, as the settings name it."""

    def __call__(self, settings: Settings) -> AbstractAsyncContextManager[MessageQueue]:
        """InvalidSettings where a queue is not named."""
        ...


@asynccontextmanager
async def ingesting(open_queue: OpenQueue) -> AsyncIterator[Ingestion]:
    """What the steps of ingestion work with; its parser starts with the first document.

    Raises:
        InvalidSettings: a BONITO_* variable is wrong or missing.
        SchemaMismatch, UnsafeDatabaseRole: the database is not ready for this code.
    """
    async with function_parts(open_queue) as parts, ParserProcess() as parser:
        yield parts.ingestion(parser)


@asynccontextmanager
async def function_parts(open_queue: OpenQueue) -> AsyncIterator[Parts]:
    """The parts of one process, with the queue of its cloud; raises as `ingesting`."""
    settings = Settings.from_environ(os.environ)
    if settings.database_url is None:
        raise InvalidSettings("BONITO_DATABASE_URL is not set; a function brings no database along.")
    async with (
        open_queue(settings) as queue,
        assembled(settings, settings.database_url.get_secret_value(), queue, is_laptop=False) as parts,
    ):
        yield parts
