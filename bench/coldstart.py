"""What the cold start of each door costs: CPU, memory and modules of its import, in fresh interpreters.

Each door is compared, in the same run, with importing the libraries that it must have: psycopg with its pool, pydantic
and aiohttp, and the library of its host on Azure and Google Cloud. The aim is at most 1.3 times their CPU. Maintenance
is held against psycopg, pydantic and the host's library alone, for it opens no pool and calls no service.

    .venv/bin/python -m bench.coldstart [--json]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

import bench
from bench.startup import PROBE

ROUNDS = 3
UNITS = ("ingest", "embed", "sync", "maintenance")
HOSTS = {"aws": (), "azure": ("azure.functions",), "gcp": ("flask", "functions_framework")}
SERVING, OWNING = ("psycopg", "psycopg_pool", "pydantic", "aiohttp"), ("psycopg", "pydantic")
DOORS = {f"functions.{unit}.{cloud}": (unit, cloud) for cloud in HOSTS for unit in UNITS} | {
    "functions.function_app": ("ingest", "azure")
}
AIMS = {"cpu_to_libraries": 1.3}


def run() -> dict[str, object]:
    """Every door beside its libraries, in turn, so that both see the same machine; medians."""
    statements = {door: f"import {door}" for door in DOORS}
    references = {door: f"import {', '.join(libraries(door))}" for door in DOORS}
    found: dict[str, list[list[float]]] = {each: [] for each in (*statements.values(), *references.values())}
    for number in range(ROUNDS + 1):
        for statement, rounds in found.items():
            values = _measure(statement)
            if number:  # the first round fills the caches of files
                rounds.append(values)
    figures: dict[str, object] = {"rounds": ROUNDS}
    for door in DOORS:
        cpu, memory, modules = _medians(found[statements[door]])
        reference_cpu, reference_memory, _ = _medians(found[references[door]])
        figures[door] = {
            "cpu_ms": round(cpu, 1),
            "memory_mib": round(memory, 1),
            "modules": int(modules),
            "libraries_cpu_ms": round(reference_cpu, 1),
            "libraries_memory_mib": round(reference_memory, 1),
            "cpu_to_libraries": round(cpu / reference_cpu, 2),
        }
    return figures | {"aims": AIMS}


def libraries(door: str) -> tuple[str, ...]:
    """What the door cannot do without."""
    unit, cloud = DOORS[door]
    return (OWNING if unit == "maintenance" else SERVING) + HOSTS[cloud]


def _medians(rounds: list[list[float]]) -> tuple[float, float, float]:
    """CPU milliseconds, resident MiB, and modules."""
    cpu, _, memory, modules = (statistics.median(values) for values in zip(*rounds, strict=True))
    return cpu, memory, modules


def _measure(statement: str) -> list[float]:
    command = [sys.executable, "-c", PROBE.format(statement=statement)]
    values: list[float] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return values


if __name__ == "__main__":
    bench.show(run, __doc__)
