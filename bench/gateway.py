"""What the gateway adds to a provider's answer: latency, CPU, and requests per second of one worker, without retrieval.

The provider is a stub in a process of its own; the same client asks it directly and through the gateway, in turns, so
that both see the same machine. All of it shares the machine's cores, which bounds the requests per second.

    .venv/bin/python -m bench.gateway [--json]
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import secrets
import socket
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
import psycopg
import uvloop

import bench
from bench import server
from bench.stub_provider import CHUNKS
from bonito.database.pool import open_pool, tenant
from bonito.egress.client import EgressClient
from bonito.egress.policy import EgressPolicy
from bonito.gateway.app import Services, create_app
from bonito.metering.sinks import PostgresUsageSink
from bonito.providers import accounts
from bonito.providers.accounts import ProviderSettings
from bonito.providers.registry import ProviderRegistry
from bonito.settings import Settings
from bonito.tenancy import credentials, keys
from bonito.tenancy.secrets import SecretBox

BODY = {
    "model": "stub/stub",
    "messages": [
        {"role": "system", "content": "You are a helpful assistant. " * 10},
        {"role": "user", "content": "Hello, how are you today?"},
    ],
    "temperature": 0.7,
}
ROUNDS = 5
LATENCY_REQUESTS = 400  # a round, one after the other
LOAD_REQUESTS = 3000  # a round
LOAD_CONNECTIONS = 32
STREAMS = 100  # a round, one after the other
TARGETS = {"added_p50_ms": 1.0, "requests_per_s": 1500}


Pair = tuple[list[float], list[float]]  # asked directly, and through the gateway
Measure = Callable[["Endpoint", int], Awaitable[list[float]]]


@dataclass(frozen=True)
class Endpoint:
    """Where to ask, and as whom."""

    port: int
    model: str
    key: str

    def request(self, *, is_stream: bool) -> bytes:
        body = json.dumps(BODY | {"model": self.model} | ({"stream": True} if is_stream else {})).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer {self.key}\r\naccept-encoding: gzip\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


class Connection:
    """A client that costs little: one socket, one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> Connection:
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=2**20))

    async def ask(self, request: bytes) -> float:
        """Seconds until the whole answer was here."""
        started = time.perf_counter()
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(head.decode())
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        await self._reader.readexactly(length)
        return time.perf_counter() - started

    async def stream(self, request: bytes) -> float:
        """Seconds until the first content was here; reads on to the end, which must be there."""
        started, first, tail = time.perf_counter(), 0.0, b""
        self._writer.write(request)
        await self._reader.readuntil(b"\r\n\r\n")
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            piece = (await self._reader.readexactly(size + 2))[:-2]
            if not first and b'"content":"t0' in piece:
                first = time.perf_counter() - started
            tail = piece[-16:]
        await self._reader.readexactly(2)
        if b"[DONE]" not in tail or not first:
            raise RuntimeError("the stream is not complete")
        return first

    def close(self) -> None:
        self._writer.close()


def run() -> dict[str, Any]:
    """Measure; milliseconds are medians over all rounds."""
    return uvloop.run(_run())


async def _run() -> dict[str, Any]:
    with server.running() as started, _stub() as stub_port:
        owner_url, runtime_url = started.urls.owner, started.urls.runtime
        key = await _set_up(owner_url, runtime_url, stub_port)
        with _gateway(runtime_url) as (process, port):
            direct, through = Endpoint(stub_port, "stub", "sk-stub"), Endpoint(port, "stub/stub", key)
            latencies = await _alternate(direct, through, _latencies)
            cpu_before = _cpu_s(process)
            load = await _alternate(direct, through, _load)
            cpu_of_load = _cpu_s(process) - cpu_before
            cpu_before = _cpu_s(process)
            streams = await _alternate(direct, through, _first_content)
            cpu_of_streams = _cpu_s(process) - cpu_before
            memory = process.memory_info().rss / 2**20
    figures = _figures(latencies, load, streams, cpu_of_load, cpu_of_streams)
    return {**figures, "memory_mib": round(memory, 1), "cores": psutil.cpu_count(), "targets": TARGETS}


def _figures(
    latencies: Pair, load: Pair, streams: Pair, cpu_of_load: float, cpu_of_streams: float
) -> dict[str, float | int]:
    cpu_per_request_ms = cpu_of_load / (ROUNDS * LOAD_REQUESTS) * 1000
    cpu_per_stream_ms = cpu_of_streams / (ROUNDS * STREAMS) * 1000
    figures = {
        "direct_p50_ms": _median_ms(latencies[0]),
        "gateway_p50_ms": _median_ms(latencies[1]),
        "added_p50_ms": _median_ms(latencies[1]) - _median_ms(latencies[0]),
        "gateway_p99_ms": _quantile_ms(latencies[1], 0.99),
        "direct_requests_per_s": LOAD_REQUESTS / statistics.median(load[0]),
        "requests_per_s": LOAD_REQUESTS / statistics.median(load[1]),
        "cpu_per_request_ms": cpu_per_request_ms,
        "direct_first_content_p50_ms": _median_ms(streams[0]),
        "gateway_first_content_p50_ms": _median_ms(streams[1]),
        "added_first_content_p50_ms": _median_ms(streams[1]) - _median_ms(streams[0]),
        "cpu_per_stream_ms": cpu_per_stream_ms,
        "cpu_per_chunk_ms": max(0.0, cpu_per_stream_ms - cpu_per_request_ms) / CHUNKS,
    }
    return {name: round(value, 3) for name, value in figures.items()} | {"chunks_per_stream": CHUNKS}


