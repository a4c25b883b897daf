"""From the drop of a file into a watched folder until a search finds it, through a running `bonito up`.

A page is some 450 words. Each file has a word of its own, and a file counts as found when the keyword search over /api
answers with it: read, chunked, embedded by the local model, and served. The aims: 1.5 s for a one-page text, 8 s for
a PDF of ten pages.

    .venv/bin/python -m bench.drop [--json]
"""

from __future__ import annotations

import io
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx

import bench
from bench import deployment
from bench.parse import SENTENCES

TRIES = 10
PAGE_WORDS = 450
PDF_PAGES = 10
POLL_S = 0.01
GIVE_UP_S = 300.0
AIMS = {"page_p50_s": 1.5, "pdf_p50_s": 8.0}


def run() -> dict[str, object]:
    """Drop each kind of file in turn, one at a time; seconds."""
    makers: dict[str, tuple[str, Callable[[str], bytes]]] = {"page": ("txt", make_page), "pdf": ("pdf", make_pdf)}
    taken: dict[str, list[float]] = {name: [] for name in makers}
    with tempfile.TemporaryDirectory(prefix="bonito-bench-") as place:
        folder = Path(place) / "papers"
        folder.mkdir()
        with deployment.running(Path(place) / "data", ["--no-demo", "--watch", str(folder)]) as (client, _):
            drop(client, folder / "first.txt", make_page("zeroth"), "zeroth")  # loads the models
            for number, (name, (suffix, make)) in itertools.product(range(TRIES), makers.items()):
                word = f"{name}word{number}"
                taken[name].append(drop(client, folder / f"{name}-{number}.{suffix}", make(word), word))
    figures: dict[str, object] = {"tries": TRIES}
    for name, values in taken.items():
        figures[f"{name}_p50_s"] = round(statistics.median(values), 2)
        figures[f"{name}_max_s"] = round(max(values), 2)
    return figures | {"aims": AIMS}


def drop(client: httpx.Client, path: Path, content: bytes, word: str) -> float:
    """Write the file, and search until it is found; the seconds in between."""
    path.write_bytes(content)
    begun = time.perf_counter()
    while time.perf_counter() < begun + GIVE_UP_S:
        answer = client.post("/api/knowledge-bases/papers/search", json={"query": word, "mode": "keyword"})
        if answer.status_code == 200 and answer.json()["results"]:
            return time.perf_counter() - begun
        time.sleep(POLL_S)
    raise RuntimeError(f"{path.name} was not found in {GIVE_UP_S:.0f} s")


def make_page(word: str) -> bytes:
    """One page of text that begins with the word."""
    return f"The word of this page is {word}. {page_text(random.Random(word))}".encode()


def make_pdf(word: str) -> bytes:
    """Ten pages, the word on the last one."""
    from reportlab.lib.styles import getSampleStyleSheet
    from reportlab.platypus import PageBreak, Paragraph, SimpleDocTemplate

    chance, style, story = random.Random(word), getSampleStyleSheet()["BodyText"], []
    for number in range(1, PDF_PAGES + 1):
        said = f"The word of this paper is {word}." if number == PDF_PAGES else f"This is page {number}."
        story += [Paragraph(f"{said} {page_text(chance)}", style), PageBreak()]
    buffer = io.BytesIO()
    SimpleDocTemplate(buffer).build(story)
    return buffer.getvalue()


def page_text(chance: random.Random) -> str:
    """Sentences, as many as fit on a page."""
    words: list[str] = []
    while len(words) < PAGE_WORDS:
        words += chance.choice(SENTENCES).split()
    return " ".join(words)


if __name__ == "__main__":
    bench.show(run, __doc__)
