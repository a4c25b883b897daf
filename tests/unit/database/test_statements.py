"""Every statement names the organization, although row-level security would do: two walls, and sane plans (T2, T8)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import bonito

LIBRARY = Path(bonito.__file__).parent
MIGRATIONS = LIBRARY / "database" / "migrations" / "versions"

# They run as the owner of the tables, for the whole deployment or for an organization that is not there yet.
OF_THE_OWNER = {
    "tenancy.organizations.ADD_USER": "an organization that is being made",
    "tenancy.organizations.FIND_USER": "an organization that is being made",
    "tenancy.organizations.FIND_OWNER": "an owner who lost every token",
    "tenancy.organizations.SET_TIER": "an organization that is named",
    "tenancy.secrets.ORGANIZATIONS": "a rotation of every organization's secrets",
    "knowledge.indexes.FIND_GENERATIONS": "maintenance of every organization's indexes",
}


@dataclass(frozen=True)
class Statement:
    """A constant of SQL."""

    name: str
    text: str

    def __str__(self) -> str:
        return self.name


def tenant_tables() -> set[str]:
    text = "".join(path.read_text(encoding="utf-8") for path in MIGRATIONS.glob("*.sql"))
    return {*re.findall(r"CALL protect\('(\w+)'", text), "users"}


def statements() -> Iterator[Statement]:
    for path in sorted(LIBRARY.rglob("*.py")):
        module = ".".join(path.relative_to(LIBRARY).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "LiteralString" and node.value:
                text = "".join(
                    part.value
                    for part in ast.walk(node.value)
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)
                )
                yield Statement(f"{module}.{ast.unparse(node.target)}", text)


TABLES = tenant_tables()
TOUCHES = re.compile(rf"\b(FROM|INTO|UPDATE|JOIN)\s+(ONLY\s+)?({'|'.join(sorted(TABLES))})\b")
ALL = list(statements())


def test_there_are_tables_and_statements() -> None:
    assert {"organizations", "kb_chunks", "gateway_keys"} <= TABLES
    assert len(ALL) > 40


@pytest.mark.parametrize("statement", [found for found in ALL if TOUCHES.search(found.text)], ids=str)
def test_a_statement_on_a_tenants_table_names_the_organization(statement: Statement) -> None:
    is_whole = re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH|MERGE)\b", statement.text) is not None
    if statement.name not in OF_THE_OWNER:
        assert ("%(org_id)s" if is_whole else "org_id = ") in statement.text


def test_sql_is_a_literal_and_lies_in_a_constant() -> None:
    """`execute("SELECT …" + …)` and f-strings are where injections begin."""
    found = []
    for path in sorted(LIBRARY.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in {"execute", "executemany", "stream"}
                and node.args
                and isinstance(node.args[0], ast.JoinedStr | ast.BinOp)
            ):
                found.append(f"{path.relative_to(LIBRARY)}:{node.lineno}")

    assert found == []
