"""A folder is followed: created, changed, renamed and deleted files, while Bonito runs and while it is off."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.conftest import Bonito, eventually, wait_until_ready


def names(bonito: Bonito, knowledge_base: str = "papers") -> list[str]:
    return sorted(document["name"] for document in bonito.json("kb", "docs", knowledge_base))


def found(bonito: Bonito, query: str, knowledge_base: str = "papers") -> set[str]:
    answer = bonito.json("kb", "search", knowledge_base, query, "--mode", "keyword")
    return {result["document_name"] for result in answer["results"]}


@pytest.fixture
def folder(empty: Bonito) -> Path:
    papers = empty.directory / "papers"
    papers.mkdir(parents=True)
    empty.arguments = ("--no-demo", "--watch", str(papers))
    return papers


def test_search_follows_the_folder(empty: Bonito, folder: Path) -> None:
    (folder / "first.txt").write_text("The anemometer of the harbour is calibrated every spring.")
    empty.start()
    wait_until_ready(empty, "papers", documents=1)
    assert found(empty, "anemometer") == {"first.txt"}

    (folder / "sub").mkdir()
    (folder / "sub" / "second + 100% café.md").write_text("# Barometers\n\nA barometer is shipped upright.")
    eventually(lambda: found(empty, "barometer"), lambda hits: hits == {"sub/second + 100% café.md"})

    (folder / "first.txt").write_text("The hygrometer of the harbour is calibrated every autumn.")
    eventually(lambda: found(empty, "hygrometer"), lambda hits: hits == {"first.txt"})
    assert found(empty, "anemometer") == set()

    (folder / "first.txt").rename(folder / "renamed.txt")
    eventually(lambda: found(empty, "hygrometer"), lambda hits: hits == {"renamed.txt"})

    (folder / "renamed.txt").unlink()
    eventually(lambda: found(empty, "hygrometer"), lambda hits: hits == set())
    assert names(empty) == ["sub/second + 100% café.md"]


def test_a_later_start_follows_what_was_named_once_and_not_what_a_root_allowed_once(
    empty: Bonito, folder: Path
) -> None:
    allowed = empty.directory / "allowed"
    allowed.mkdir()
    empty.environment = {"BONITO_LOCAL_ROOTS": str(allowed)}
    empty.start()
    empty.cli("kb", "create", "allowed", "--source", "local", "--path", str(allowed))
    assert empty.stop() == 0
    empty.arguments, empty.environment = ("--no-demo",), {}

    empty.start()
    for place in (folder, allowed):
        (place / "late.txt").write_text("The anemometer of the harbour is calibrated every spring.")
    eventually(lambda: found(empty, "anemometer"), lambda hits: hits == {"late.txt"})
    empty.cli("kb", "sync", "allowed")

    eventually(lambda: empty.json("kb", "info", "allowed")["status"], lambda status: status == "error")
    assert names(empty, "allowed") == []


def test_what_happened_while_bonito_was_off_is_seen_at_the_next_start(empty: Bonito, folder: Path) -> None:
    for name in ("stays", "changes", "goes"):
        (folder / f"{name}.txt").write_text(f"The word of this file is {name}, nothing else.")
    empty.start()
    wait_until_ready(empty, "papers", documents=3)
    assert empty.stop() == 0
    (folder / "changes.txt").write_text("The word of this file is altered, nothing else.")
    (folder / "goes.txt").unlink()
    (folder / "comes.txt").write_text("The word of this file is comes, nothing else.")

    empty.start()

    eventually(lambda: found(empty, "altered"), lambda hits: hits == {"changes.txt"})
    eventually(lambda: found(empty, "goes"), lambda hits: hits == set())
    eventually(lambda: names(empty), lambda present: present == ["changes.txt", "comes.txt", "stays.txt"])
    eventually(lambda: found(empty, "comes"), lambda hits: hits == {"comes.txt"})
    assert found(empty, "stays") == {"stays.txt"}


def test_a_kill_during_ingestion_leaves_exactly_the_right_chunks(empty: Bonito, folder: Path) -> None:
    for number in range(30):
        (folder / f"{number:02}.md").write_text(
            f"# Report {number}\n\n" + f"Gauge{number} was read again and again. " * 60
        )
    empty.start()
    eventually(
        lambda: [document["status"] for document in empty.json("kb", "docs", "papers")],
        lambda statuses: statuses.count("ready") >= 3,
    )
    empty.kill()

    empty.start()
    wait_until_ready(empty, "papers", documents=30)

    stats = empty.json("kb", "info", "papers")
    documents = empty.json("kb", "docs", "papers")
    exported = [line for line in empty.cli("kb", "export", "papers").splitlines() if '"chunk"' in line]
    assert stats["document_count"] == 30
    assert stats["chunk_count"] == sum(document["chunk_count"] for document in documents) == len(exported)
    assert all(found(empty, f"gauge{number}") == {f"{number:02}.md"} for number in (0, 7, 29))
