"""Settings: every variable is documented, and a wrong or unknown one is one clear line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from bonito.errors import InvalidSettings
from bonito.settings import PREFIX, Settings

DOCS = Path(__file__).parents[2] / "docs" / "settings.md"
ROW = re.compile(r"^\| `(BONITO_\w+)` \| (.*?) \| (.*) \|$", re.MULTILINE)
documented = {name: (default, text) for name, default, text in ROW.findall(DOCS.read_text(encoding="utf-8"))}


def test_the_docs_list_exactly_the_variables_that_exist() -> None:
    assert list(documented) == [PREFIX + field.upper() for field in Settings.model_fields]


@pytest.mark.parametrize("field", Settings.model_fields)
def test_the_docs_say_what_the_field_says(field: str) -> None:
    default, text = documented[PREFIX + field.upper()]
    info = Settings.model_fields[field]

    assert text == info.description
    assert default == ("" if info.default in (None, "") else f"`{info.default}`")


def test_variables_become_fields() -> None:
    settings = Settings.from_environ({"BONITO_DATABASE_POOL_SIZE": "7", "BONITO_CLOUD": "aws", "HOME": "/root"})

    assert (settings.database_pool_size, settings.cloud) == (7, "aws")


def test_an_unknown_variable_is_named_in_one_line() -> None:
    with pytest.raises(InvalidSettings) as refused:
        Settings.from_environ({"BONITO_DATABSE_URL": "postgresql://u:hunter2@h/d"})

    assert str(refused.value) == "BONITO_DATABSE_URL is not a setting; docs/settings.md lists them"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BONITO_DATABASE_POOL_SIZE", "0"),
        ("BONITO_DATABASE_POOL_SIZE", "many"),
        ("BONITO_CLOUD", "moon"),
        ("BONITO_PROVIDER_TIMEOUT_S", "-1"),
        ("BONITO_LOG_LEVEL", "loud"),
    ],
)
def test_a_wrong_value_is_named_in_one_line_with_what_is_expected(name: str, value: str) -> None:
    with pytest.raises(InvalidSettings) as refused:
        Settings.from_environ({name: value})

    message = str(refused.value)
    assert message.startswith(f"{name}: input should be")
    assert "\n" not in message


def test_all_wrong_variables_are_named_at_once() -> None:
    with pytest.raises(InvalidSettings, match=r"BONITO_CLOUD: .*; BONITO_LOG_LEVEL: "):
        Settings.from_environ({"BONITO_CLOUD": "moon", "BONITO_LOG_LEVEL": "loud"})


def test_the_clis_own_variables_and_the_tests_are_no_settings() -> None:
    environ = {"BONITO_API_KEY": "bp-x", "BONITO_GATEWAY_URL": "http://x", "BONITO_TEST_REQUIRE": "pgbouncer"}

    assert Settings.from_environ(environ) == Settings()


def test_a_secret_is_printed_nowhere() -> None:
    secrets = {
        name: f"canary-{name}" for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)
    }
    settings = Settings.from_environ({PREFIX + name.upper(): value for name, value in secrets.items()})

    shown = repr(settings) + str(settings) + settings.model_dump_json()
    assert len(secrets) >= 4
    assert "canary" not in shown
    assert isinstance(settings.encryption_key, SecretStr)
    assert settings.encryption_key.get_secret_value() == "canary-encryption_key"


def test_an_invalid_secret_is_not_repeated() -> None:
    with pytest.raises(InvalidSettings) as refused:
        Settings.from_environ({"BONITO_DATABASE_URL": "canary", "BONITO_LOG_LEVEL": "canary"})

    assert "canary" not in str(refused.value)


def test_settings_cannot_be_changed_after_the_start() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().cloud = "aws"  # type: ignore[misc]
