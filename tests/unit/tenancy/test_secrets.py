"""The keyring: what is sealed opens for its own row alone, and no key is ever printed or left readable."""

from __future__ import annotations

import base64
import dataclasses
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from bonito.errors import InvalidSettings, UnreadableSecret
from bonito.settings import Settings
from bonito.tenancy import secrets
from bonito.tenancy.secrets import SecretBox

OLD, NEW = b"o" * 32, b"n" * 32
ORG, OTHER_ORG, ROW = UUID(int=1), UUID(int=2), UUID(int=3)


@given(plaintext=st.binary(max_size=5000), purpose=st.text(min_size=1, max_size=40))
def test_what_was_sealed_opens_for_its_own_row(plaintext: bytes, purpose: str) -> None:
    box = SecretBox([NEW])

    sealed = box.seal(plaintext, org_id=ORG, purpose=purpose, secret_id=ROW)

    assert box.open(sealed, org_id=ORG, purpose=purpose, secret_id=ROW) == plaintext
    assert plaintext not in sealed.ciphertext or len(plaintext) < 4


@pytest.mark.parametrize(
    "moved",
    [
        pytest.param({"org_id": OTHER_ORG}, id="another-organization"),
        pytest.param({"secret_id": UUID(int=4)}, id="another-id"),
        pytest.param({"purpose": "provider2"}, id="another-purpose"),
        pytest.param({"org_id": ROW, "secret_id": ORG}, id="ids-swapped"),
    ],
)
def test_a_row_moved_elsewhere_does_not_open(moved: dict[str, object]) -> None:
    box = SecretBox([NEW])
    row: dict[str, object] = {"org_id": ORG, "purpose": "provider", "secret_id": ROW}
    sealed = box.seal(b"sk-1", **row)  # type: ignore[arg-type]

    with pytest.raises(UnreadableSecret, match="changed or moved"):
        box.open(sealed, **(row | moved))  # type: ignore[arg-type]


@given(position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_changed_ciphertext_or_nonce_does_not_open(position: int, flip: int) -> None:
    box = SecretBox([NEW])
    sealed = box.seal(b"sk-very-secret", org_id=ORG, purpose="p", secret_id=ROW)
    changed = bytearray(sealed.nonce + sealed.ciphertext)
    changed[position % len(changed)] ^= flip

    with pytest.raises(UnreadableSecret):
        box.open(
            dataclasses.replace(sealed, nonce=bytes(changed[:12]), ciphertext=bytes(changed[12:])),
            org_id=ORG,
            purpose="p",
            secret_id=ROW,
        )


def test_the_newest_key_seals_and_the_older_ones_still_open() -> None:
    before = SecretBox([OLD]).seal(b"sk-1", org_id=ORG, purpose="p", secret_id=ROW)
    box = SecretBox([NEW, OLD])

    assert box.open(before, org_id=ORG, purpose="p", secret_id=ROW) == b"sk-1"
    assert box.seal(b"sk-1", org_id=ORG, purpose="p", secret_id=ROW).key_id == SecretBox([NEW]).newest_key_id


def test_a_secret_of_a_lost_key_names_the_key() -> None:
    sealed = SecretBox([OLD]).seal(b"sk-1", org_id=ORG, purpose="p", secret_id=ROW)

    with pytest.raises(UnreadableSecret, match=sealed.key_id):
        SecretBox([NEW]).open(sealed, org_id=ORG, purpose="p", secret_id=ROW)


def test_signing_keys_differ_by_purpose_and_from_the_master() -> None:
    box = SecretBox([NEW, OLD])

    derived = [*box.signing_keys(b"a"), *box.signing_keys(b"b")]

    assert len({*derived, NEW, OLD}) == 6


def test_a_keyring_does_not_print_its_keys() -> None:
    shown = repr(SecretBox([NEW])) + str(vars(SecretBox([NEW])).keys())

    assert "n" * 8 not in shown
    assert NEW.hex() not in shown


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("not base64!", id="not-base64"),
        pytest.param(base64.b64encode(b"short").decode(), id="short"),
        pytest.param("é", id="not-ascii"),
    ],
)
def test_what_is_no_key_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(InvalidSettings, match="BONITO_ENCRYPTION_KEY") as refused:
        secrets.parse_keys(text)

    assert not text or text not in str(refused.value)


def test_a_keyring_is_read_newest_first() -> None:
    text = f"{base64.b64encode(NEW).decode()}, {base64.b64encode(OLD).decode()}"

    assert secrets.parse_keys(text) == [NEW, OLD]


def test_the_key_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    directory = tmp_path / "new"

    first, second = secrets.load_keys(directory), secrets.load_keys(directory)

    assert first == second
    assert stat.S_IMODE((directory / secrets.KEY_FILE).stat().st_mode) == 0o600
    assert [path.name for path in directory.iterdir()] == [secrets.KEY_FILE]


def test_processes_that_start_together_agree_on_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda _: secrets.load_keys(tmp_path)[0], range(16)))

    assert len(set(found)) == 1
    assert [path.name for path in tmp_path.iterdir()] == [secrets.KEY_FILE]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    secrets.load_keys(tmp_path)
    (tmp_path / secrets.KEY_FILE).chmod(mode)

    with pytest.raises(InvalidSettings, match="chmod 600"):
        secrets.load_keys(tmp_path)


def test_an_added_key_becomes_the_newest_and_the_old_one_stays(tmp_path: Path) -> None:
    before = secrets.load_keys(tmp_path)

    secrets.add_key(tmp_path)

    after = secrets.load_keys(tmp_path)
    assert after[1:] == before
    assert after[0] != before[0]
    assert stat.S_IMODE((tmp_path / secrets.KEY_FILE).stat().st_mode) == 0o600


@given(st.lists(st.binary(max_size=40), max_size=3))
def test_only_keys_of_32_bytes_make_a_keyring(keys: list[bytes]) -> None:
    if keys and all(len(key) == 32 for key in keys):
        SecretBox(keys)
    else:
        with pytest.raises(ValueError, match="32 bytes"):
            SecretBox(keys)


def test_the_keyring_comes_from_the_setting_and_else_from_the_file(tmp_path: Path) -> None:
    named = Settings(data_dir=tmp_path, encryption_key=SecretStr(base64.b64encode(NEW).decode()))

    assert secrets.open_box(named).newest_key_id == SecretBox([NEW]).newest_key_id
    assert list(tmp_path.iterdir()) == []
    assert secrets.open_box(Settings(data_dir=tmp_path)).newest_key_id == (
        SecretBox(secrets.load_keys(tmp_path)).newest_key_id
    )


def test_every_seal_takes_a_new_nonce() -> None:
    box = SecretBox([NEW])

    nonces = {box.seal(b"x", org_id=uuid4(), purpose="p", secret_id=uuid4()).nonce for _ in range(100)}

    assert len(nonces) == 100
