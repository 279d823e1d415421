"""Settings of the eventsourcing library that the ledger refuses, instead of ignoring them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from eventsourcing.persistence import InfrastructureFactoryError
from eventsourcing.utils import Environment

_READ_BY_SQL: Final = (
    "projections, the publisher, seals and audits read the rows of ledger.events as they are stored"
)
_ONE_CODEC: Final = "the event catalogue decides how events are stored, on every path"
_ONE_RECORDER: Final = "every writer of the log takes the same lock and sends the same notification"

REFUSED_SETTINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "CIPHER_TOPIC": f"{_READ_BY_SQL}; encrypt the disk and the connections instead",
        "CIPHER_KEY": f"{_READ_BY_SQL}; encrypt the disk and the connections instead",
        "COMPRESSOR_TOPIC": f"{_READ_BY_SQL}; PostgreSQL compresses large values itself",
        "TRANSCODER_TOPIC": _ONE_CODEC,
        "MAPPER_TOPIC": _ONE_CODEC,
        "APPLICATION_RECORDER_TOPIC": _ONE_RECORDER,
        "PROCESS_RECORDER_TOPIC": _ONE_RECORDER,
        "TRACKING_RECORDER_TOPIC": _ONE_RECORDER,
        "AGGREGATE_CACHE_MAXSIZE": "a cache would keep what a transaction read before it was rolled back",
    }
)
"""Variables by name, with the reason. The library also accepts each name with the prefix `LEDGER_`."""


class UnsupportedSetting(InfrastructureFactoryError):
    """The environment sets a variable of the library that the ledger refuses. The message says why."""


def check_settings(env: Environment) -> None:
    """Check that no refused variable is set. As in the library, an empty variable counts as not set.

    Raises:
        UnsupportedSetting: a refused variable is set. The message names it and gives the reason.
    """
    for name, reason in REFUSED_SETTINGS.items():
        if env.get(name):
            raise UnsupportedSetting(f"{name} is set, and the ledger cannot follow it: {reason}")
