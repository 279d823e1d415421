"""Creates a twin of a table in another schema, and replaces the table by it.

`LIKE ... INCLUDING ALL` copies columns, defaults, constraints and indexes. It does not copy the owner,
storage parameters, privileges, policies and index names. This module copies these.
"""

from __future__ import annotations

from typing import Final

from psycopg import sql
from psycopg.rows import tuple_row

from projections.connection import Connection

_OWNER_AND_STORAGE: Final = """
    SELECT relowner::regrole::text, array_to_string(reloptions, ', ')
    FROM pg_class WHERE oid = %s::regclass
"""

_PRIVILEGES: Final = """
    SELECT privilege_type, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END
    FROM pg_class, aclexplode(relacl) WHERE oid = %s::regclass AND grantee <> relowner
"""

_POLICIES: Final = """
    SELECT polname, CASE WHEN polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
        CASE polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
            WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
        (SELECT string_agg(CASE role WHEN 0 THEN 'PUBLIC' ELSE role::regrole::text END, ', ')
            FROM unnest(polroles) AS role),
        coalesce(' USING (' || pg_get_expr(polqual, polrelid) || ')', '')
            || coalesce(' WITH CHECK (' || pg_get_expr(polwithcheck, polrelid) || ')', '')
    FROM pg_policy WHERE polrelid = %s::regclass
"""
_HAS_ROW_SECURITY: Final = "SELECT relrowsecurity FROM pg_class WHERE oid = %s::regclass"

# Two indexes differ only in name if their definitions are equal after the table's name.
_INDEX_NAMES: Final = """
    SELECT twin.name, live.name
    FROM (SELECT indexrelid::regclass, relname::text AS name, indisunique, indisprimary,
              substring(pg_get_indexdef(indexrelid) FROM ' USING .*') AS definition
          FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE indrelid = %s::regclass) AS live
    JOIN (SELECT relname::text AS name, indisunique, indisprimary,
              substring(pg_get_indexdef(indexrelid) FROM ' USING .*') AS definition
          FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE indrelid = %s::regclass) AS twin
        USING (definition, indisunique, indisprimary)
    WHERE twin.name <> live.name
"""


def clone_table(
    connection: Connection, table: str, *, from_schema: str, to_schema: str, unlogged: bool = False
) -> None:
    """Create an empty twin of a table, in the caller's transaction.

    An unlogged twin is faster to fill, and empty after a server crash.
    """
    create = sql.SQL("CREATE UNLOGGED TABLE" if unlogged else "CREATE TABLE")
    origin, twin = sql.Identifier(from_schema, table), sql.Identifier(to_schema, table)
    origin_name, twin_name = origin.as_string(connection), twin.as_string(connection)
    cursor = connection.cursor(row_factory=tuple_row)
    cursor.execute(sql.SQL("{} {} (LIKE {} INCLUDING ALL)").format(create, twin, origin))
    for owner, parameters in cursor.execute(_OWNER_AND_STORAGE, [origin_name]).fetchall():
        if parameters:
            cursor.execute(sql.SQL("ALTER TABLE {} SET ({})").format(twin, sql.SQL(parameters)))
        cursor.execute(sql.SQL("ALTER TABLE {} OWNER TO {}").format(twin, sql.SQL(owner)))
    for privilege, grantee in cursor.execute(_PRIVILEGES, [origin_name]).fetchall():
        cursor.execute(sql.SQL("GRANT {} ON {} TO {}").format(sql.SQL(privilege), twin, sql.SQL(grantee)))
    if cursor.execute(_HAS_ROW_SECURITY, [origin_name]).fetchall()[0][0]:
        cursor.execute(sql.SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(twin))
    for policy, kind, action, roles, condition in cursor.execute(_POLICIES, [origin_name]).fetchall():
        create_policy = sql.SQL("CREATE POLICY {} ON {} AS {} FOR {} TO {}{}")
        parts = [sql.SQL(part) for part in (kind, action, roles, condition)]
        cursor.execute(create_policy.format(sql.Identifier(policy), twin, *parts))
    for name, live_name in cursor.execute(_INDEX_NAMES, [origin_name, twin_name]).fetchall():
        cursor.execute(
            sql.SQL("ALTER INDEX {} RENAME TO {}").format(
                sql.Identifier(to_schema, name), sql.Identifier(live_name)
            )
        )


def replace_table(connection: Connection, table: str, *, live_schema: str, next_schema: str) -> None:
    """Drop a table and move its twin into its schema, in the caller's transaction."""
    connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(live_schema, table)))
    connection.execute(
        sql.SQL("ALTER TABLE {} SET SCHEMA {}").format(
            sql.Identifier(next_schema, table), sql.Identifier(live_schema)
        )
    )
