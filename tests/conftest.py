"""Servers shared by a test run. Each is imported and started when the first test asks for it."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.database import migrated_database, migrated_template, service_database  # noqa: F401 - fixtures

if TYPE_CHECKING:
    from infra.embedded.postgres import EmbeddedPostgres


_TESTS = Path(__file__).parent
_LINES_NOT_COUNTED = tuple(
    _TESTS / folder
    for folder in (
        *("auditor", "contract", "e2e", "property", "simulation"),
        *("integration/client", "integration/consumers"),
        *("integration/embedded", "integration/event_store", "integration/projections"),
        "integration/webhooks",
    )
)
"""The other tests cover every line and branch of the domain. Coverage of these too would halve their speed.
"""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest tests first, and measure coverage only where it is needed."""
    items.sort(key=_seconds, reverse=True)
    for item in items:
        if any(map(item.path.is_relative_to, _LINES_NOT_COUNTED)):
            item.add_marker("no_cover")


def _seconds(item: pytest.Item) -> int:
    slow = item.get_closest_marker("slow")
    return 0 if slow is None else slow.kwargs.get("seconds", 10)


@pytest.fixture(scope="session")
def servers_root() -> Iterator[Path]:
    """A folder for the directories of servers, removed after the run."""
    from tests.servers import servers_folder, stop_abandoned_servers

    stop_abandoned_servers()
    with servers_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def postgres_server(servers_root: Path) -> "Iterator[EmbeddedPostgres]":
    """One PostgreSQL for the whole run, without fsync."""
    from infra.embedded.postgres import EmbeddedPostgres
    from tests.servers import FAST

    with EmbeddedPostgres(servers_root / "postgres", settings=FAST) as server:
        yield server


@pytest.fixture
def database(postgres_server: "EmbeddedPostgres") -> Iterator[str]:
    """URL of a new, empty database of this test's own."""
    from tests.servers import new_database

    with new_database(postgres_server) as url:
        yield url


@pytest.fixture(scope="session")
def broker(servers_root: Path) -> Iterator[str]:
    """Bootstrap address of one in-memory Kafka broker for the whole run."""
    from infra.embedded.broker import EmbeddedBroker

    with EmbeddedBroker(servers_root / "broker") as server:
        yield server.address


@pytest.fixture
def topic_name() -> Callable[[str], str]:
    """A function that makes unique topic names: `topic_name("usage")`."""
    return lambda stem: f"{stem}-{secrets.token_hex(6)}"
