"""Messages of organisations that are not open yet: parked with the position move, and charged after the
opening.
"""

from __future__ import annotations

from threading import Thread
from typing import Any

import pytest

from consumers.usage.ingest import UsageIngest
from domain.shared.command_context import CommandContext
from domain.shared.errors import DeadLettersUnavailable
from infra.service.composition import credits_of
from tests.integration.consumers.call_interceptor import call_once
from tests.integration.consumers.ingest_environment import START, IngestEnvironment, Partition
from tests.unit.usage.records import Header, KafkaRecord, as_json, binary, usage_event, usage_record

CONFLICT = "a message with this source and id has different content"
EXPIRED = "no organisation with this id opened within seven days"


def feed(ingest: UsageIngest, partition: Partition, *records: KafkaRecord) -> None:
    partition.add(*records)
    ingest.submit(*partition.next())
    ingest.flush()


def test_messages_of_an_unknown_organisation_wait_for_it(ingest_env: IngestEnvironment) -> None:
    ingest_env.open("org-1")
    partition, ingest = ingest_env.partition(), ingest_env.ingest()
    feed(
        ingest, partition, usage_record("a", "new", 30), usage_record("b", "org-1"), usage_record("c", "new")
    )
    assert ingest_env.charged_ids() == ["b"]
    assert ingest_env.parked() == [(0, 0), (0, 2)]
    assert ingest_env.position(partition) == 3
    assert ingest.counts.parked == 2
    assert ingest.charge_parked() == 0

    ingest_env.open("new", trial_credits=200)
    assert ingest.charge_parked() == 2
    assert ingest_env.charged_ids() == ["b", "a", "c"]
    assert ingest_env.recounted().balances["new"] == 169
    assert ingest_env.parked() == []
    assert ingest.charge_parked() == 0


def test_parked_messages_survive_a_restart(ingest_env: IngestEnvironment) -> None:
    partition = ingest_env.partition()
    feed(ingest_env.ingest(), partition, usage_record("a", "new"))
    ingest_env.open("new")
    assert ingest_env.ingest().charge_parked() == 1
    assert ingest_env.charged_ids() == ["a"]


def test_unknown_organisations_are_not_cached(ingest_env: IngestEnvironment) -> None:
    partition, ingest = ingest_env.partition(), ingest_env.ingest()
    feed(ingest, partition, usage_record("a", "new"))
    ingest_env.open("new")
    feed(ingest, partition, usage_record("b", "new"))
    assert ingest_env.charged_ids() == ["b"]
    ingest.charge_parked()
    assert ingest_env.charged_ids() == ["b", "a"]


STEPS = [
    *("before log_end", "after log_end", "before load", "after load"),
    *("before rows", "after rows", "before parked", "after parked", "before begin"),
]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("known_beside", [False, True])
def test_an_organisation_that_opens_during_a_batch_is_charged(
    ingest_env: IngestEnvironment, step: str, known_beside: bool
) -> None:
    ingest_env.open("org-1")
    partition = ingest_env.partition()
    ingest = ingest_env.ingest(hook=call_once(step, lambda: ingest_env.open("new")))
    others = [usage_record("b", "org-1")] if known_beside else []
    feed(ingest, partition, usage_record("a", "new", 30), *others)
    assert set(ingest_env.charged_ids()) == ({"a", "b"} if known_beside else {"a"})
    assert ingest_env.parked() == []
    assert ingest_env.letters.safe == []


def test_an_organisation_that_opens_after_the_lock_is_taken_finds_its_messages_parked(
    ingest_env: IngestEnvironment,
) -> None:
    openers: list[Thread] = []

    def open_concurrently() -> None:
        openers.append(Thread(target=ingest_env.open, args=("new",)))
        openers[0].start()

    partition = ingest_env.partition()
    ingest = ingest_env.ingest(hook=call_once("after begin", open_concurrently))
    feed(ingest, partition, usage_record("a", "new"))
    openers[0].join(10)
    assert ingest_env.parked() == [(0, 0)]
    assert ingest.charge_parked() == 1
    assert ingest_env.charged_ids() == ["a"]


