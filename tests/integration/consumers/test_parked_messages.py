"""Messages of organisations that are not open yet: kept beside the position, charged once it opens."""

from __future__ import annotations

from threading import Thread
from typing import Any

import pytest

from consumers.usage import UsageIngest
from domain.errors import DeadLettersUnavailable
from domain.facts import Request
from tests.integration.consumers.hooks import once
from tests.integration.consumers.lab import START, Lab, Partition
from tests.unit.consumers.records import Header, KafkaRecord, as_json, binary, usage_event, usage_record

CONFLICT = "a message of this source and id says something else"
EXPIRED = "no organisation of this id opened within seven days"


def feed(ingest: UsageIngest, partition: Partition, *records: KafkaRecord) -> None:
    partition.add(*records)
    ingest.submit(*partition.next())
    ingest.flush()


def test_messages_of_an_unknown_organisation_wait_for_it(lab: Lab) -> None:
    lab.open("org-1")
    partition, ingest = lab.partition(), lab.ingest()
    feed(
        ingest, partition, usage_record("a", "new", 30), usage_record("b", "org-1"), usage_record("c", "new")
    )
    assert lab.charged_ids() == ["b"]
    assert lab.parked() == [(0, 0), (0, 2)]
    assert lab.position(partition) == 3
    assert ingest.counts.parked == 2
    assert ingest.charge_parked() == 0

    lab.open("new", trial_credits=200)
    assert ingest.charge_parked() == 2
    assert lab.charged_ids() == ["b", "a", "c"]
    assert lab.books().balances["new"] == 169
    assert lab.parked() == []
    assert ingest.charge_parked() == 0


def test_parked_messages_survive_a_restart(lab: Lab) -> None:
    partition = lab.partition()
    feed(lab.ingest(), partition, usage_record("a", "new"))
    lab.open("new")
    assert lab.ingest().charge_parked() == 1
    assert lab.charged_ids() == ["a"]


def test_no_memory_of_an_unknown_organisation_is_kept(lab: Lab) -> None:
    partition, ingest = lab.partition(), lab.ingest()
    feed(ingest, partition, usage_record("a", "new"))
    lab.open("new")
    feed(ingest, partition, usage_record("b", "new"))
    assert lab.charged_ids() == ["b"]
    ingest.charge_parked()
    assert lab.charged_ids() == ["b", "a"]


STEPS = [
    *("before log_end", "after log_end", "before load", "after load"),
    *("before rows", "after rows", "before parked", "after parked", "before begin"),
]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("known_beside", [False, True])
def test_an_organisation_that_opens_meanwhile_is_charged(lab: Lab, step: str, known_beside: bool) -> None:
    lab.open("org-1")
    partition = lab.partition()
    ingest = lab.ingest(hook=once(step, lambda: lab.open("new")))
    beside = [usage_record("b", "org-1")] if known_beside else []
    feed(ingest, partition, usage_record("a", "new", 30), *beside)
    assert set(lab.charged_ids()) == ({"a", "b"} if known_beside else {"a"})
    assert lab.parked() == []
    assert lab.letters.safe == []


def test_an_organisation_that_opens_after_the_lock_is_taken_finds_its_messages_parked(lab: Lab) -> None:
    openers: list[Thread] = []

    def open_beside() -> None:
        openers.append(Thread(target=lab.open, args=("new",)))
        openers[0].start()

    partition = lab.partition()
    ingest = lab.ingest(hook=once("after begin", open_beside))
    feed(ingest, partition, usage_record("a", "new"))
    openers[0].join(10)
    assert lab.parked() == [(0, 0)]
    assert ingest.charge_parked() == 1
    assert lab.charged_ids() == ["a"]


@pytest.mark.parametrize("step", ["before parked_for_known", "after parked_for_known", "before begin"])
def test_an_organisation_that_opens_while_parked_ones_are_looked_through(lab: Lab, step: str) -> None:
    partition = lab.partition()
    feed(lab.ingest(), partition, usage_record("a", "new"), usage_record("b", "known"))
    lab.open("known")
    ingest = lab.ingest(hook=once(step, lambda: lab.open("new")))
    ingest.charge_parked()
    ingest.charge_parked()
    assert sorted(lab.charged_ids()) == ["a", "b"]


# ------------------------------------------------------------------------------- repeats and conflicts


def test_a_repeat_of_a_parked_message_is_parked_once(lab: Lab) -> None:
    partition, ingest = lab.partition(), lab.ingest()
    feed(ingest, partition, usage_record("a", "new"), usage_record("a", "new"))
    feed(ingest, partition, usage_record("a", "new"))
    partition.add(usage_record("b", "new"), usage_record("a", "new"), usage_record("b", "new"))
    ingest.submit(*partition.next(1))
    ingest.submit(*partition.next())  # behind the batch that parks b
    ingest.flush()
    assert lab.parked() == [(0, 0), (0, 3)]
    assert ingest.counts.repeats == 4
    assert lab.position(partition) == 6
    assert lab.letters.safe == []


