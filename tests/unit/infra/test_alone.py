"""One `up` in a data directory, and what it tells the commands beside it."""

from pathlib import Path

import pytest

from infra.settings import Settings, WrongSetting
from infra.up.alone import AlreadyUp, alone_in, beside_up, tell

TOLD = {
    "DATABASE_URL": 'postgresql://app:it\'s "a" $secret@127.0.0.1:5432/ledger',
    "MIGRATION_DATABASE_URL": "host=/tmp user=owner",
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092",
}
SETTINGS = ("database_url", "migration_database_url", "kafka_bootstrap_servers")


@pytest.fixture(autouse=True)
def _no_servers_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name.upper(), raising=False)


def test_a_second_one_is_refused_until_the_first_has_left(tmp_path: Path) -> None:
    with alone_in(tmp_path), pytest.raises(AlreadyUp, match=str(tmp_path)), alone_in(tmp_path):
        pass
    with alone_in(tmp_path):
        pass


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(WrongSetting, match="cannot be used: Not a directory"), alone_in(file / "var"):
        pass


def test_settings_that_name_no_server_take_those_of_the_up(var: Path) -> None:
    settings = Settings(data_dir=var)
    with alone_in(var):
        assert beside_up(settings) == settings
        tell(var, TOLD)
        assert _urls(beside_up(settings)) == list(TOLD.values())
    assert beside_up(settings) == settings


def test_settings_that_name_a_server_keep_it_and_its_owner(var: Path) -> None:
    with alone_in(var):
        tell(var, TOLD)
        given = Settings(data_dir=var, database_url="postgresql://mine")  # type: ignore[arg-type]
        assert _urls(beside_up(given)) == ["postgresql://mine", None, TOLD["KAFKA_BOOTSTRAP_SERVERS"]]
        given = Settings(data_dir=var, migration_database_url="postgresql://mine")  # type: ignore[arg-type]
        assert _urls(beside_up(given))[:2] == [TOLD["DATABASE_URL"], "postgresql://mine"]


def test_the_address_is_that_of_the_up_unless_one_is_given(
    var: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("API_PORT", raising=False)
    with alone_in(var):
        tell(var, {"API_HOST": "127.0.0.1", "API_PORT": "8951"})
        assert beside_up(Settings(data_dir=var)).api_port == 8951
        assert beside_up(Settings(data_dir=var, api_port=8000)).api_port == 8000


def test_what_a_dead_one_left_is_not_believed(var: Path) -> None:
    with alone_in(var):
        tell(var, TOLD)
        left = (var / "environment").read_text()
    (var / "environment").write_text(left)
    settings = Settings(data_dir=var)
    assert beside_up(settings) == settings
    with alone_in(var):  # looking took no lock for good
        pass


@pytest.fixture
def var(servers_root: Path, request: pytest.FixtureRequest) -> Path:
    """A data directory that servers of any account could reach."""
    folder = servers_root / request.node.name[:40]
    folder.mkdir()
    return folder


def _urls(settings: Settings) -> list[str | None]:
    given = (getattr(settings, name) for name in SETTINGS)
    return [each.get_secret_value() if hasattr(each, "get_secret_value") else each for each in given]
