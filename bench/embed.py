"""Embedding with local/all-minilm-l6-v2: chunks of 220 tokens per second and CPU second, and the way of a question.

`cpu` is per second of processor time of the whole process. The floor is 7 chunks a second. Memory is the resident set,
of which `file` are pages of mapped files that the system may drop.

    .venv/bin/python -m bench.embed [--json]
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from pathlib import Path

import bench
from bonito.providers.local.embedding import LocalEmbeddingModel

TOKENS = 220
CHUNKS = 48
QUESTIONS = 60
QUESTION = "How many days of annual leave do new employees get?"  # 13 tokens with the special ones
SENTENCE = "Unused days of leave may be carried over until the end of March of the next year, but not more than ten. "


def run() -> dict[str, object]:
    """Load once, then measure questions alone, batches by threads, and questions beside a batch."""
    return asyncio.run(measure())


async def measure() -> dict[str, object]:
    """All figures, in the order in which a process would meet them."""
    figures: dict[str, object] = {"memory_before_mib": memory()}
    start = time.perf_counter()
    model = LocalEmbeddingModel(threads=1)
    await model.load()
    figures["load_s"] = round(time.perf_counter() - start, 3)
    figures["memory_loaded_mib"] = memory()
    texts = await chunks_of(model, TOKENS)
    figures["question_ms"] = await questions(model)
    figures["threads_1"] = await throughput(model, texts)
    figures["memory_working_mib"] = memory()
    batch = asyncio.create_task(model.embed(texts))
    await asyncio.sleep(0.2)
    figures["question_beside_a_batch_ms"] = await questions(model, count=20)
    batch.cancel()
    await asyncio.gather(batch, return_exceptions=True)
    model.close()
    cores = os.cpu_count() or 1
    if cores > 1:
        model = LocalEmbeddingModel(threads=cores)
        await model.embed(texts[: 4 * cores])
        figures[f"threads_{cores}"] = await throughput(model, texts)
        model.close()
    return figures


async def throughput(model: LocalEmbeddingModel, texts: list[str]) -> dict[str, float]:
    """Chunks per second of the clock and of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    await model.embed(texts)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"chunks_per_s": round(len(texts) / wall, 1), "chunks_per_cpu_s": round(len(texts) / cpu, 1)}


async def questions(model: LocalEmbeddingModel, *, count: int = QUESTIONS) -> dict[str, float]:
    """Milliseconds from the call to the vector, one question after the other."""
    took = []
    for _ in range(count):
        start = time.perf_counter()
        await model.embed([QUESTION])
        took.append((time.perf_counter() - start) * 1000)
    quantiles = statistics.quantiles(took, n=20)
    return {"p50": round(statistics.median(took), 2), "p95": round(quantiles[-1], 2)}


async def chunks_of(model: LocalEmbeddingModel, tokens: int) -> list[str]:
    """Texts of about so many tokens each, the special ones included."""
    text = SENTENCE
    while ((await model.embed([text])).usage.input_tokens or 0) < tokens:
        text += " leave" if len(text) > len(SENTENCE) * 8 else SENTENCE
    return [f"{number} {text}" for number in range(CHUNKS)]


def memory() -> dict[str, int]:
    """The resident set in MiB, and how much of it are mapped files (Linux)."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return {name: int(status[field].split()[0]) // 1024 for name, field in (("total", "VmRSS"), ("file", "RssFile"))}


if __name__ == "__main__":
    bench.show(run, __doc__)
