"""The database's catalogue: whoever adds a table, a partition, an index or a function forgets no rule (T2, T10)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import namedtuple_row

from tests.integration.conftest import Database

ROLES = ("bonito_owner", "bonito_runtime", "bonito_lookup", "bonito_search")

# They hold nothing of any organization, but for `users`, which has a policy of its own.
TABLES_OF_NOBODY = {"alembic_version", "schema_compatibility", "users"}
QUEUE = "procrastinate_%"

# A tenant's rows begin with org_id in every index, but for those of the lookups before an organization is known.
INDEXES_OF_LOOKUPS = {
    "gateway_keys_key_hash": "key → organization",
    "personal_tokens_token_hash": "token → organization",
    "invites_token_hash": "invite → organization",
    "knowledge_bases_source": "bucket → knowledge bases",
    "knowledge_bases_schedule": "the next sync that is due",
    "knowledge_bases_listed": "the next source that nobody has listed for long",
    "knowledge_bases_deleted": "the sweeper's work",
    "kb_generations_retired": "the sweeper's work",
    "kb_syncs_lease": "the sweeper's work",
    "kb_documents_lease": "the sweeper's work",
    "kb_documents_tombstone": "the sweeper's work",
    "kb_revisions_ended": "the sweeper's work",
    "kb_index_terms": "GIN: the scope of the generation is in every term",
    "kb_uploads_expires": "the sweeper's work",
    "sync_webhooks_id": "webhook → organization",
    "organizations_name": "unique in the deployment",
}

# What runs with another role's rights; each is a hole in the wall, so each is meant.
DEFINERS = {
    "accept_invite": "bonito_owner",
    "append_audit": "bonito_owner",
    "find_gateway_key": "bonito_lookup",
    "find_personal_token": "bonito_lookup",
    "find_knowledge_bases": "bonito_lookup",
    "find_sources": "bonito_lookup",
    "find_due_schedules": "bonito_lookup",
    "find_unlisted": "bonito_lookup",
    "find_sweeping": "bonito_lookup",
    "find_expired_uploads": "bonito_lookup",
    "find_sync_webhook": "bonito_lookup",
    "search_knowledge_base": "bonito_search",
}

TENANT = "({} = ( SELECT (NULLIF(current_setting('app.org_id'::text, true), ''::text))::uuid AS \"nullif\"))"


@pytest.fixture(scope="module")
def catalogue(database: Database) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database.maintenance_url, autocommit=True) as conn:
        conn.execute("SET ROLE bonito_owner")
        conn.execute("SELECT create_gateway_requests_partitions(14)")  # as maintenance does, later
    with psycopg.connect(database.superuser_url, autocommit=True, row_factory=namedtuple_row) as conn:
        yield conn


def tables(conn: psycopg.Connection[Any]) -> list[Any]:
    """Tables, partitioned ones and partitions of an organization's rows, with the column that says whose they are."""
    return conn.execute(
        """
        SELECT c.oid, c.relname AS name, c.relrowsecurity, c.relforcerowsecurity, c.relispartition, o.rolname AS owner,
               CASE c.relname WHEN 'organizations' THEN 'id' ELSE 'org_id' END AS org_column
          FROM pg_class c JOIN pg_roles o ON o.oid = c.relowner
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
           AND (c.relname = 'organizations'
                OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'org_id'))
         ORDER BY c.relname
        """
    ).fetchall()


def test_every_other_table_is_known(catalogue: psycopg.Connection[Any]) -> None:
    rows = catalogue.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'f')"
        " AND relname NOT LIKE %s",
        [QUEUE],
    ).fetchall()

    assert {row.relname for row in rows} - {table.name for table in tables(catalogue)} == TABLES_OF_NOBODY


def test_nothing_shows_rows_past_their_policies(catalogue: psycopg.Connection[Any]) -> None:
    """A view reads with its owner's rights, and a rule rewrites what was asked."""
    views = catalogue.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('v', 'm')"
    ).fetchall()
    rules = catalogue.execute("SELECT rulename FROM pg_rules WHERE schemaname = 'public'").fetchall()

    assert (views, rules) == ([], [])


def test_row_level_security_is_on_and_forced_everywhere(catalogue: psycopg.Connection[Any]) -> None:
    found = tables(catalogue)

    assert len([table for table in found if table.relispartition]) >= 2 * 32 + 14
    assert [table.name for table in found if not (table.relrowsecurity and table.relforcerowsecurity)] == []
    assert {table.owner for table in found} == {"bonito_owner"}
    users = catalogue.execute(
        "SELECT relrowsecurity AND relforcerowsecurity AS both FROM pg_class WHERE oid = 'users'::regclass"
    ).fetchone()
    assert users is not None
    assert users.both


