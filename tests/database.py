"""Databases with the ledger's schema, and a list of a schema's objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from infra.migrations.migrate import SERVICE_ROLE, migrate
from tests.servers import new_database

if TYPE_CHECKING:
    from infra.embedded.postgres import EmbeddedPostgres

_OURS = "IN ('public', 'ledger', 'projections')"

_CATALOGUE = f"""
    SELECT 'column', format('%s.%s.%s', table_schema, table_name, column_name),
        concat_ws(' ', rank() OVER (PARTITION BY table_schema, table_name ORDER BY ordinal_position),
            data_type, udt_name, is_nullable, column_default)
    FROM information_schema.columns WHERE table_schema {_OURS}
    UNION ALL
    SELECT 'constraint', format('%s.%s', conrelid::regclass, conname), pg_get_constraintdef(pg_constraint.oid)
    FROM pg_constraint WHERE connamespace::regnamespace::text {_OURS} AND contype <> 'n'
    UNION ALL
    SELECT 'index', indexrelid::regclass::text, pg_get_indexdef(indexrelid)
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    WHERE relnamespace::regnamespace::text {_OURS}
    UNION ALL
    SELECT 'trigger', format('%s.%s', tgrelid::regclass, tgname),
        concat_ws(' ', pg_get_triggerdef(oid), tgenabled)
    FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL
    SELECT 'function', oid::regprocedure::text, pg_get_functiondef(oid)
    FROM pg_proc WHERE pronamespace::regnamespace::text {_OURS}
    UNION ALL
    SELECT 'policy', format('%s.%s', polrelid::regclass, polname),
        concat_ws(' ', polpermissive, polcmd, polroles::regrole[],
            pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
    FROM pg_policy
    UNION ALL
    SELECT 'row security', oid::regclass::text, relrowsecurity::text
    FROM pg_class WHERE relnamespace::regnamespace::text {_OURS} AND relkind = 'r'
    UNION ALL
    SELECT 'view', oid::regclass::text, concat_ws(' ', pg_get_viewdef(oid), reloptions)
    FROM pg_class WHERE relnamespace::regnamespace::text {_OURS} AND relkind = 'v'
    UNION ALL
    SELECT 'column grant', format('%s.%s', attrelid::regclass, attname), attacl::text
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    WHERE relnamespace::regnamespace::text {_OURS} AND attacl IS NOT NULL
    UNION ALL
    SELECT 'storage', oid::regclass::text, array_to_string(reloptions, ', ')
    FROM pg_class WHERE relnamespace::regnamespace::text {_OURS} AND relkind = 'r'
    UNION ALL
    SELECT 'grant', format('%s %s %s', pg_class.oid::regclass, grantee::regrole, privilege_type), ''
    FROM pg_class, aclexplode(relacl) WHERE relnamespace::regnamespace::text {_OURS}
    UNION ALL
    SELECT 'grant', format('%s %s %s', nspname, grantee::regrole, privilege_type), ''
    FROM pg_namespace, aclexplode(nspacl) WHERE nspname {_OURS}
    ORDER BY 1, 2, 3
"""


def catalogue(connection: psycopg.Connection[Any]) -> list[tuple[str, str, str]]:
    """Return the ledger's schema as (kind, name, definition)."""
    return connection.execute(_CATALOGUE).fetchall()


@pytest.fixture(scope="session")
def migrated_template(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """Name of a template database with the ledger's schema. A copy is three times as fast as a migration."""
    with new_database(postgres_server) as url:
        migrate(url)
        yield str(conninfo_to_dict(url)["dbname"])


@pytest.fixture
def migrated_database(postgres_server: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    """Superuser URL of a new database with the ledger's schema."""
    with new_database(postgres_server, template=migrated_template) as url:
        yield url


@pytest.fixture
def service_database(migrated_database: str) -> str:
    """Connection string of the `migrated_database`, with the rights of the service."""
    return make_conninfo(migrated_database, options=f"-c role={SERVICE_ROLE}")
