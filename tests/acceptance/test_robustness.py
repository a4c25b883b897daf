"""`bonito up` as laptops treat it: killed at any moment, stopped by any signal, in folders of any name."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.acceptance.conftest import Bonito, client, eventually, wait_until_ready


def servers_of(bonito: Bonito) -> list[int]:
    """The processes of the embedded Postgres of this directory."""
    return [
        process.pid
        for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"] == "postgres" and str(bonito.data_dir / "postgres") in (process.info["cmdline"] or [])
    ]


def upload_and_find(bonito: Bonito) -> None:
    """The main way of the data, once."""
    document = bonito.directory / "leave.txt"
    document.write_text("Employees get twenty vacation days a year.")
    bonito.cli("kb", "create", "hr")
    bonito.cli("kb", "upload", "hr", str(document))
    wait_until_ready(bonito, "hr", documents=1)
    with client(bonito) as sdk:
        answer = sdk.chat.completions.create(
            model="local/extractive",
            messages=[{"role": "user", "content": "How many vacation days do I get?"}],
            extra_body={"bonito": {"knowledge_base": "hr"}},
        )
    assert "twenty vacation days" in (answer.choices[0].message.content or "")


def test_a_first_start_that_is_killed_at_any_moment_is_begun_again(empty: Bonito) -> None:
    moments = random.Random(os.getpid())
    for _ in range(3):
        empty.launch()
        begun = time.monotonic()
        eventually((empty.data_dir / "lock").exists, bool)
        time.sleep(moments.uniform(0, 2.5) + (time.monotonic() - begun) * moments.random())
        empty.kill()

    empty.start()

    upload_and_find(empty)
    assert sorted(path.name for path in empty.data_dir.iterdir() if path.name.startswith("postgres")) == ["postgres"]


def test_after_a_kill_the_left_over_postgres_is_replaced(empty: Bonito) -> None:
    empty.start()
    (first,) = servers_of(empty)
    empty.kill()

    empty.start()

    (second,) = servers_of(empty)
    assert first != second
    assert empty.log.read_text().count(empty.credentials["gateway_key"]) == 1  # printed by the start that made it
    assert empty.stop() == 0
    assert servers_of(empty) == []


def test_a_number_that_another_program_has_by_now_is_no_postgres(empty: Bonito) -> None:
    empty.start()
    (server,) = servers_of(empty)
    empty.kill()
    os.kill(server, signal.SIGKILL)
    eventually(lambda: servers_of(empty), lambda pids: pids == [])
    with subprocess.Popen(["sleep", "300"]) as other:
        try:
            for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
                lock = empty.data_dir / "postgres" / name
                _, *lines = lock.read_text().split("\n")
                lock.write_text("\n".join([str(other.pid), *lines]))

            empty.start()

            assert other.poll() is None
        finally:
            other.kill()
    assert empty.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_well_and_nothing_is_left(empty: Bonito, number: signal.Signals) -> None:
    empty.launch()
    eventually((empty.data_dir / "lock").exists, bool)
    during_the_start = empty.stop(number)
    left_by_the_start = servers_of(empty)
    empty.start()
    ready = servers_of(empty)

    assert (during_the_start, left_by_the_start) == (0, [])
    assert len(ready) == 1
    assert empty.stop(number) == 0
    assert servers_of(empty) == []


def test_a_taken_port_is_told_in_one_line(demo: Bonito, tmp_path: Path) -> None:
    other = Bonito(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused = other.cli("up", "--port", str(taken.getsockname()[1]), status=1)

    assert "choose another --port" in refused
    assert refused.count("\n") == 1


@pytest.mark.parametrize(
    "folder", ["with spaces, ünïcode and 'quotes'", "very-long-" + "x" * 100], ids=["special", "long"]
)
def test_the_data_directory_may_have_any_name(tmp_path: Path, folder: str) -> None:
    bonito = Bonito(tmp_path / folder, ("--no-demo",)).start()
    try:
        upload_and_find(bonito)
    finally:
        assert bonito.stop() == 0
    assert servers_of(bonito) == []