def test_every_table_has_the_tenants_policy_and_no_wider_one(catalogue: psycopg.Connection[Any]) -> None:
    for table in tables(catalogue):
        policies = catalogue.execute(
            "SELECT policyname AS name, permissive, roles, cmd, qual, with_check FROM pg_policies"
            " WHERE schemaname = 'public' AND tablename = %s",
            [table.name],
        ).fetchall()
        by_name = {policy.name: policy for policy in policies}
        expected = TENANT.format(table.org_column)

        tenant, owner = by_name.pop("tenant"), by_name.pop("owner")
        assert (tenant.roles, tenant.cmd) == (["bonito_runtime"], "ALL"), table.name
        assert (tenant.qual, tenant.with_check) == (expected, expected), table.name
        assert owner.roles == ["bonito_owner"], table.name
        for policy in by_name.values():
            assert policy.cmd == "SELECT", f"{table.name}: {policy.name}"
            assert set(policy.roles) <= {"bonito_lookup", "bonito_search"}, f"{table.name}: {policy.name}"


def test_org_id_leads_every_index_of_the_tenants(catalogue: psycopg.Connection[Any]) -> None:
    for table in tables(catalogue):
        indexes = catalogue.execute(
            """
            SELECT c.relname AS name, a.attname AS first, i.indisunique,
                   EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = i.indexrelid) AS is_of_parent
              FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
              LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
             WHERE i.indrelid = %s
            """,
            [table.oid],
        ).fetchall()
        assert indexes, table.name
        for index in indexes:
            if not index.is_of_parent and index.name not in INDEXES_OF_LOOKUPS:
                assert index.first == table.org_column, f"{index.name} on {table.name} begins with {index.first}"


def test_the_indexes_of_lookups_exist(catalogue: psycopg.Connection[Any]) -> None:
    rows = catalogue.execute("SELECT indexname FROM pg_indexes WHERE schemaname = 'public'").fetchall()

    assert set(INDEXES_OF_LOOKUPS) <= {row.indexname for row in rows}


def test_foreign_keys_stay_within_the_organization(catalogue: psycopg.Connection[Any]) -> None:
    keys = catalogue.execute(
        """
        SELECT k.conname AS name, k.conrelid::regclass::text AS source, k.confrelid::regclass::text AS target,
               (SELECT array_agg(a.attname ORDER BY n) FROM unnest(k.conkey) WITH ORDINALITY u (attnum, n)
                  JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.attnum) AS columns,
               (SELECT array_agg(a.attname ORDER BY n) FROM unnest(k.confkey) WITH ORDINALITY u (attnum, n)
                  JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.attnum) AS referenced
          FROM pg_constraint k WHERE k.contype = 'f' AND k.connamespace = 'public'::regnamespace
        """
    ).fetchall()
    tenants = {table.name: table.org_column for table in tables(catalogue)}
    within = [key for key in keys if key.source in tenants and key.target in tenants]

    assert len(within) > 15
    for key in within:
        assert key.columns[0] == tenants[key.source], key.name
        assert key.referenced[0] == tenants[key.target], key.name


def test_nobody_but_the_owner_may_touch_a_partition(catalogue: psycopg.Connection[Any]) -> None:
    """Row-level security of the parent does not cover direct reads of a leaf, so nobody may read one."""
    for table in tables(catalogue):
        if table.relispartition:
            assert grantees(catalogue, table.oid) <= {"bonito_owner"}, table.name


def test_no_table_is_granted_to_everybody_or_with_more_than_rows(catalogue: psycopg.Connection[Any]) -> None:
    rows = catalogue.execute(
        """
        SELECT c.relname AS name, coalesce(r.rolname, 'PUBLIC') AS grantee, a.privilege_type AS privilege,
               a.is_grantable
          FROM pg_class c CROSS JOIN LATERAL aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
          LEFT JOIN pg_roles r ON r.oid = a.grantee
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
        """
    ).fetchall()

    assert [row for row in rows if row.grantee == "PUBLIC"] == []
    for row in rows:
        if row.grantee == "bonito_runtime":
            assert row.privilege in {"SELECT", "INSERT", "UPDATE", "DELETE", "USAGE"}, row
            assert not row.is_grantable, row
        elif row.grantee in {"bonito_lookup", "bonito_search"}:
            assert row.privilege == "SELECT", row
        else:
            assert row.grantee == "bonito_owner", row


