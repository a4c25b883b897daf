"""Chunking: megabytes of UTF-8 and chunks per second, per tokenizer and kind of text, 512/50 tokens.

One process, after the vocabulary is loaded; `cpu` is per second of processor time, since counting uses every core. The
baseline is semantic-text-splitter by itself with the same vocabulary, size and overlap, on a part of the prose.

    .venv/bin/python -m bench.chunk [--json]
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import bench
from bonito.knowledge import chunking
from bonito.knowledge.parsing.base import ParsedDocument, SectionStart, Table
from bonito.knowledge.tokens import Tokenizer, tokenizer_for
from bonito.providers.local import model_files

CHARACTERS = 1_000_000
BASELINE_CHARACTERS = 200_000
SIZE, OVERLAP = 512, 50
MODELS = ("local/all-minilm-l6-v2", "openai/text-embedding-3-small", "vllm/unknown")
SENTENCES = (
    "Employees accrue two and a half days of paid leave for each full month of service.",
    "A request is made in the portal at least fourteen days ahead; the manager answers within three working days.",
    "Unused days may be carried over until the thirty-first of March, but not more than ten of them.",
    "Sick pay is granted from the first day; a certificate is needed from the fourth (see section 4.2).",
    "Travel expenses are refunded on presentation of receipts: rail in second class, flights in economy.",
    "Équipement personnel, naïve assumptions and the café on Königstraße 12 are mentioned here for their letters.",
    "The budget of 1,250,000 € covers 37 positions, 4 of which are vacant since 2024-11-01.",
    "Whoever works from home ensures that documents, devices and conversations are kept from third parties.",
)


def run() -> dict[str, object]:
    """Figures by model and kind of text, and of the baseline."""
    documents = {
        "prose": prose(random.Random(7)),
        "markdown": markdown(random.Random(7)),
        "table": table(random.Random(7)),
        "one line": ParsedDocument(" ".join(prose(random.Random(7)).text.split()), "txt"),
        "japanese": ParsedDocument(
            "従業員は勤務一か月につき二日半の有給休暇を取得し、翌年の三月末まで繰り越す。" * 10_000, "txt"
        ),
        "base64": ParsedDocument(random.Random(7).randbytes(CHARACTERS // 2).hex(), "txt"),
    }
    figures: dict[str, object] = {"baseline": baseline(documents["prose"].text[:BASELINE_CHARACTERS])}
    for model in MODELS:
        start = time.perf_counter()
        tokenizer = tokenizer_for(model)
        tokenizer.count(["text"])
        load_s = round(time.perf_counter() - start, 3)
        figures[model] = {"load_s": load_s} | {kind: measure(text, tokenizer) for kind, text in documents.items()}
    return figures


def measure(document: ParsedDocument, tokenizer: Tokenizer) -> dict[str, float]:
    """Speed, and how well the chunks are filled."""
    chunks: list[chunking.Chunk] = []

    def work() -> None:
        chunks.extend(chunking.chunk(document, tokenizer=tokenizer, size=SIZE, overlap=OVERLAP))

    figures = speed(document.text, work)
    figures["chunks_per_s"] = round(len(chunks) / figures.pop("seconds"))
    figures["mean_tokens"] = round(sum(chunk.token_count for chunk in chunks) / len(chunks))
    return figures


def baseline(text: str) -> dict[str, object]:
    """The splitter alone, by vocabulary."""
    from semantic_text_splitter import TextSplitter
    from tokenizers import Tokenizer as Vocabulary

    vocabulary = Vocabulary.from_str(model_files.read_tokenizer())
    vocabulary.no_truncation()
    vocabulary.no_padding()
    splitters = {
        MODELS[0]: TextSplitter.from_huggingface_tokenizer(vocabulary, 254, OVERLAP),
        MODELS[1]: TextSplitter.from_tiktoken_model("text-embedding-3-small", SIZE, OVERLAP),
    }
    figures: dict[str, object] = {}
    for model, splitter in splitters.items():
        splitter.chunk_indices("text")
        measured = speed(text, lambda splitter=splitter: splitter.chunk_indices(text))
        figures[model] = {name: measured[name] for name in ("mb_per_s", "mb_per_cpu_s")}
    return figures


def speed(text: str, work: Callable[[], object]) -> dict[str, float]:
    """Megabytes of UTF-8 per second of the clock and of the processor."""
    megabytes = len(text.encode()) / 1e6
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"mb_per_s": round(megabytes / wall, 2), "mb_per_cpu_s": round(megabytes / cpu, 2), "seconds": wall}


def prose(rng: random.Random) -> ParsedDocument:
    """Paragraphs of three to nine sentences."""
    paragraphs = [" ".join(rng.choices(SENTENCES, k=rng.randint(3, 9))) for _ in range(CHARACTERS // 600)]
    return ParsedDocument("\n\n".join(paragraphs), "txt")


def markdown(rng: random.Random) -> ParsedDocument:
    """A section of two paragraphs and a list below each heading."""
    text, sections = "", []
    while len(text) < CHARACTERS:
        title = f"Section {len(sections) + 1}"
        sections.append(SectionStart(len(text), (title,)))
        items = "\n".join(f"- {sentence}" for sentence in rng.choices(SENTENCES, k=4))
        paragraphs = "\n\n".join(" ".join(rng.choices(SENTENCES, k=5)) for _ in range(2))
        text += f"# {title}\n\n{paragraphs}\n\n{items}\n\n"
    return ParsedDocument(text, "md", is_markdown=True, sections=tuple(sections))


def table(rng: random.Random) -> ParsedDocument:
    """One table of five columns, as a CSV file becomes."""
    lines = ["| Number | Name | Department | Since | Salary |", "| --- | --- | --- | --- | --- |"]
    header_end = sum(len(line) + 1 for line in lines)
    for number in range(CHARACTERS // 62):
        department = rng.choice(("Finance", "Engineering", "Sales", "Legal"))
        since = f"20{rng.randint(10, 25)}-0{rng.randint(1, 9)}-1{rng.randint(0, 9)}"
        lines.append(f"| {number} | Employee {number} | {department} | {since} | {rng.randint(30, 90)},000.00 |")
    text = "\n".join(lines)
    return ParsedDocument(text, "csv", is_markdown=True, tables=(Table(0, header_end, len(text)),))


if __name__ == "__main__":
    bench.show(run, __doc__)