async def _alternate(direct: Endpoint, through: Endpoint, measure: Measure) -> Pair:
    """Both in turns; the first round warms up and does not count for latencies and times."""
    found: Pair = ([], [])
    for number in range(ROUNDS + 1):
        for endpoint, kept in zip((direct, through), found, strict=True):
            values = await measure(endpoint, number)
            kept += values if number else []
    return found


async def _latencies(endpoint: Endpoint, number: int) -> list[float]:
    connection = await Connection.open(endpoint.port)
    request = endpoint.request(is_stream=False)
    values = [await connection.ask(request) for _ in range(LATENCY_REQUESTS)]
    connection.close()
    return values


async def _load(endpoint: Endpoint, number: int) -> list[float]:
    """Seconds for all requests over several connections; nothing in the round that warms up."""
    if number == 0:
        return []
    connections = [await Connection.open(endpoint.port) for _ in range(LOAD_CONNECTIONS)]
    request = endpoint.request(is_stream=False)
    left = iter(range(LOAD_REQUESTS))

    async def work(connection: Connection) -> None:
        for _ in left:
            await connection.ask(request)

    started = time.perf_counter()
    await asyncio.gather(*map(work, connections))
    elapsed = time.perf_counter() - started
    for connection in connections:
        connection.close()
    return [elapsed]


async def _first_content(endpoint: Endpoint, number: int) -> list[float]:
    if number == 0:
        return []
    connection = await Connection.open(endpoint.port)
    request = endpoint.request(is_stream=True)
    values = [await connection.stream(request) for _ in range(STREAMS)]
    connection.close()
    return values


async def _set_up(owner_url: str, runtime_url: str, stub_port: int) -> str:
    """An organization with the stub as its provider; its gateway key."""
    org_id, credential = uuid.uuid4(), credentials.mint("bn-", secrets.token_bytes(32))
    with psycopg.connect(owner_url) as connection:
        connection.execute("INSERT INTO organizations (id, name) VALUES (%s, 'bench')", [org_id])
    pool = await open_pool(runtime_url)
    async with tenant(pool, org_id) as conn:
        await accounts.create(
            conn,
            _box(),
            org_id=org_id,
            provider_id=uuid.uuid4(),
            secret_id=uuid.uuid4(),
            settings=ProviderSettings("stub", "openai_compatible", f"http://127.0.0.1:{stub_port}/v1"),
            credential={"api_key": "sk-stub"},
        )
        await keys.create(conn, org_id=org_id, key_id=uuid.uuid4(), name="bench", credential=credential)
    await pool.close()
    return credential.text


@contextmanager
def _stub() -> Iterator[int]:
    port = _free_port()
    with _process("bench.stub_provider", str(port)):
        yield port


@contextmanager
def _gateway(runtime_url: str) -> Iterator[tuple[psutil.Process, int]]:
    port = _free_port()
    with _process("bench.gateway", "serve", runtime_url, str(port)) as process:
        yield psutil.Process(process.pid), port


@contextmanager
def _process(module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A module of ours in a process; it says when it is ready."""
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        process.terminate()
        process.wait()


async def serve(runtime_url: str, port: int) -> None:
    """One worker, as `bonito serve gateway` runs it, without knowledge bases."""
    import uvicorn

    async with _services(runtime_url) as services:
        config = uvicorn.Config(
            create_app(services), port=port, log_level="warning", access_log=False, lifespan="off", http="httptools"
        )
        gateway = uvicorn.Server(config)
        task = asyncio.get_running_loop().create_task(gateway.serve())
        while not gateway.started:
            await asyncio.sleep(0.01)
        gc.collect()
        gc.freeze()  # as local.servers does
        print("ready", flush=True)
        await task


@asynccontextmanager
async def _services(runtime_url: str) -> AsyncIterator[Services]:
    pool = await open_pool(runtime_url)
    client, usage = EgressClient(EgressPolicy().with_loopback()), PostgresUsageSink(pool)
    searcher: Any = None  # nobody asks it
    yield Services(Settings(), pool, ProviderRegistry(pool, _box(), client), searcher, usage)
    await usage.aclose()
    await client.aclose()
    await pool.close()


def _box() -> SecretBox:
    return SecretBox([bytes(32)])


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _median_ms(values: list[float]) -> float:
    return statistics.median(values) * 1000


def _quantile_ms(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)] * 1000


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        with contextlib.suppress(KeyboardInterrupt):
            uvloop.run(serve(sys.argv[2], int(sys.argv[3])))
    else:
        bench.show(run, __doc__)
