"""Variables that the library reads: what would change stored rows is refused, the others work."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from eventsourcing.application import Application
from eventsourcing.cipher import AESCipher
from eventsourcing.persistence import EventStore, InfrastructureFactoryError, Mapper

from domain.credits.events import GrantKind
from domain.credits.ledger import Ledger
from domain.credits.organisation_state import SNAPSHOT_EVERY
from domain.shared.command_context import CommandContext
from domain.shared.stream_keys import stream_id
from infra.event_store.library_settings import REFUSED_SETTINGS, UnsupportedSetting
from infra.event_store.recorder import event_store_of
from infra.service.composition import credits_of, open_ledger, usage_consumer
from infra.settings import InvalidSetting, Settings

ORG = "org-4711"
VALUES = {
    "CIPHER_TOPIC": "eventsourcing.cipher:AESCipher",
    "CIPHER_KEY": AESCipher.create_key(16),
    "COMPRESSOR_TOPIC": "eventsourcing.compressor:ZlibCompressor",
    "TRANSCODER_TOPIC": "eventsourcing.persistence:JSONTranscoder",
    "MAPPER_TOPIC": "eventsourcing.persistence:Mapper",
    "APPLICATION_RECORDER_TOPIC": "eventsourcing.postgres:PostgresApplicationRecorder",
    "PROCESS_RECORDER_TOPIC": "eventsourcing.postgres:PostgresProcessRecorder",
    "TRACKING_RECORDER_TOPIC": "eventsourcing.postgres:PostgresTrackingRecorder",
    "AGGREGATE_CACHE_MAXSIZE": "1000",
}
NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"
"""A refused setting is found before any connection is opened."""


def environment(conninfo: str, **more: str) -> dict[str, str]:
    factory = "infra.event_store.recorder:LedgerFactory"
    return {"PERSISTENCE_MODULE": factory, "DATABASE_URL": conninfo, **more}


def test_every_refused_setting_is_tried() -> None:
    assert VALUES.keys() == REFUSED_SETTINGS.keys()


@pytest.mark.parametrize("prefix", ["", "LEDGER_"])
@pytest.mark.parametrize("name", VALUES)
def test_a_setting_that_would_change_stored_rows_is_refused(name: str, prefix: str) -> None:
    with pytest.raises(UnsupportedSetting, match=f"^{name} is set") as refusal:
        Ledger(environment(NOWHERE, **{prefix + name: VALUES[name]}))
    assert REFUSED_SETTINGS[name] in str(refusal.value)
    assert isinstance(refusal.value, InfrastructureFactoryError)


def test_the_service_names_it_as_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIPHER_KEY", VALUES["CIPHER_KEY"])
    with pytest.raises(InvalidSetting, match="CIPHER_KEY is set"):
        open_ledger(NOWHERE)
    with pytest.raises(InvalidSetting, match="CIPHER_KEY is set"), usage_consumer(Settings(), NOWHERE):
        pytest.fail("the usage path would have stored plain rows")


def test_the_command_line_says_so_in_a_sentence(service_database: str) -> None:
    command = "-m infra.cli reconcile --gateway razorpay --from 2026-11-01 --to 2026-11-02"
    variables = {**os.environ, "DATABASE_URL": service_database, "COMPRESSOR_TOPIC": "zlib"}
    ended = subprocess.run(
        [sys.executable, *command.split()], env=variables, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("creditledger: COMPRESSOR_TOPIC is set")


def test_an_empty_setting_is_none(service_database: str) -> None:
    with Ledger(environment(service_database, **dict.fromkeys(VALUES, ""))) as ledger:
        assert ledger.recorder.max_notification_id() is None


def test_another_mapper_is_refused(service_database: str) -> None:
    with open_ledger(service_database) as ledger, pytest.raises(UnsupportedSetting, match="one mapper"):
        ledger.factory.mapper(mapper_class=Mapper)


def test_the_ledger_runs_on_no_other_persistence_module() -> None:
    with pytest.raises(AssertionError, match="PERSISTENCE_MODULE"):
        Ledger({"PERSISTENCE_MODULE": "eventsourcing.popo"})
    with pytest.raises(TypeError, match="not the event store on PostgreSQL"):
        event_store_of(Application({"PERSISTENCE_MODULE": "eventsourcing.popo"}))


@pytest.mark.parametrize("enabled", ["y", "n"])
def test_snapshots_may_be_switched_off(service_database: str, migrated_database: str, enabled: str) -> None:
    with Ledger(environment(service_database, IS_SNAPSHOTTING_ENABLED=enabled)) as ledger:
        now = CommandContext(datetime(2026, 7, 1, tzinfo=UTC), "u-1", "request-1")
        credits_of(ledger).commands.open_organisation(ORG, context=now, trial_credits=0)
        organisation = ledger.organisation(ORG)
        while organisation.version < SNAPSHOT_EVERY - 1:
            organisation.grant(1, GrantKind.ADMIN, "", now)
        ledger.save(organisation)
        credits_of(ledger).commands.grant(ORG, 1, kind=GrantKind.ADMIN, reason="", context=now)
        restored: Any = ledger.repository.get(stream_id(ORG))
        assert restored.balance == SNAPSHOT_EVERY - 1
    with psycopg.connect(migrated_database) as connection:
        kept = connection.execute("SELECT originator_version FROM ledger.snapshots").fetchall()
    assert kept == ([(SNAPSHOT_EVERY,)] if enabled == "y" else [])


def test_event_stores_of_the_factory(service_database: str) -> None:
    with open_ledger(service_database) as ledger:
        assert type(ledger.factory.event_store()) is type(ledger.events)
        assert type(ledger.snapshots) is EventStore
