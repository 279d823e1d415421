"""Allows one `up` per data directory, and gives other commands the addresses of its servers."""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from infra.embedded.files import FileLock, write_atomically
from infra.settings import InvalidSetting, Settings
from infra.up.servers import reachable_data_dir

_LOCK: Final = "up.lock"
_ENVIRONMENT: Final = "environment"
_GATEWAY_VARIABLES: Final = ("RAZORPAY_", "PAYGLOCAL_")
_LOCK_TIMEOUT_S: Final = 0.5

log = logging.getLogger("creditledger")


class AlreadyRunning(Exception):
    """Another `up` runs in the data directory."""


@contextmanager
def single_instance(data_dir: Path) -> Iterator[None]:
    """Hold the lock of a data directory. The kernel releases the lock when the process ends.

    Raises:
        AlreadyRunning: another `up` holds the lock.
        InvalidSetting: the directory cannot be used.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(data_dir / _LOCK)
        # A command that checks for a running `up` holds the lock for a moment.
        deadline = time.monotonic() + _LOCK_TIMEOUT_S
        while not lock.try_acquire():
            if time.monotonic() > deadline:
                raise AlreadyRunning(
                    f"another `creditledger up` runs in {data_dir}: stop it first,"
                    " or set another DATA_DIR and API_PORT"
                )
            time.sleep(0.02)
    except OSError as error:
        raise InvalidSetting(f"DATA_DIR: {data_dir} cannot be used: {error.strerror}") from error
    try:
        yield
    finally:
        (data_dir / _ENVIRONMENT).unlink(missing_ok=True)
        lock.release()


def write_environment(data_dir: Path, environment: Mapping[str, str]) -> None:
    """Write the settings of the parts to a file in shell syntax. Only the current user can read it."""
    lines = (f"{name}={shlex.quote(value)}\n" for name, value in sorted(environment.items()))
    write_atomically(data_dir / _ENVIRONMENT, "".join(lines))


def settings_of_running_instance(settings: Settings) -> Settings:
    """Return the settings, with missing servers taken from the `up` that runs in the data directory."""
    data_dir = reachable_data_dir(settings.data_dir.resolve())
    running = _read_environment(data_dir)
    taken: dict[str, object] = {}
    if settings.database_url is None and "DATABASE_URL" in running:
        taken["database_url"] = SecretStr(running["DATABASE_URL"])
        if settings.migration_database_url is None and "MIGRATION_DATABASE_URL" in running:
            taken["migration_database_url"] = SecretStr(running["MIGRATION_DATABASE_URL"])
    if settings.kafka_bootstrap_servers is None and "KAFKA_BOOTSTRAP_SERVERS" in running:
        taken["kafka_bootstrap_servers"] = running["KAFKA_BOOTSTRAP_SERVERS"]
    if settings.oidc_issuer is None and settings.embedded_issuer_keys is None:
        keys = running.get("EMBEDDED_ISSUER_KEYS")
        taken |= {"embedded_issuer_keys": Path(keys)} if keys else {}
    for name in ("api_host", "api_port"):
        if name not in settings.model_fields_set and name.upper() in running:
            taken[name] = type(getattr(settings, name))(running[name.upper()])
    if not settings.names_gateway:
        given = {
            name.lower(): value for name, value in running.items() if name.startswith(_GATEWAY_VARIABLES)
        }
        parsed = Settings.model_validate(given)
        taken |= {name: getattr(parsed, name) for name in given}
    if taken:
        log.info("using the servers of the `up` that runs in %s", data_dir)
    return settings.model_copy(update=taken)


def _read_environment(data_dir: Path) -> dict[str, str]:
    try:
        text = (data_dir / _ENVIRONMENT).read_text(encoding="utf-8")
        lock = FileLock(data_dir / _LOCK)
        if lock.try_acquire():  # the `up` that wrote the file was killed
            lock.release()
            return {}
    except OSError:
        return {}
    return dict(word.split("=", 1) for word in shlex.split(text))
