"""Another chunk size is built beside what answers, which goes on answering until the switch."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.conftest import Bonito, eventually, wait_until_ready

DOCUMENTS = 6
QUERY = "Who greases the windlass?"


def text(number: int) -> str:
    sections = (f"## Part {part}\n\n" + f"Valve {number}.{part} is inspected by the mate. " * 25 for part in range(4))
    return f"# Manual {number}\n\nThe windlass{number} is greased by the boatswain.\n\n" + "\n\n".join(sections)


@pytest.fixture(scope="module")
def bonito(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bonito]:
    bonito = Bonito(tmp_path_factory.mktemp("generations"), ("--no-demo",)).start()
    folder = bonito.directory / "manuals"
    folder.mkdir()
    for number in range(DOCUMENTS):
        (folder / f"manual-{number}.md").write_text(text(number))
    bonito.cli("kb", "create", "manuals")
    bonito.cli("kb", "upload", "manuals", str(folder))
    wait_until_ready(bonito, "manuals", documents=DOCUMENTS)
    yield bonito
    assert bonito.stop() == 0


def test_a_fresh_base_scores_right(bonito: Bonito) -> None:
    found = bonito.json("kb", "search", "manuals", "windlass3", "--mode", "keyword")["results"]
    both = bonito.json("kb", "search", "manuals", "windlass3 greased by the boatswain")["results"]

    assert [result["document_name"] for result in found] == ["manual-3.md"]
    assert 0 < found[0]["score"] <= 1
    assert both[0]["document_name"] == "manual-3.md"
    assert [result["score"] for result in both] == sorted((result["score"] for result in both), reverse=True)


def test_another_chunk_size_switches_while_the_old_answers(bonito: Bonito) -> None:
    before = bonito.json("kb", "info", "manuals")
    with Searching(bonito) as searching, bonito.api() as api:
        changed = api.put("/api/knowledge-bases/manuals", json={"chunk_size": 64, "chunk_overlap": 8})
        assert changed.status_code == 200, changed.text
        assert changed.json()["rebuild"]["documents_missing"] == DOCUMENTS
        after = eventually(lambda: api.get("/api/knowledge-bases/manuals").json(), lambda base: base["rebuild"] is None)
        counted = searching.count
        eventually(lambda: searching.count, lambda count: count >= counted + 3)

    assert searching.faults == []
    assert before["in_force"]["chunk_size"] > after["in_force"]["chunk_size"] == 64
    assert after["document_count"] == DOCUMENTS
    assert after["chunk_count"] > before["chunk_count"]
    assert {document["status"] for document in bonito.json("kb", "docs", "manuals")} == {"ready"}
    found = bonito.json("kb", "search", "manuals", "windlass5", "--mode", "keyword")["results"]
    assert [result["document_name"] for result in found] == ["manual-5.md"]


def test_an_export_has_each_document_with_its_chunks_and_vectors(bonito: Bonito) -> None:
    lines = [json.loads(line) for line in bonito.cli("kb", "export", "manuals").splitlines()]
    info = bonito.json("kb", "info", "manuals")

    kinds = [line["type"] for line in lines]
    chunks = [line for line in lines if line["type"] == "chunk"]
    assert (kinds[0], kinds[-1]) == ("knowledge_base", "end")
    assert kinds.count("document") == DOCUMENTS
    assert len(chunks) == info["chunk_count"]
    assert {len(chunk["embedding"]) for chunk in chunks} == {info["in_force"]["dimensions"]}
    assert len({chunk["id"] for chunk in chunks}) == len(chunks)


class Searching:
    """Searches over and over beside a test, and keeps every answer that failed or was empty."""

    def __init__(self, bonito: Bonito) -> None:
        self._bonito, self._stop = bonito, threading.Event()
        self._thread = threading.Thread(target=self._search)
        self.count = 0
        self.faults: list[Any] = []

    def __enter__(self) -> Searching:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _search(self) -> None:
        with self._bonito.api() as api:
            while not self._stop.is_set():
                answer = api.post("/api/knowledge-bases/manuals/search", json={"query": QUERY})
                if answer.status_code != 200 or not answer.json()["results"]:
                    self.faults.append((answer.status_code, answer.text))
                self.count += 1
