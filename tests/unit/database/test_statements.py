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
IS_SQL = re.compile(
    r"\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH|MERGE INTO|CREATE|DROP|ALTER|GRANT|REVOKE|SET|LOCK|CALL|TRUNCATE"
    r")\s"
)
ALL = list(statements())


def test_there_are_tables_and_statements() -> None:
    assert {"organizations", "kb_chunks", "gateway_keys"} <= TABLES
    assert len(ALL) > 40


@pytest.mark.parametrize("statement", [found for found in ALL if TOUCHES.search(found.text)], ids=str)
def test_a_statement_on_a_tenants_table_names_the_organization(statement: Statement) -> None:
    is_whole = re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH|MERGE)\b", statement.text) is not None
    if statement.name not in OF_THE_OWNER:
        assert ("%(org_id)s" if is_whole else "org_id = ") in statement.text


def sql_outside_constants(tree: ast.Module) -> Iterator[int]:
    """Lines of strings that are SQL and lie neither in a LiteralString nor in a `sql.SQL` of the module."""
    constants = [node.value for node in tree.body if isinstance(node, ast.AnnAssign) and is_literal_string(node)]
    constants += [node.value for node in tree.body if isinstance(node, ast.Assign) and is_composable(node.value)]
    allowed = {id(part) for value in constants if value is not None for part in ast.walk(value)}
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in allowed and IS_SQL.match(node.value):
            yield node.lineno


def executed_where_it_stands(tree: ast.Module) -> Iterator[int]:
    """Lines where what is executed is written, or put together, in the call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            statement, method = node.args[0], node.func.attr
            is_put_together = isinstance(statement, ast.JoinedStr | ast.BinOp)
            is_written = isinstance(statement, ast.Constant) and method != "stream"  # which is httpx's too
            if method in {"execute", "executemany", "stream"} and (is_put_together or is_written):
                yield node.lineno


def is_literal_string(node: ast.AnnAssign) -> bool:
    return ast.unparse(node.annotation) == "LiteralString"


def is_composable(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and ast.unparse(value.func) == "sql.SQL"


def test_sql_is_a_literal_and_lies_in_a_constant() -> None:
    """`execute("SELECT …" + …)` and f-strings are where injections begin, and the test above sees constants only."""
    found = []
    for path in sorted(LIBRARY.rglob("*.py")):
        if not path.is_relative_to(MIGRATIONS.parent):  # Alembic's: scripts that run as the owner
            tree = ast.parse(path.read_text(encoding="utf-8"))
            lines = {*sql_outside_constants(tree), *executed_where_it_stands(tree)}
            found += [f"{path.relative_to(LIBRARY)}:{line}" for line in sorted(lines)]

    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "FIND = 'SELECT 1'",
        "FIND: str = 'SELECT 1'",
        'FIND = """\n    WITH found AS (SELECT 1) SELECT 2"""',
        "conn.execute('SELECT 1')",
        "conn.execute('anything')",
        "conn.execute('SELECT ' + name)",
        "conn.execute(f'DELETE FROM {name}')",
        "conn.execute(sql.SQL('DROP TABLE {}').format(name))",
        "def find(conn):\n    statement: LiteralString = 'SELECT 1'\n    conn.execute(statement)",
    ],
)
def test_sql_elsewhere_is_seen(code: str) -> None:
    tree = ast.parse(code)

    assert {*sql_outside_constants(tree), *executed_where_it_stands(tree)}


@pytest.mark.parametrize(
    "code",
    [
        "FIND: LiteralString = 'SELECT 1'",
        "FIND: LiteralString = f'SELECT {COLUMNS} FROM things'",
        "DROP = sql.SQL('DROP TABLE {}')",
        "conn.execute(FIND, row)",
        "conn.execute(DROP.format(name))",
        "client.stream('GET', path)",
        "sentence = 'SELECTED for you'",
    ],
)
def test_sql_in_a_constant_is_let_be(code: str) -> None:
    tree = ast.parse(code)

    assert not {*sql_outside_constants(tree), *executed_where_it_stands(tree)}
