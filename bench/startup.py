"""What a start costs: CPU, memory and modules of each import, in fresh interpreters.

The reference is what the gateway is made of; importing `bonito.gateway.app` should take at most 1.2 times its CPU, and
stay below 64 MiB. `gateway_process` is all that a gateway's process imports before its first request. `up` is the time
from `bonito up` until it takes requests: in a new directory, and in one that it was stopped in. The aim: 5 s.

    .venv/bin/python -m bench.startup [--json]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import bench
from bench import deployment

ROUNDS = 9
IMPORTS = {
    "reference": "import starlette.applications, starlette.routing, aiohttp, psycopg, psycopg_pool, pydantic",
    "gateway_app": "import bonito.gateway.app",
    "gateway_process": (
        "import bonito.gateway.app, bonito.egress.client, bonito.providers.openai_http, bonito.knowledge.search,"
        " bonito.metering.sinks, bonito.settings"
    ),
    "console_app": "import bonito.console.app",
    "cli": "import bonito.cli.app",
}
UP_ROUNDS = 3
AIMS = {"gateway_app_to_reference": 1.2, "gateway_app_memory_mib": 64, "up_first_s": 5.0}
# Runs in the interpreter that is measured; what it imports itself is there before the measurement.
PROBE = """
import json, sys, time
before, cpu, wall = len(sys.modules), time.process_time(), time.perf_counter()
{statement}
cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
print(json.dumps([cpu * 1000, wall * 1000, int(status["VmRSS"].split()[0]) / 1024, len(sys.modules) - before]))
"""


def run() -> dict[str, object]:
    """Every import in turn, so that all of them see the same machine; medians."""
    found: dict[str, list[list[float]]] = {name: [] for name in IMPORTS}
    for number in range(ROUNDS + 1):
        for name, statement in IMPORTS.items():
            values = _measure(statement)
            if number:  # the first round fills the caches of files
                found[name].append(values)
    figures: dict[str, object] = {}
    for name, rounds in found.items():
        cpu, wall, memory, modules = (statistics.median(values) for values in zip(*rounds, strict=True))
        figures[name] = {
            "cpu_ms": round(cpu, 1),
            "wall_ms": round(wall, 1),
            "memory_mib": round(memory, 1),
            "modules": int(modules),
        }
    reference = statistics.median(values[0] for values in found["reference"])
    for name in ("gateway_app", "gateway_process"):
        figures[f"{name}_to_reference"] = round(statistics.median(values[0] for values in found[name]) / reference, 2)
    return figures | {"up": _up(), "aims": AIMS}


def _up() -> dict[str, float]:
    """Seconds until `bonito up` is ready, with the demo; medians."""
    first, second = [], []
    for _ in range(UP_ROUNDS):
        with tempfile.TemporaryDirectory(prefix="bonito-bench-") as place:
            for found in (first, second):
                with deployment.running(Path(place) / "data") as (_, ready_s):
                    found.append(ready_s)
    return {"first_s": round(statistics.median(first), 2), "second_s": round(statistics.median(second), 2)}


def _measure(statement: str) -> list[float]:
    """CPU and wall milliseconds, resident MiB, and modules, in an interpreter of its own."""
    command = [sys.executable, "-c", PROBE.format(statement=statement)]
    values: list[float] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return values


if __name__ == "__main__":
    bench.show(run, __doc__)