@pytest.mark.parametrize(
    "step", ["before parked_with_open_organisation", "after parked_with_open_organisation", "before begin"]
)
def test_an_organisation_that_opens_while_parked_messages_are_read(
    ingest_env: IngestEnvironment, step: str
) -> None:
    partition = ingest_env.partition()
    feed(ingest_env.ingest(), partition, usage_record("a", "new"), usage_record("b", "known"))
    ingest_env.open("known")
    ingest = ingest_env.ingest(hook=call_once(step, lambda: ingest_env.open("new")))
    ingest.charge_parked()
    ingest.charge_parked()
    assert sorted(ingest_env.charged_ids()) == ["a", "b"]


# ------------------------------------------------------------------------------- repeats and conflicts


def test_a_repeat_of_a_parked_message_is_parked_once(ingest_env: IngestEnvironment) -> None:
    partition, ingest = ingest_env.partition(), ingest_env.ingest()
    feed(ingest, partition, usage_record("a", "new"), usage_record("a", "new"))
    feed(ingest, partition, usage_record("a", "new"))
    partition.add(usage_record("b", "new"), usage_record("a", "new"), usage_record("b", "new"))
    ingest.submit(*partition.next(1))
    ingest.submit(*partition.next())  # after the batch that parks b
    ingest.flush()
    assert ingest_env.parked() == [(0, 0), (0, 3)]
    assert ingest.counts.repeats == 4
    assert ingest_env.position(partition) == 6
    assert ingest_env.letters.safe == []


def test_a_conflict_with_a_parked_message_is_a_dead_letter(ingest_env: IngestEnvironment) -> None:
    partition, ingest = ingest_env.partition(), ingest_env.ingest()
    feed(ingest, partition, usage_record("a", "new", 1))
    feed(ingest, partition, usage_record("a", "new", 2), usage_record("a", "other", 1))
    assert ingest_env.parked() == [(0, 0)]
    assert ingest_env.letters.reasons() == {(0, 1): CONFLICT, (0, 2): CONFLICT}


def test_the_parked_body_wins_against_another_body(ingest_env: IngestEnvironment) -> None:
    partition, ingest = ingest_env.partition(), ingest_env.ingest()
    feed(ingest, partition, usage_record("a", "new", 1))
    wrong = usage_record("a", "new", 2)
    feed(ingest, partition, wrong, usage_record("a", "new", 1), wrong)
    assert ingest_env.parked() == [(0, 0)]
    assert set(ingest_env.letters.reasons()) == {(0, 1), (0, 3)}


def test_a_repeat_that_arrives_after_the_opening_is_charged_once(ingest_env: IngestEnvironment) -> None:
    partition, ingest = ingest_env.partition(), ingest_env.ingest()
    feed(ingest, partition, usage_record("a", "new", 4))
    ingest_env.open("new")
    feed(ingest, partition, usage_record("a", "new", 4))
    assert ingest.charge_parked() == 1
    assert ingest_env.charged_ids() == ["a"]
    assert ingest_env.parked() == []
    assert ingest_env.letters.safe == []


def test_a_parked_message_that_conflicts_with_the_ledger_is_a_dead_letter(
    ingest_env: IngestEnvironment,
) -> None:
    ingest_env.open("org-1")
    partition, ingest = ingest_env.partition(), ingest_env.ingest()
    record = usage_record("a", "new", 4)
    feed(ingest, partition, usage_record("a", "org-1", 4), usage_record("b", "org-1"), record)
    # In one batch the conflict is found immediately; if parked alone, it is found when its organisation
    # opens.
    assert ingest_env.letters.reasons() == {(0, 2): CONFLICT}
    feed(ingest_env.ingest(), partition, record)
    assert ingest_env.parked() == [(0, 3)]
    ingest_env.open("new")
    assert ingest.charge_parked() == 1
    assert ingest_env.letters.reasons() == {(0, 2): CONFLICT, (0, 3): CONFLICT}
    assert ingest_env.charged_ids() == ["a", "b"]
    assert ingest_env.parked() == []


