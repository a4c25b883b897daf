"""The command line as scripts use it: uploads and what becomes of them, exit statuses, and which stream gets what."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import BONITO, ROOT, Bonito, client, eventually, wait_until_ready


@pytest.fixture(scope="module")
def bonito(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bonito]:
    """A deployment with the knowledge base `notes`: two files with metadata, and a folder with two more."""
    bonito = Bonito(tmp_path_factory.mktemp("uploads"), ("--no-demo",)).start()
    files = bonito.directory / "files"
    (files / "minutes" / "2026").mkdir(parents=True)
    (files / "minutes" / ".hidden").write_text("The password of the harbour is never uploaded.")
    (files / "leave.txt").write_text("The mate gets twenty vacation days a year.")
    (files / "pay.txt").write_text("The mate gets paid on the last day of the month.")
    (files / "minutes" / "may [draft] + 100% café.md").write_text("# May\n\nThe anchor was painted.")
    (files / "minutes" / "2026" / "june.md").write_text("# June\n\nThe mate resigned.")
    bonito.cli("kb", "create", "notes")
    bonito.cli("kb", "upload", "notes", str(files / "leave.txt"), "--metadata", '{"topic": "leave", "year": 2026}')
    bonito.cli("kb", "upload", "notes", str(files / "pay.txt"), "--metadata", '{"topic": "pay"}')
    bonito.said = bonito.cli("kb", "upload", "notes", str(files / "minutes"), "--json")
    wait_until_ready(bonito, "notes", documents=4)
    yield bonito
    assert bonito.stop() == 0


@pytest.fixture
def files(bonito: Bonito) -> Path:
    return bonito.directory / "files"


def run(bonito: Bonito, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BONITO), *arguments],
        capture_output=True,
        text=True,
        env=bonito.clean_environment,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )


def found(bonito: Bonito, query: str, *options: str) -> list[str]:
    answer = bonito.json("kb", "search", "notes", query, "--mode", "keyword", *options)
    return sorted(result["document_name"] for result in answer["results"])


def test_a_folder_brings_its_paths_and_no_hidden_files(bonito: Bonito) -> None:
    names = {document["name"] for document in bonito.json("kb", "docs", "notes")}

    assert names == {"leave.txt", "pay.txt", "may [draft] + 100% café.md", "2026/june.md"}
    assert {item["outcome"] for item in json.loads(bonito.said)} == {"created"}


def test_the_table_shows_names_as_they_are(bonito: Bonito) -> None:
    printed = bonito.cli("kb", "docs", "notes")

    assert "may [draft] + 100% café.md" in printed
    assert all(document["id"] in printed for document in bonito.json("kb", "docs", "notes"))


def test_the_same_file_twice_is_one_document(bonito: Bonito, files: Path) -> None:
    before = {document["name"]: document for document in bonito.json("kb", "docs", "notes")}

    again = bonito.json("kb", "upload", "notes", str(files / "leave.txt"))

    assert [(item["outcome"], item["id"]) for item in again] == [("unchanged", before["leave.txt"]["id"])]
    assert len(bonito.json("kb", "docs", "notes")) == 4


def test_a_changed_file_replaces_what_it_said(bonito: Bonito, tmp_path: Path) -> None:
    path = tmp_path / "changing.txt"
    path.write_text("The sextant is blue.")
    bonito.cli("kb", "create", "changing")
    (first,) = bonito.json("kb", "upload", "changing", str(path))
    wait_until_ready(bonito, "changing", documents=1)
    path.write_text("The octant is green.")

    (second,) = bonito.json("kb", "upload", "changing", str(path))

    assert (second["id"], second["outcome"]) == (first["id"], "replaced")
    search = ("kb", "search", "changing", "--mode", "keyword")
    eventually(lambda: bonito.json(*search, "octant")["results"], lambda results: len(results) == 1)
    assert bonito.json(*search, "sextant")["results"] == []


def test_metadata_filters_searches_and_answers(bonito: Bonito) -> None:
    with client(bonito) as sdk:
        answer = sdk.chat.completions.create(
            model="local/extractive",
            messages=[{"role": "user", "content": "What does the mate get?"}],
            extra_body={"bonito": {"knowledge_base": "notes", "filter": {"topic": "pay"}}},
        )

    assert found(bonito, "mate") == ["2026/june.md", "leave.txt", "pay.txt"]
    assert found(bonito, "mate", "--filter", '{"topic": "leave"}') == ["leave.txt"]
    assert found(bonito, "mate", "--filter", '{"topic": "leave", "year": 2027}') == []
    sources = answer.model_extra["bonito"]["sources"]  # type: ignore[index]
    assert [source["document"] for source in sources] == ["pay.txt"]


def test_info_stats_and_sync_agree(bonito: Bonito) -> None:
    info, stats = bonito.json("kb", "info", "notes"), bonito.json("kb", "stats", "notes")
    synced = bonito.json("kb", "sync", "notes", "--wait")

    assert (info["status"], info["document_count"]) == ("ready", 4)
    assert (stats["documents"]["ready"], stats["chunk_count"]) == (4, info["chunk_count"])
    assert (synced["status"], synced["files_failed"], synced["progress_percentage"]) == ("ready", 0, 100)
    assert len(bonito.json("kb", "docs", "notes")) == 4


def test_a_failed_document_says_why_and_can_be_tried_again(bonito: Bonito, tmp_path: Path) -> None:
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7\nthis is no PDF")
    bonito.cli("kb", "create", "broken")
    bonito.cli("kb", "upload", "broken", str(tmp_path / "broken.pdf"))
    failed = eventually(
        lambda: bonito.json("kb", "docs", "broken", "--status", "error"), lambda documents: len(documents) == 1
    )

    bonito.cli("kb", "retry", "broken", "--failed")

    again = eventually(
        lambda: bonito.json("kb", "docs", "broken", "--status", "error"),
        lambda documents: bool(documents) and documents[0]["updated_at"] > failed[0]["updated_at"],
    )
    assert again[0]["error"] == failed[0]["error"]
    assert "PDF" in again[0]["error"]


def test_a_deleted_base_is_gone_and_its_name_free(bonito: Bonito, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The capstan.")
    bonito.cli("kb", "create", "short-lived")
    bonito.cli("kb", "upload", "short-lived", str(tmp_path / "a.txt"))

    asked = run(bonito, "kb", "delete", "short-lived")
    bonito.cli("kb", "delete", "short-lived", "--yes")
    missing = run(bonito, "kb", "info", "short-lived")
    bonito.cli("kb", "create", "short-lived")

    assert (asked.returncode, missing.returncode) == (1, 1)
    assert "--yes" in asked.stderr
    assert bonito.json("kb", "docs", "short-lived") == []


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("kb", "info", "no-such-base"), 1),
        (("kb", "create", "notes"), 1),
        (("kb", "create", "Not A Name!"), 1),
        (("kb", "create", "elsewhere", "--source", "local", "--path", "/etc"), 1),
        (("kb", "upload", "no-such-base", str(BONITO)), 1),
        (("kb", "upload", "notes", str(BONITO), "--metadata", "{"), 1),
        (("kb", "list", "--api-key", "bp-wrong"), 1),
        (("kb", "list", "--api-url", "http://127.0.0.1:9"), 1),
        (("chat", "--kb", "no-such-base", "Anything?"), 1),
        (("kb", "info"), 2),
        (("kb", "info", "notes", "--no-such-option"), 2),
        (("kb", "upload", "notes", "/no/such/file"), 2),
        (("kb", "search", "notes", "mate", "--top-k", "0"), 2),
        (("kb", "search", "notes", "mate", "--filter", "[]"), 2),
        (("no-such-command",), 2),
        (("up", "--port", "99999"), 2),
    ],
)
def test_a_refusal_is_1_and_wrong_usage_2_and_both_are_told_on_stderr(
    bonito: Bonito, arguments: tuple[str, ...], status: int
) -> None:
    done = run(bonito, *arguments)

    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr
    assert status == 2 or done.stderr.count("\n") == 1


def test_json_is_all_of_stdout_and_quiet_is_silent(bonito: Bonito) -> None:
    for arguments in (("list",), ("info", "notes"), ("docs", "notes"), ("stats", "notes"), ("search", "notes", "mate")):
        assert json.loads(run(bonito, "kb", *arguments, "--json").stdout)
        quiet = run(bonito, "kb", *arguments, "--quiet")
        assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


def test_there_is_no_colour_where_there_is_no_terminal(bonito: Bonito) -> None:
    printed = [run(bonito, "kb", *arguments).stdout for arguments in (("list",), ("docs", "notes"), ("info", "notes"))]
    refused = run(bonito, "kb", "info", "no-such-base").stderr

    assert all(printed)
    assert "\x1b" not in "".join([*printed, refused])


def test_a_reader_that_has_enough_is_no_failure(bonito: Bonito) -> None:
    with subprocess.Popen(
        [str(BONITO), "kb", "export", "notes"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=bonito.clean_environment,
    ) as export:
        assert export.stdout is not None
        assert export.stderr is not None
        export.stdout.close()
        complaint = export.stderr.read()

    assert (export.returncode, complaint) == (0, b"")


def test_an_export_begins_with_the_base_and_ends_with_the_counts(bonito: Bonito) -> None:
    lines = [json.loads(line) for line in run(bonito, "kb", "export", "notes").stdout.splitlines()]

    assert (lines[0]["type"], lines[-1]["type"]) == ("knowledge_base", "end")
    assert {line["path"] for line in lines if line["type"] == "document"} >= {"leave.txt", "2026/june.md"}


def test_a_signed_delivery_as_the_docs_send_it_has_the_source_synced(bonito: Bonito) -> None:
    (sample,) = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "webhooks.md").read_text(), re.DOTALL)
    made = bonito.json("kb", "webhook", "notes")
    environment = os.environ | {"URL": made["url"], "SECRET": made["secret"], "no_proxy": "*"}

    sent = subprocess.run(["bash", "-euc", sample], env=environment, capture_output=True, text=True, check=False)

    assert (sent.returncode, json.loads(sent.stdout or "{}")) == (0, {"status": "accepted", "keys": 1}), sent.stderr
    assert bonito.json("kb", "syncs", "notes")[-1]["trigger"] == "manual"
    bonito.cli("kb", "webhook", "notes", "--remove")
    assert subprocess.run(["bash", "-euc", sample], env=environment, capture_output=True, check=False).returncode == 22
