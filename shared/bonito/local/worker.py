"""The worker of servers and laptops: takes messages from the queue in Postgres, and keeps the schedule."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from procrastinate import App, BaseRetryStrategy, JobContext, RetryDecision
from procrastinate.exceptions import ConnectorException, ProcrastinateException, UniqueViolation
from procrastinate.jobs import Job, Status
from procrastinate.worker import Worker

from bonito.assembly.maintenance import maintain
from bonito.clouds.local import ProcrastinateQueue
from bonito.errors import BonitoError
from bonito.knowledge import ingestion, schedule, sync, timer, vectors
from bonito.knowledge.context import Ingestion
from bonito.knowledge.messages import EmbedMessage, IngestMessage
from bonito.knowledge.retries import MAX_DELIVERIES, explain, is_retryable, retry_pause

logger = logging.getLogger(__name__)

TICK, MAINTAIN = "tick", "maintain"
EVERY_MINUTE = "* * * * *"

# A worker says that it lives every HEARTBEAT_S; one that has not for DEAD_AFTER_S is lost, and its messages come again.
HEARTBEAT_S, DEAD_AFTER_S = 5.0, 20.0
GRACE_S = 10.0  # for what is in hand when the process is told to stop
# With LISTEN a message is noticed at once, and looking is only the net; without, looking is all there is.
POLLING_S, POLLING_BESIDE_LISTEN_S = 0.5, 5.0
RESTART_S = 2.0
# A message whose worker died so often is not returned at once any more: its document's lease counts from then on.
MAX_LOSSES = 5
FAILED_JOBS_DAYS = 14
MAINTAIN_MINUTES = 10
CARETAKERS = 3  # syncs, ticks and maintenance at once


@dataclass(frozen=True)
class Options:
    """How a worker works.

    Attributes:
        concurrency: documents and batches in hand at once; half of it for either, so that neither waits for the other.
        can_listen: the connections go straight to Postgres; behind a transaction-pooling proxy LISTEN hears nothing.
        is_alone: no other worker can be alive; what the last one left is taken up at once.
        reconcile: how often local sources are compared with their documents.
        maintenance_url: a direct connection as a member of the owner; None: somebody else maintains the database.
    """

    concurrency: int = 4
    can_listen: bool = False
    is_alone: bool = False
    reconcile: timedelta = timedelta(minutes=5)
    maintenance_url: str | None = None


class Retries(BaseRetryStrategy):
    """Which messages come back, and when."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        """None ends the message where failed ones are kept."""
        if isinstance(exception, asyncio.CancelledError):  # the process stops
            return RetryDecision(retry_at=datetime.now(UTC))
        if not is_retryable(exception) or job.attempts >= MAX_DELIVERIES:
            return None
        jitter = random.random()  # noqa: S311 - only spreads
        return RetryDecision(
            retry_at=datetime.now(UTC) + retry_pause(exception, attempts=job.attempts + 1, jitter=jitter)
        )


async def run(context: Ingestion, queue: ProcrastinateQueue, options: Options | None = None) -> None:
    """Work until cancelled; what is in hand then has some seconds to end, and comes again if it does not.

    A lost database ends nothing: the worker begins again as soon as it answers.
    """
    options = options or Options()
    _quieten_procrastinate()
    register(context, queue.app, options)
    if options.is_alone:
        await _until_done(lambda: return_lost(queue.app, dead_after_s=0))
    if options.maintenance_url is None:
        logger.warning(
            "BONITO_MAINTENANCE_DATABASE_URL is not set: unless another worker has it, large knowledge bases get no "
            "index and coming months no partition."
        )
    half = max(1, options.concurrency // 2)
    async with asyncio.TaskGroup() as group:
        group.create_task(_supervise(queue.app, ["ingest"], half, options))
        group.create_task(_supervise(queue.app, ["embed"], half, options))
        group.create_task(_supervise(queue.app, ["sync", TICK, MAINTAIN], CARETAKERS, options))
        group.create_task(_until_done(lambda: _look_around(context)))


def register(context: Ingestion, app: App, options: Options) -> None:
    """Say what each queue's messages mean."""

    async def ingest_message(delivery: JobContext, message: dict[str, Any]) -> None:
        asked = IngestMessage.from_json(message)
        async with _last(delivery, lambda why: ingestion.give_up(context, asked, tries=MAX_DELIVERIES, trouble=why)):
            await ingestion.ingest(context, asked)

    async def embed_message(delivery: JobContext, message: dict[str, Any]) -> None:
        asked = EmbedMessage.from_json(message)
        async with _last(delivery, lambda why: vectors.give_up(context, asked, tries=MAX_DELIVERIES, trouble=why)):
            await vectors.embed(context, asked)

    async def sync_message(message: dict[str, Any]) -> None:
        await sync.receive(context, message)

    async def tick_message(timestamp: int) -> None:
        await tick(context, app, options, now=datetime.fromtimestamp(timestamp, UTC))

    async def maintain_message(message: dict[str, Any]) -> None:
        if options.maintenance_url is not None:
            await maintain(options.maintenance_url)

    app.task(name="ingest", queue="ingest", retry=Retries(), pass_context=True)(ingest_message)
    app.task(name="embed", queue="embed", retry=Retries(), pass_context=True)(embed_message)
    # Whoever fails here is not put back: with `unique` it could not be, and the sweeper and the next tick do the same.
    app.task(name="sync", queue="sync")(sync_message)
    app.task(name=MAINTAIN, queue=MAINTAIN)(maintain_message)
    ticking = app.task(name=TICK, queue=TICK, queueing_lock=TICK, priority=100)(tick_message)
    app.periodic(cron=EVERY_MINUTE)(ticking)