def test_a_conflict_with_a_parked_message_is_a_dead_letter(lab: Lab) -> None:
    partition, ingest = lab.partition(), lab.ingest()
    feed(ingest, partition, usage_record("a", "new", 1))
    feed(ingest, partition, usage_record("a", "new", 2), usage_record("a", "other", 1))
    assert lab.parked() == [(0, 0)]
    assert lab.letters.reasons() == {(0, 1): CONFLICT, (0, 2): CONFLICT}


def test_what_is_parked_decides_which_of_two_bodies_is_wrong(lab: Lab) -> None:
    partition, ingest = lab.partition(), lab.ingest()
    feed(ingest, partition, usage_record("a", "new", 1))
    wrong = usage_record("a", "new", 2)
    feed(ingest, partition, wrong, usage_record("a", "new", 1), wrong)
    assert lab.parked() == [(0, 0)]
    assert set(lab.letters.reasons()) == {(0, 1), (0, 3)}


def test_a_repeat_that_arrives_after_the_opening_is_charged_once(lab: Lab) -> None:
    partition, ingest = lab.partition(), lab.ingest()
    feed(ingest, partition, usage_record("a", "new", 4))
    lab.open("new")
    feed(ingest, partition, usage_record("a", "new", 4))
    assert ingest.charge_parked() == 1
    assert lab.charged_ids() == ["a"]
    assert lab.parked() == []
    assert lab.letters.safe == []


def test_a_parked_message_that_says_something_else_than_the_ledger_is_a_dead_letter(lab: Lab) -> None:
    lab.open("org-1")
    partition, ingest = lab.partition(), lab.ingest()
    record = usage_record("a", "new", 4)
    feed(ingest, partition, usage_record("a", "org-1", 4), usage_record("b", "org-1"), record)
    # In one batch the conflict is seen at once; parked on its own it is when its organisation opens.
    assert lab.letters.reasons() == {(0, 2): CONFLICT}
    feed(lab.ingest(), partition, record)
    assert lab.parked() == [(0, 3)]
    lab.open("new")
    assert ingest.charge_parked() == 1
    assert lab.letters.reasons() == {(0, 2): CONFLICT, (0, 3): CONFLICT}
    assert lab.charged_ids() == ["a", "b"]
    assert lab.parked() == []


# ---------------------------------------------------------------------------------------------- expiry


HEADERS: list[Header] = [("x-raw", b"\xff\x00"), ("empty", b""), ("x-raw", b"again")]


@pytest.mark.parametrize("mode", ["structured", "binary"])
def test_after_seven_days_the_record_goes_to_the_dead_letters_as_it_came(lab: Lab, mode: str) -> None:
    event = usage_event({"id": "a", "subject": "never", "data.event.name": "Mühlenlauf"})
    record = binary(event) if mode == "binary" else usage_record("a", "never")
    record = record._replace(headers=record.headers + HEADERS)
    partition, ingest = lab.partition(number=3), lab.ingest()
    feed(ingest, partition, usage_record("early", "never"), record)
    lab.wait_days(6.9)
    feed(ingest, partition, usage_record("late", "never"))
    assert ingest.expire_parked() == 0
    assert lab.parked() == [(3, 0), (3, 1), (3, 2)]

    lab.wait_days(0.2)
    assert ingest.expire_parked() == 2
    assert ingest.expire_parked() == 0
    assert lab.parked() == [(3, 2)]
    letter = next(letter for letter in lab.letters.safe if letter.record_offset == 1)
    assert (letter.reason, letter.field) == (EXPIRED, "subject")
    assert (letter.topic, letter.partition) == (partition.topic, 3)
    assert (letter.record_key, letter.record_value) == (record.key, record.value)
    assert list(letter.record_headers) == record.headers
    assert letter.rejected_at == lab.now


def test_a_header_without_a_value_does_not_get_in_the_way(lab: Lab) -> None:
    partition, ingest = lab.partition(), lab.ingest()
    record = usage_record("a", "new")._replace(headers=[("x-null", None)])
    other = record._replace(key=b"other", value=as_json(usage_event({"id": "b", "subject": "other"})))
    feed(ingest, partition, record, other)
    lab.open("new")
    assert ingest.charge_parked() == 1
    lab.wait_days(8)
    assert ingest.expire_parked() == 1
    assert list(lab.letters.safe[0].record_headers) == [("x-null", b"")]


