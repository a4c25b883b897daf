"""What the owner of a machine may lose, and what he may change: the credentials file, and the encryption key."""

from __future__ import annotations

from tests.acceptance.conftest import Bonito


def test_a_lost_credentials_file_is_made_again_for_the_same_organization(empty: Bonito) -> None:
    empty.start()
    empty.cli("kb", "create", "notes")
    lost = empty.credentials
    empty.stop()
    (empty.data_dir / "credentials.json").unlink()

    empty.start()

    assert [base["name"] for base in empty.json("kb", "list")] == ["notes"]
    assert [provider["name"] for provider in empty.json("providers", "list")] == ["local"]
    assert empty.credentials["gateway_key"] != lost["gateway_key"]
    assert len(empty.json("keys", "list")) == 2


def test_a_credentials_file_that_cannot_be_read_stops_the_start_in_one_line(empty: Bonito) -> None:
    empty.start()
    empty.stop()
    (empty.data_dir / "credentials.json").write_text("")

    refused = empty.cli("up", "--port", "0", status=1)

    assert "cannot be read" in refused
    assert refused.count("\n") == 1


def test_secrets_are_sealed_anew_under_a_new_key(empty: Bonito) -> None:
    empty.start()
    empty.cli(
        "providers", "add", "vllm", "--base-url", "http://127.0.0.1:9/v1", "--api-key-stdin", stdin="sk-rotated\n"
    )
    assert "Stop it" in empty.cli("admin", "rotate-secrets", "--new-key", status=1)
    empty.stop()
    before = (empty.data_dir / "encryption.key").read_text()

    rotated = empty.json("admin", "rotate-secrets", "--new-key")

    assert rotated == {"resealed": 1, "left_behind": []}
    keys = (empty.data_dir / "encryption.key").read_text().split()
    assert keys[1:] == before.split()
    (empty.data_dir / "encryption.key").write_text(keys[0] + "\n")
    empty.start()
    verified = empty.cli("providers", "verify", "vllm", status=1)
    assert "does not have" not in verified  # the credential opened; only nobody listens there
