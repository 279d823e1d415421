"""Migrations build the schema once, also with concurrent migrators, and the log cannot be rewritten."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from infra.migrations.migrate import SERVICE_ROLE, MigrationChanged, migrate, migrations
from projections.query.row_security import READER_ROLE, restrict_to_organisation
from tests.database import catalogue
from tests.histories import Account, append

if TYPE_CHECKING:
    from infra.embedded.postgres import EmbeddedPostgres

CHANGES = ["UPDATE ledger.events SET topic = 'x'", "DELETE FROM ledger.events", "TRUNCATE ledger.events"]


@pytest.fixture
def second_database(postgres_server: "EmbeddedPostgres") -> Iterator[str]:
    from tests.servers import new_database

    with new_database(postgres_server) as url:
        yield url


@pytest.fixture
def service_login(postgres_server: "EmbeddedPostgres") -> Iterator[tuple[str, str]]:
    yield "migrations_login", "it's a secret"
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as admin:
        admin.execute("DROP ROLE IF EXISTS migrations_login")


class TestMigrating:
    def test_migrations_are_applied_once_and_in_order(self, database: str) -> None:
        names = [migration.name for migration in migrations()]
        assert names[0] == "initial"

        assert migrate(database) == names
        assert migrate(database) == []
        with psycopg.connect(database) as connection:
            rows = connection.execute(
                "SELECT version, name FROM public.ledger_migrations ORDER BY 1"
            ).fetchall()
        assert rows == list(enumerate(names, start=1))

    def test_they_build_the_schema_that_schema_sql_shows(
        self, migrated_database: str, second_database: str
    ) -> None:
        shown = (files("infra") / "migrations" / "schema.sql").read_bytes()
        with psycopg.connect(second_database) as connection:
            connection.execute(shown)
            expected = catalogue(connection)

        with psycopg.connect(migrated_database) as connection:
            assert catalogue(connection) == expected

    def test_a_migration_whose_text_changed_is_refused(self, migrated_database: str) -> None:
        with psycopg.connect(migrated_database) as connection:
            connection.execute("UPDATE public.ledger_migrations SET digest = 'another'")

        with pytest.raises(MigrationChanged):
            migrate(migrated_database)

    def test_a_migration_that_fails_leaves_nothing(self, database: str) -> None:
        with psycopg.connect(database) as connection:
            connection.execute("CREATE SCHEMA projections")

        with pytest.raises(psycopg.errors.DuplicateSchema):
            migrate(database)

        with psycopg.connect(database) as connection:
            connection.execute("DROP SCHEMA projections")
        assert migrate(database)

    def test_eight_migrators_at_once_apply_each_migration_once(self, database: str) -> None:
        with ThreadPoolExecutor(8) as pool:
            applied = list(pool.map(migrate, [database] * 8))

        assert sorted(applied) == [[]] * 7 + [[migration.name for migration in migrations()]]

    def test_migrators_of_two_databases_share_the_cluster_roles(
        self, database: str, second_database: str, service_login: tuple[str, str]
    ) -> None:
        with ThreadPoolExecutor(8) as pool:
            runs = [
                pool.submit(migrate, url, service_login=service_login)
                for url in [database, second_database] * 4
            ]
        assert sorted(len(run.result()) for run in runs) == [0] * 6 + [len(migrations())] * 2


class TestService:
    def test_its_login_acts_as_the_service_role(self, database: str, service_login: tuple[str, str]) -> None:
        migrate(database, service_login=service_login)
        migrate(database, service_login=service_login)

        name, password = service_login
        with psycopg.connect(make_conninfo(database, user=name, password=password)) as connection:
            assert connection.execute("SELECT current_user, session_user").fetchone() == (SERVICE_ROLE, name)

    def test_its_login_can_step_down_to_the_reader(
        self, database: str, service_login: tuple[str, str]
    ) -> None:
        migrate(database, service_login=service_login)
        name, password = service_login
        with psycopg.connect(
            make_conninfo(database, user=name, password=password), autocommit=True
        ) as connection:
            with restrict_to_organisation(connection, "org-1"):
                assert connection.execute("SELECT current_user").fetchone() == (READER_ROLE,)
                assert connection.execute("SELECT count(*) FROM projections.balances").fetchone() == (0,)
            assert connection.execute("SELECT current_user").fetchone() == (SERVICE_ROLE,)

    def test_it_appends_and_reads(self, service_database: str) -> None:
        with psycopg.connect(service_database, autocommit=True) as connection:
            assert append(connection, Account().collect()) == 1


class TestImmutability:
    @pytest.mark.parametrize("change", CHANGES)
    def test_the_service_has_no_right_to_change_events(self, service_database: str, change: str) -> None:
        with (
            psycopg.connect(service_database) as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied"),
        ):
            connection.execute(change.encode())

    @pytest.mark.parametrize("change", CHANGES)
    @pytest.mark.parametrize("replication_role", ["origin", "replica"])
    def test_a_superuser_is_refused_too(
        self, migrated_database: str, change: str, replication_role: str
    ) -> None:
        with psycopg.connect(migrated_database) as connection:
            connection.execute(
                sql.SQL("SET session_replication_role = {}").format(sql.Literal(replication_role))
            )
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="events are facts"):
                connection.execute(change.encode())