# ---------------------------------------------------------------------------------------------- expiry


HEADERS: list[Header] = [("x-raw", b"\xff\x00"), ("empty", b""), ("x-raw", b"again")]


@pytest.mark.parametrize("mode", ["structured", "binary"])
def test_after_seven_days_the_unchanged_record_is_a_dead_letter(
    ingest_env: IngestEnvironment, mode: str
) -> None:
    envelope = usage_event({"id": "a", "subject": "never", "data.event.name": "Mühlenlauf"})
    record = binary(envelope) if mode == "binary" else usage_record("a", "never")
    record = record._replace(headers=record.headers + HEADERS)
    partition, ingest = ingest_env.partition(number=3), ingest_env.ingest()
    feed(ingest, partition, usage_record("early", "never"), record)
    ingest_env.wait_days(6.9)
    feed(ingest, partition, usage_record("late", "never"))
    assert ingest.expire_parked() == 0
    assert ingest_env.parked() == [(3, 0), (3, 1), (3, 2)]

    ingest_env.wait_days(0.2)
    assert ingest.expire_parked() == 2
    assert ingest.expire_parked() == 0
    assert ingest_env.parked() == [(3, 2)]
    letter = next(letter for letter in ingest_env.letters.safe if letter.record_offset == 1)
    assert (letter.reason, letter.field) == (EXPIRED, "subject")
    assert (letter.topic, letter.partition) == (partition.topic, 3)
    assert (letter.record_key, letter.record_value) == (record.key, record.value)
    assert list(letter.record_headers) == record.headers
    assert letter.rejected_at == ingest_env.now


def test_a_header_without_a_value_is_kept(ingest_env: IngestEnvironment) -> None:
    partition, ingest = ingest_env.partition(), ingest_env.ingest()
    record = usage_record("a", "new")._replace(headers=[("x-null", None)])
    other = record._replace(key=b"other", value=as_json(usage_event({"id": "b", "subject": "other"})))
    feed(ingest, partition, record, other)
    ingest_env.open("new")
    assert ingest.charge_parked() == 1
    ingest_env.wait_days(8)
    assert ingest.expire_parked() == 1
    assert list(ingest_env.letters.safe[0].record_headers) == [("x-null", b"")]


def test_an_expired_message_that_is_repeated_is_parked_again(ingest_env: IngestEnvironment) -> None:
    partition, ingest = ingest_env.partition(), ingest_env.ingest()
    feed(ingest, partition, usage_record("a", "new"))
    ingest_env.wait_days(8)
    assert ingest.expire_parked() == 1
    feed(ingest, partition, usage_record("a", "new"))
    ingest_env.open("new")
    assert ingest.charge_parked() == 1
    assert ingest_env.charged_ids() == ["a"]


def test_messages_of_an_open_organisation_do_not_expire(ingest_env: IngestEnvironment) -> None:
    """The consumer was down for a week, and more messages were parked than one batch has."""
    partition = ingest_env.partition()
    feed(ingest_env.ingest(), partition, *[usage_record(f"a-{number}", "new") for number in range(5)])
    ingest_env.open("new")
    ingest_env.wait_days(8)
    ingest = ingest_env.ingest()
    settled = []
    while ingest_env.parked():
        settled.append(ingest.charge_parked(limit=2))
        assert ingest.expire_parked(limit=2) == 0
    assert settled == [2, 2, 1]
    assert ingest_env.letters.safe == []
    assert len(ingest_env.charged_ids()) == 5


def test_nothing_expires_without_its_dead_letter(ingest_env: IngestEnvironment) -> None:
    partition, ingest = ingest_env.partition(), ingest_env.ingest()
    feed(ingest, partition, usage_record("a", "never"))
    ingest_env.wait_days(8)
    ingest_env.letters.available = False
    with pytest.raises(DeadLettersUnavailable):
        ingest.expire_parked()
    ingest.reset()
    assert ingest_env.parked() == [(0, 0)]
    ingest_env.letters.available = True
    assert ingest.expire_parked() == 1