def test_an_expired_message_that_comes_again_waits_again(lab: Lab) -> None:
    partition, ingest = lab.partition(), lab.ingest()
    feed(ingest, partition, usage_record("a", "new"))
    lab.wait_days(8)
    assert ingest.expire_parked() == 1
    feed(ingest, partition, usage_record("a", "new"))
    lab.open("new")
    assert ingest.charge_parked() == 1
    assert lab.charged_ids() == ["a"]


def test_nothing_expires_whose_organisation_has_opened(lab: Lab) -> None:
    """The consumer was down for a week, and more was parked than one look takes."""
    partition = lab.partition()
    feed(lab.ingest(), partition, *[usage_record(f"a-{number}", "new") for number in range(5)])
    lab.open("new")
    lab.wait_days(8)
    ingest = lab.ingest()
    settled = []
    while lab.parked():
        settled.append(ingest.charge_parked(limit=2))
        assert ingest.expire_parked(limit=2) == 0
    assert settled == [2, 2, 1]
    assert lab.letters.safe == []
    assert len(lab.charged_ids()) == 5


def test_nothing_expires_without_its_letter(lab: Lab) -> None:
    partition, ingest = lab.partition(), lab.ingest()
    feed(ingest, partition, usage_record("a", "never"))
    lab.wait_days(8)
    lab.letters.available = False
    with pytest.raises(DeadLettersUnavailable):
        ingest.expire_parked()
    ingest.reset()
    assert lab.parked() == [(0, 0)]
    lab.letters.available = True
    assert ingest.expire_parked() == 1


def test_two_consumers_settle_a_parked_message_once(lab: Lab) -> None:
    partition = lab.partition()
    feed(lab.ingest(), partition, usage_record("a", "new"), usage_record("b", "never"))
    lab.open("new")
    first = lab.ingest()

    def settle_first() -> None:
        assert first.charge_parked() == 1

    second = lab.ingest(hook=once("before begin", settle_first))
    assert second.charge_parked() == 0
    assert lab.charged_ids() == ["a"]
    assert second.counts.repeats == 0

    lab.wait_days(8)
    second = lab.ingest(hook=once("before begin", first.expire_parked))
    assert second.expire_parked() == 0
    assert {letter.record_offset for letter in lab.letters.safe} == {1}
    assert lab.parked() == []


def test_parked_messages_are_charged_in_order_and_in_parts(lab: Lab) -> None:
    partitions, ingest = [lab.partition(0), lab.partition(1)], lab.ingest()
    for number in range(3):
        for partition in reversed(partitions):
            feed(ingest, partition, usage_record(f"{number}-{partition.number}", "new"))
        lab.wait_days(0.1)
    lab.open("new")
    assert [ingest.charge_parked(limit=4) for _ in range(3)] == [4, 2, 0]
    assert lab.charged_ids() == ["0-0", "0-1", "1-0", "1-1", "2-0", "2-1"]


def test_a_charge_of_a_parked_message_says_when_it_happened_and_when_it_was_recorded(lab: Lab) -> None:
    partition, ingest = lab.partition(), lab.ingest()
    feed(ingest, partition, usage_record("a", "new"))
    lab.wait_days(3)
    lab.ledger.open_organisation("new", request=Request(lab.now, None, "r"), time_zone="Asia/Kolkata")
    ingest.charge_parked()
    fact: Any = list(lab.ledger.events.get(lab.ledger.organisation("new").id))[-1].fact
    assert fact.recorded_at == lab.now != START
    assert fact.occurred_at.isoformat() == "2026-11-22T09:15:00+00:00"


@pytest.mark.parametrize("photos", [30, 150])
def test_the_parked_message_came_first_even_if_another_comes_before_it_is_charged(
    lab: Lab, photos: int
) -> None:
    partition, ingest = lab.partition(), lab.ingest()
    feed(ingest, partition, usage_record("a", "new", 30))
    lab.open("new", trial_credits=200)
    feed(ingest, partition, usage_record("a", "new", photos), usage_record("b", "new", 1))
    ingest.charge_parked()
    assert lab.books().balances["new"] == 200 - 30 - 1
    assert sorted(lab.charged_ids()) == ["a", "b"]
    assert ingest.counts.repeats == (1 if photos == 30 else 0)
    assert ingest.counts.conflicts == (0 if photos == 30 else 1)


def test_one_identity_parked_by_two_consumers_is_parked_once_and_refused_once(lab: Lab) -> None:
    left, right = lab.partition(0), lab.partition(1)
    other = lab.ingest()

    def park_the_other() -> None:
        feed(other, right, usage_record("a", "right", 30))

    ingest = lab.ingest(hook=once("before begin", park_the_other))
    feed(ingest, left, usage_record("a", "left", 30))
    assert other.counts.parked == 1
    assert ingest.counts.parked == 0
    assert ingest.counts.conflicts == 1
    assert lab.position(left) == 1