def test_the_runtime_cannot_rewrite_what_must_only_grow(catalogue: psycopg.Connection[Any]) -> None:
    for table, allowed in {
        "organizations": {"SELECT"},
        "users": {"SELECT"},
        "audit_log": {"SELECT"},
        "audit_heads": {"SELECT"},
        "gateway_requests": {"SELECT", "INSERT"},
        "schema_compatibility": {"SELECT"},
        "alembic_version": {"SELECT"},
    }.items():
        rows = catalogue.execute(
            "SELECT privilege_type AS privilege FROM information_schema.table_privileges"
            " WHERE table_name = %s AND grantee = 'bonito_runtime'"
            " UNION SELECT privilege_type FROM information_schema.column_privileges"
            " WHERE table_name = %s AND grantee = 'bonito_runtime'",
            [table, table],
        ).fetchall()
        assert {row.privilege for row in rows} == allowed, table


def test_the_functions_that_run_with_other_rights_are_a_closed_list(catalogue: psycopg.Connection[Any]) -> None:
    rows = catalogue.execute(
        """
        SELECT p.proname AS name, o.rolname AS owner, o.rolcanlogin, p.proconfig, l.lanname AS language,
               ARRAY(SELECT coalesce(r.rolname, 'PUBLIC')
                       FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
                       LEFT JOIN pg_roles r ON r.oid = a.grantee) AS grantees
          FROM pg_proc p JOIN pg_roles o ON o.oid = p.proowner JOIN pg_language l ON l.oid = p.prolang
         WHERE p.prosecdef
           AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
        """
    ).fetchall()

    assert {row.name: row.owner for row in rows} == DEFINERS
    for row in rows:
        assert not row.rolcanlogin, row.name
        assert "search_path=pg_catalog, public, pg_temp" in row.proconfig, row.name
        assert set(row.grantees) == {row.owner, "bonito_runtime"}, row.name


def test_procedures_that_change_the_schema_are_the_owners_alone(catalogue: psycopg.Connection[Any]) -> None:
    for signature in (
        "protect(regclass, name)",
        "hand_over(regprocedure, name)",
        "create_gateway_requests_partitions(integer)",
    ):
        row = catalogue.execute(
            "SELECT has_function_privilege('bonito_runtime', %s::regprocedure, 'EXECUTE') AS may", [signature]
        ).fetchone()
        assert row is not None
        assert not row.may, signature


def test_our_roles_cannot_log_in_and_are_nothing_special(catalogue: psycopg.Connection[Any]) -> None:
    rows = catalogue.execute(
        "SELECT rolname, rolcanlogin OR rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication"
        "       AS is_special FROM pg_roles WHERE rolname = ANY(%s)",
        [list(ROLES)],
    ).fetchall()

    assert {row.rolname: row.is_special for row in rows} == dict.fromkeys(ROLES, False)


def test_the_runtime_becomes_nobody_else(catalogue: psycopg.Connection[Any]) -> None:
    rows = catalogue.execute(
        "SELECT m.rolname AS member, r.rolname AS role, a.inherit_option AS inherits FROM pg_auth_members a"
        " JOIN pg_roles r ON r.oid = a.roleid JOIN pg_roles m ON m.oid = a.member WHERE m.rolname = ANY(%s)",
        [list(ROLES)],
    ).fetchall()

    assert sorted((row.member, row.role, row.inherits) for row in rows) == [
        ("bonito_owner", "bonito_lookup", False),
        ("bonito_owner", "bonito_search", False),
    ]


def test_only_the_owner_creates_in_the_schema(catalogue: psycopg.Connection[Any]) -> None:
    for role in ROLES:
        row = catalogue.execute("SELECT has_schema_privilege(%s, 'public', 'CREATE') AS may", [role]).fetchone()
        assert row is not None
        assert row.may is (role == "bonito_owner"), role


def grantees(conn: psycopg.Connection[Any], oid: int) -> set[str]:
    """Whoever has any right on a table or on one of its columns."""
    rows = conn.execute(
        """
        SELECT coalesce(r.rolname, 'PUBLIC') AS name
          FROM pg_class c CROSS JOIN LATERAL aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
          LEFT JOIN pg_roles r ON r.oid = a.grantee WHERE c.oid = %(oid)s
        UNION
        SELECT coalesce(r.rolname, 'PUBLIC')
          FROM pg_attribute t CROSS JOIN LATERAL aclexplode(t.attacl) a
          LEFT JOIN pg_roles r ON r.oid = a.grantee WHERE t.attrelid = %(oid)s
        """,
        {"oid": oid},
    ).fetchall()
    return {row.name for row in rows}