def test_two_consumers_settle_a_parked_message_once(ingest_env: IngestEnvironment) -> None:
    partition = ingest_env.partition()
    feed(ingest_env.ingest(), partition, usage_record("a", "new"), usage_record("b", "never"))
    ingest_env.open("new")
    first = ingest_env.ingest()

    def settle_first() -> None:
        assert first.charge_parked() == 1

    second = ingest_env.ingest(hook=call_once("before begin", settle_first))
    assert second.charge_parked() == 0
    assert ingest_env.charged_ids() == ["a"]
    assert second.counts.repeats == 0

    ingest_env.wait_days(8)
    second = ingest_env.ingest(hook=call_once("before begin", first.expire_parked))
    assert second.expire_parked() == 0
    assert {letter.record_offset for letter in ingest_env.letters.safe} == {1}
    assert ingest_env.parked() == []


def test_parked_messages_are_charged_in_order_and_in_parts(ingest_env: IngestEnvironment) -> None:
    partitions, ingest = [ingest_env.partition(0), ingest_env.partition(1)], ingest_env.ingest()
    for number in range(3):
        for partition in reversed(partitions):
            feed(ingest, partition, usage_record(f"{number}-{partition.number}", "new"))
        ingest_env.wait_days(0.1)
    ingest_env.open("new")
    assert [ingest.charge_parked(limit=4) for _ in range(3)] == [4, 2, 0]
    assert ingest_env.charged_ids() == ["0-0", "0-1", "1-0", "1-1", "2-0", "2-1"]


def test_a_charge_of_a_parked_message_has_both_times(
    ingest_env: IngestEnvironment,
) -> None:
    partition, ingest = ingest_env.partition(), ingest_env.ingest()
    feed(ingest, partition, usage_record("a", "new"))
    ingest_env.wait_days(3)
    credits_of(ingest_env.ledger).commands.open_organisation(
        "new", context=CommandContext(ingest_env.now, None, "r"), time_zone="Asia/Kolkata"
    )
    ingest.charge_parked()
    event: Any = list(ingest_env.ledger.events.get(ingest_env.ledger.organisation("new").id))[-1].event
    assert event.recorded_at == ingest_env.now != START
    assert event.occurred_at.isoformat() == "2026-11-22T09:15:00+00:00"


@pytest.mark.parametrize("photos", [30, 150])
def test_a_parked_message_counts_before_a_later_one(ingest_env: IngestEnvironment, photos: int) -> None:
    partition, ingest = ingest_env.partition(), ingest_env.ingest()
    feed(ingest, partition, usage_record("a", "new", 30))
    ingest_env.open("new", trial_credits=200)
    feed(ingest, partition, usage_record("a", "new", photos), usage_record("b", "new", 1))
    ingest.charge_parked()
    assert ingest_env.recounted().balances["new"] == 200 - 30 - 1
    assert sorted(ingest_env.charged_ids()) == ["a", "b"]
    assert ingest.counts.repeats == (1 if photos == 30 else 0)
    assert ingest.counts.conflicts == (0 if photos == 30 else 1)


def test_one_identity_parked_by_two_consumers_is_parked_once_and_refused_once(
    ingest_env: IngestEnvironment,
) -> None:
    left, right = ingest_env.partition(0), ingest_env.partition(1)
    other = ingest_env.ingest()

    def park_the_other() -> None:
        feed(other, right, usage_record("a", "right", 30))

    ingest = ingest_env.ingest(hook=call_once("before begin", park_the_other))
    feed(ingest, left, usage_record("a", "left", 30))
    assert other.counts.parked == 1
    assert ingest.counts.parked == 0
    assert ingest.counts.conflicts == 1
    assert ingest_env.position(left) == 1