async def tick(context: Ingestion, app: App, options: Options, *, now: datetime) -> None:
    """What is due in this minute; of several workers, one gets it."""
    await return_lost(app, dead_after_s=DEAD_AFTER_S)
    minute = int(now.timestamp()) // 60
    if minute % max(1, int(options.reconcile.total_seconds()) // 60) == 0:
        await schedule.send_reconcile(context, provider="local")
    if minute % MAINTAIN_MINUTES == 0:
        await _ask_for_maintenance(context)
        await app.job_manager.delete_old_jobs(
            nb_hours=24 * FAILED_JOBS_DAYS, include_failed=True, include_cancelled=True, include_aborted=True
        )
    await timer.tick(context, now=now)


async def return_lost(app: App, *, dead_after_s: float) -> int:
    """Put back what lost workers had in hand; how many messages. With 0 seconds every worker counts as lost."""
    manager = app.job_manager
    if dead_after_s > 0:
        lost = list(await manager.get_stalled_jobs(seconds_since_heartbeat=dead_after_s))
    else:
        lost = list(await manager.list_jobs_async(status=Status.DOING.value))
    for job in lost:
        try:
            if job.attempts >= MAX_LOSSES:
                await manager.finish_job(job, Status.FAILED, delete_job=False)
                continue
            await manager.retry_job(job, retry_at=datetime.now(UTC))
        except UniqueViolation:  # another one like it waits already
            await manager.finish_job(job, Status.FAILED, delete_job=True)
        except ConnectorException:
            logger.info("A message that seemed to be lost has ended meanwhile.")
    return len(lost)


@asynccontextmanager
async def _last(delivery: JobContext, give_up: Callable[[str], Awaitable[None]]) -> AsyncIterator[None]:
    """Where a delivery is the last one and fails too, a person gets to know."""
    try:
        yield
    except Exception as error:
        if is_retryable(error) and delivery.job.attempts >= MAX_DELIVERIES:
            await give_up(explain(error))
        raise


async def _look_around(context: Ingestion) -> None:
    """What is due at the start: whatever happened while nobody worked."""
    await schedule.send_reconcile(context, provider="local")
    await _ask_for_maintenance(context)


async def _ask_for_maintenance(context: Ingestion) -> None:
    await context.queue.send(MAINTAIN, {"unique": MAINTAIN})


async def _supervise(app: App, queues: list[str], concurrency: int, options: Options) -> None:
    """Run a worker for as long as this task lives, again whenever it ends by itself."""
    while True:
        worker = Worker(
            app,
            queues=queues,
            name=queues[0],
            concurrency=concurrency,
            fetch_job_polling_interval=POLLING_BESIDE_LISTEN_S if options.can_listen else POLLING_S,
            listen_notify=options.can_listen,
            delete_jobs="successful",
            install_signal_handlers=False,
            shutdown_graceful_timeout=GRACE_S,
            update_heartbeat_interval=HEARTBEAT_S,
            stalled_worker_timeout=DEAD_AFTER_S,
        )
        try:
            await worker.run()  # type: ignore[no-untyped-call]
            logger.warning("The worker for %s ended by itself and begins again.", queues[0])
        except (ProcrastinateException, psycopg.Error) as error:
            logger.warning(
                "The worker for %s lost its database (%s) and begins again.", queues[0], type(error).__name__
            )
        await asyncio.sleep(RESTART_S)


async def _until_done(step: Callable[[], Awaitable[object]]) -> None:
    while True:
        try:
            await step()
        except (ProcrastinateException, psycopg.Error, BonitoError) as error:
            logger.warning("The queue does not answer (%s); trying again.", type(error).__name__)
            await asyncio.sleep(RESTART_S)
        else:
            return


class _NoArguments(logging.Filter):
    """Keeps the messages' contents, file names among them, out of the log; our own steps log what matters."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(getattr(record, "action", "")).startswith("job_")


def _quieten_procrastinate() -> None:
    logging.getLogger("procrastinate").setLevel(logging.WARNING)
    outcomes = logging.getLogger("procrastinate.worker")
    if not any(isinstance(each, _NoArguments) for each in outcomes.filters):
        outcomes.addFilter(_NoArguments())
