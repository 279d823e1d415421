"""One `up` per data directory, and the settings that it publishes for other commands."""

from pathlib import Path

import pytest

from infra.settings import InvalidSetting, Settings
from infra.up.instance_lock import (
    AlreadyRunning,
    settings_of_running_instance,
    single_instance,
    write_environment,
)

PUBLISHED = {
    "DATABASE_URL": 'postgresql://app:it\'s "a" $secret@127.0.0.1:5432/ledger',
    "MIGRATION_DATABASE_URL": "host=/tmp user=owner",
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092",
}
SETTINGS = ("database_url", "migration_database_url", "kafka_bootstrap_servers")


@pytest.fixture(autouse=True)
def _no_servers_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name.upper(), raising=False)


def test_a_second_one_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    with (
        single_instance(tmp_path),
        pytest.raises(AlreadyRunning, match=str(tmp_path)),
        single_instance(tmp_path),
    ):
        pass
    with single_instance(tmp_path):
        pass


def test_a_directory_that_cannot_be_created(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with (
        pytest.raises(InvalidSetting, match="cannot be used: Not a directory"),
        single_instance(file / "var"),
    ):
        pass


def test_settings_without_a_server_use_those_of_the_up(var: Path) -> None:
    settings = Settings(data_dir=var)
    with single_instance(var):
        assert settings_of_running_instance(settings) == settings
        write_environment(var, PUBLISHED)
        assert _urls(settings_of_running_instance(settings)) == list(PUBLISHED.values())
    assert settings_of_running_instance(settings) == settings


def test_settings_that_name_a_server_keep_it_and_its_owner(var: Path) -> None:
    with single_instance(var):
        write_environment(var, PUBLISHED)
        given = Settings(data_dir=var, database_url="postgresql://mine")  # type: ignore[arg-type]
        assert _urls(settings_of_running_instance(given)) == [
            "postgresql://mine",
            None,
            PUBLISHED["KAFKA_BOOTSTRAP_SERVERS"],
        ]
        given = Settings(data_dir=var, migration_database_url="postgresql://mine")  # type: ignore[arg-type]
        assert _urls(settings_of_running_instance(given))[:2] == [
            PUBLISHED["DATABASE_URL"],
            "postgresql://mine",
        ]


def test_the_address_is_that_of_the_up_unless_one_is_given(
    var: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("API_PORT", raising=False)
    with single_instance(var):
        write_environment(var, {"API_HOST": "127.0.0.1", "API_PORT": "8951"})
        assert settings_of_running_instance(Settings(data_dir=var)).api_port == 8951
        assert settings_of_running_instance(Settings(data_dir=var, api_port=8000)).api_port == 8000


def test_the_state_of_a_dead_one_is_ignored(var: Path) -> None:
    with single_instance(var):
        write_environment(var, PUBLISHED)
        left = (var / "environment").read_text()
    (var / "environment").write_text(left)
    settings = Settings(data_dir=var)
    assert settings_of_running_instance(settings) == settings
    with single_instance(var):  # the check did not keep the lock
        pass


@pytest.fixture
def var(servers_root: Path, request: pytest.FixtureRequest) -> Path:
    """A data directory that servers of any account can reach."""
    folder = servers_root / request.node.name[:40]
    folder.mkdir()
    return folder


def _urls(settings: Settings) -> list[str | None]:
    given = (getattr(settings, name) for name in SETTINGS)
    return [each.get_secret_value() if hasattr(each, "get_secret_value") else each for each in given]
