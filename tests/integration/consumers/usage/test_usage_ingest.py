"""Usage ingest into a real ledger: each message counts once, and the position moves past all records."""

from __future__ import annotations

from typing import Any

import pytest

from consumers.usage.ingest import UsageIngest
from domain.credits.organisation_state import SNAPSHOT_EVERY
from domain.shared.errors import DeadLettersUnavailable
from domain.shared.stream_keys import stream_id
from infra.event_store.replay import replay_log
from tests.integration.consumers.ingest_environment import IngestEnvironment, Partition
from tests.unit.usage.records import KafkaRecord, binary, usage_event, usage_record

CONFLICT = "a message with this source and id has different content"


def feed(ingest: UsageIngest, partition: Partition, *records: KafkaRecord) -> None:
    partition.add(*records)
    ingest.submit(*partition.next())


def test_a_batch_is_charged_and_the_position_moved(ingest_env: IngestEnvironment) -> None:
    ingest_env.open("org-1", "org-2")
    partition, ingest = ingest_env.partition(), ingest_env.ingest()
    feed(
        ingest,
        partition,
        usage_record("a", "org-1", 30),
        usage_record("b", "org-2", 7, {"data.usage_type": "store_originals"}),
        binary(usage_event({"id": "c", "subject": "org-1", "data.photos": 75})),
        usage_record("d", "org-2", 15, {"data.usage_type": "watermark_reprocess"}),
        usage_record("e", "org-2", 5, {"data.ai_search": False}),
    )
    ingest.flush()
    recounted = ingest_env.recounted()
    assert [(c.identity[1], c.organisation_id, c.credits) for c in recounted.charges] == [
        ("a", "org-1", 30),
        ("c", "org-1", 75),
        ("b", "org-2", 0),
        ("d", "org-2", 2),
        ("e", "org-2", 0),
    ]
    assert recounted.balances == {"org-1": -5, "org-2": 98}
    assert ingest_env.position(partition) == 5
    assert (ingest.counts.records, ingest.counts.charges, ingest.counts.batches) == (5, 5, 1)


def test_one_transaction_moves_several_partitions(ingest_env: IngestEnvironment) -> None:
    ingest_env.open("org-1")
    partitions, ingest = [ingest_env.partition(number) for number in (2, 0, 1)], ingest_env.ingest()
    moves, records = [], []
    for partition in partitions:
        partition.add(usage_record(f"m-{partition.number}", "org-1"))
        new_moves, new_records = partition.next()
        moves += new_moves
        records += new_records
    ingest.submit(moves, records)
    ingest.flush()
    assert sorted(ingest_env.charged_ids()) == ["m-0", "m-1", "m-2"]
    assert [ingest_env.position(partition) for partition in partitions] == [1, 1, 1]


def test_the_same_id_of_another_source_is_another_message(ingest_env: IngestEnvironment) -> None:
    ingest_env.open("org-1")
    partition, ingest = ingest_env.partition(), ingest_env.ingest()
    other = usage_record("a", "org-1", 1, {"source": "/photo-processing/worker-8"})
    feed(ingest, partition, usage_record("a", "org-1"), other)
    ingest.flush()
    assert ingest_env.charged_ids() == ["a", "a"]


# -------------------------------------------------------------------------------- repeats and conflicts


def at_once(
    ingest_env: IngestEnvironment, ingest: UsageIngest, partition: Partition, **_: Any
) -> UsageIngest:
    """The second message is in the batch of the first."""
    return ingest


def in_flight(
    ingest_env: IngestEnvironment, ingest: UsageIngest, partition: Partition, **_: Any
) -> UsageIngest:
    """The second message comes while the first is in flight."""
    ingest.submit(*partition.next())
    return ingest


def recent(ingest_env: IngestEnvironment, ingest: UsageIngest, partition: Partition, **_: Any) -> UsageIngest:
    """The second message comes after the first is committed."""
    ingest.submit(*partition.next())
    ingest.flush()
    return ingest


def far(
    ingest_env: IngestEnvironment, ingest: UsageIngest, partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> UsageIngest:
    """The second message comes after the first left the recent keys."""
    monkeypatch.setattr("consumers.usage.recent_keys.RECENT_KEYS", 1)
    partition.add(usage_record("another", "org-1"))
    ingest.submit(*partition.next())
    ingest.flush()
    return ingest


def far_behind_a_batch(
    ingest_env: IngestEnvironment, ingest: UsageIngest, partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> UsageIngest:
    """Like `far`, in a batch that is decided while another one is in flight."""
    ingest = far(ingest_env, ingest, partition, monkeypatch)
    partition.add(usage_record("in flight", "org-1"))
    ingest.submit(*partition.next())
    return ingest


def after_a_restart(
    ingest_env: IngestEnvironment, ingest: UsageIngest, partition: Partition, **_: Any
) -> UsageIngest:
    """The second message comes to another process."""
    ingest.submit(*partition.next())
    ingest.flush()
    ingest.close()
    return ingest_env.ingest()


WAYS = [at_once, in_flight, recent, far, far_behind_a_batch, after_a_restart]


@pytest.mark.parametrize("way", WAYS)
def test_a_repeat_is_charged_once(
    ingest_env: IngestEnvironment, monkeypatch: pytest.MonkeyPatch, way: Any
) -> None:
    ingest_env.open("org-1")
    partition, ingest = ingest_env.partition(), ingest_env.ingest()
    partition.add(usage_record("a", "org-1", 30))
    ingest = way(ingest_env, ingest, partition, monkeypatch=monkeypatch)
    # Names, user, time, hold and encoding are not compared.
    again = usage_event({"id": "a", "subject": "org-1", "data.photos": 30, "data.user": None})
    again["time"] = "2027-01-01T00:00:00Z"
    again["data"]["event"]["name"] = "renamed"
    feed(ingest, partition, usage_record("a", "org-1", 30), usage_record("z", "org-1"), binary(again))
    ingest.flush()
    assert ingest_env.charged_ids().count("a") == ingest_env.charged_ids().count("z") == 1
    assert ingest_env.letters.safe == []
    assert ingest_env.position(partition) == len(partition.log)
    assert ingest.counts.repeats == 2


CHANGES: dict[str, dict[str, Any]] = {
    "organisation": {"subject": "org-2"},
    "photos": {"data.photos": 31},
    "run": {"data.run_id": "run-89"},
    "type": {"data.usage_type": "ai_image_rotation"},
    "search": {"data.ai_search": False},
    "event": {"data.event.id": 1043},
}


@pytest.mark.parametrize("way", WAYS)
def test_the_same_identity_with_another_body_is_a_dead_letter(
    ingest_env: IngestEnvironment, monkeypatch: pytest.MonkeyPatch, way: Any
) -> None:
    ingest_env.open("org-1", "org-2")
    partition, ingest = ingest_env.partition(), ingest_env.ingest()
    partition.add(*[usage_record(name, "org-1", 30) for name in CHANGES])
    ingest = way(ingest_env, ingest, partition, monkeypatch=monkeypatch)
    begins_at = len(partition.log)
    conflicting = [
        usage_record(name, changes={"subject": "org-1", "data.photos": 30} | changes)
        for name, changes in CHANGES.items()
    ]
    feed(ingest, partition, *conflicting, usage_record("z", "org-1"))
    ingest.flush()
    charged = ingest_env.recounted().charged()
    for name in CHANGES:
        charge = charged["/photo-processing/worker-7", name]
        assert charge.charge_fingerprint == ("org-1", "run-88", "photo_processing", 30, True, 1042)
    assert ingest_env.charged_ids().count("z") == 1
    assert ingest_env.letters.reasons() == {
        (0, begins_at + number): CONFLICT for number in range(len(CHANGES))
    }
    letters = sorted(ingest_env.letters.safe, key=lambda letter: letter.record_offset)
    for letter, record in zip(letters, conflicting, strict=True):
        assert (letter.field, letter.rejected_at) == ("id", ingest_env.now)
        assert (letter.record_key, letter.record_value) == (record.key, record.value)
        assert list(letter.record_headers) == record.headers
    assert ingest_env.position(partition) == len(partition.log)
    assert (ingest.counts.conflicts, ingest.counts.dead_letters) == (6, 6)


@pytest.mark.parametrize("way", [in_flight, recent])
def test_the_recorded_body_wins_against_another_body(
    ingest_env: IngestEnvironment, monkeypatch: pytest.MonkeyPatch, way: Any
) -> None:
    """One batch has a conflict, then a repeat, then the conflict again."""
    ingest_env.open("org-1", "org-2")
    partition, ingest = ingest_env.partition(), ingest_env.ingest()
    partition.add(usage_record("a", "org-1", 30))
    ingest = way(ingest_env, ingest, partition, monkeypatch=monkeypatch)
    wrong = usage_record("a", "org-2", 31)
    feed(ingest, partition, wrong, usage_record("a", "org-1", 30), wrong)
    ingest.flush()
    assert ingest_env.letters.offsets() == [(0, 1), (0, 3)]
    assert (ingest.counts.repeats, ingest.counts.conflicts) == (1, 2)
    assert ingest_env.recounted().balances == {"org-1": 70, "org-2": 100}


@pytest.mark.parametrize("way", WAYS)
def test_a_batch_of_only_repeats_moves_the_position(
    ingest_env: IngestEnvironment, monkeypatch: pytest.MonkeyPatch, way: Any
) -> None:
    ingest_env.open("org-1")
    partition, ingest = ingest_env.partition(), ingest_env.ingest()
    partition.add(usage_record("a", "org-1"))
    ingest = way(ingest_env, ingest, partition, monkeypatch=monkeypatch)
    feed(ingest, partition, *[usage_record("a", "org-1")] * 3)
    ingest.flush()
    assert ingest_env.position(partition) == len(partition.log)
    assert ingest_env.charged_ids().count("a") == 1


def test_a_batch_of_only_rejects_moves_the_position(ingest_env: IngestEnvironment) -> None:
    partition, ingest = ingest_env.partition(), ingest_env.ingest()
    feed(ingest, partition, KafkaRecord(None, None), KafkaRecord(b"org-1", b"not JSON"))
    ingest.flush()
    assert ingest_env.position(partition) == 2
    assert ingest_env.letters.offsets() == [(0, 0), (0, 1)]


def test_an_empty_batch_moves_the_position(ingest_env: IngestEnvironment) -> None:
    partition, ingest = ingest_env.partition(), ingest_env.ingest()
    partition.add(usage_record("a"))
    moves, _ = partition.next()
    ingest.submit(moves, [])
    ingest.flush()
    assert ingest_env.position(partition) == 1


def test_after_a_far_repeat_keys_are_looked_up_for_some_batches(
    ingest_env: IngestEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.usage.recent_keys.RECENT_KEYS", 1)
    monkeypatch.setattr("consumers.usage.recent_keys.LOOKUP_BATCHES", 3)
    ingest_env.open("org-1")
    steps: list[str] = []
    partition, ingest = ingest_env.partition(), ingest_env.ingest(hook=steps.append)
    feed(ingest, partition, usage_record("a", "org-1"), usage_record("b", "org-1"))
    ingest.flush()
    feed(ingest, partition, usage_record("between", "org-1"))
    ingest.flush()
    feed(ingest, partition, usage_record("a", "org-1"), usage_record("c", "org-1"))
    ingest.flush()
    assert (
        steps.count("before start_commit") == 4
    )  # two new batches, one with a known key, and the same batch without it
    looked_up = []
    for number in range(6):
        steps.clear()
        feed(ingest, partition, usage_record(f"calm-{number}", "org-1"))
        ingest.flush()
        looked_up.append("before recorded" in steps)
    assert looked_up == [True] * 3 + [False] * 3
    assert ingest_env.charged_ids() == ["a", "b", "between", "c", *(f"calm-{number}" for number in range(6))]


def test_a_batch_after_a_failed_one_is_decided_again(
    ingest_env: IngestEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch in flight has a repeat; the next batch was decided without knowing it."""
    monkeypatch.setattr("consumers.usage.recent_keys.RECENT_KEYS", 1)
    ingest_env.open("org-1", trial_credits=100)
    partition, ingest = ingest_env.partition(), ingest_env.ingest()
    feed(ingest, partition, usage_record("a", "org-1", 60), usage_record("filler", "org-1", 0))
    ingest.flush()
    feed(ingest, partition, usage_record("a", "org-1", 60), usage_record("b", "org-1", 10))
    feed(ingest, partition, usage_record("c", "org-1", 20), usage_record("b", "org-1", 10))
    feed(ingest, partition, usage_record("d", "org-1", 5), usage_record("a", "org-1", 60))
    ingest.flush()
    assert ingest_env.charged_ids() == ["a", "filler", "b", "c", "d"]
    assert ingest_env.recounted().balances == {"org-1": 5}


# ------------------------------------------------------------------------- dead letters before positions


def test_nothing_commits_while_dead_letters_are_unavailable(ingest_env: IngestEnvironment) -> None:
    ingest_env.open("org-1")
    partition, ingest = ingest_env.partition(), ingest_env.ingest()
    feed(ingest, partition, usage_record("a", "org-1"))
    ingest_env.letters.available = False
    partition.add(KafkaRecord(None, b"not JSON"), usage_record("b", "org-1"))
    with pytest.raises(DeadLettersUnavailable):
        ingest.submit(*partition.next())
    assert ingest_env.charged_ids() == ["a"]
    assert ingest_env.position(partition) == 1

    ingest.reset()
    ingest_env.letters.available = True
    partition.read_to = ingest_env.position(partition)
    ingest.submit(*partition.next())
    ingest.flush()
    assert ingest_env.charged_ids() == ["a", "b"]
    assert ingest_env.letters.offsets() == [(0, 1)]


@pytest.mark.parametrize("way", [in_flight, recent, far, far_behind_a_batch, after_a_restart])
def test_a_conflict_does_not_commit_without_its_dead_letter(
    ingest_env: IngestEnvironment, monkeypatch: pytest.MonkeyPatch, way: Any
) -> None:
    ingest_env.open("org-1")
    partition, ingest = ingest_env.partition(), ingest_env.ingest()
    partition.add(usage_record("a", "org-1"))
    ingest = way(ingest_env, ingest, partition, monkeypatch=monkeypatch)
    ingest_env.letters.available = False
    partition.add(usage_record("a", "org-1", 2), usage_record("b", "org-1"))
    before = len(partition.log) - 2

    def go_on() -> None:
        ingest.submit(*partition.next())
        ingest.flush()

    with pytest.raises(DeadLettersUnavailable):
        go_on()
    assert ingest_env.position(partition) <= before
    assert "b" not in ingest_env.charged_ids()


# --------------------------------------------------------------------------------- cache and snapshots


def test_a_small_cache_changes_nothing(ingest_env: IngestEnvironment) -> None:
    names = [f"org-{number}" for number in range(50)]
    ingest_env.open(*names)
    large, small = ingest_env.partition(0), ingest_env.partition(1)
    for number in range(400):
        # Each partition has the same traffic, on the same organisations.
        for partition in (large, small):
            name = names[number * 7 % 50]
            kind = "watermark_reprocess" if number % 3 else "photo_processing"
            changes = {"data.usage_type": kind, "data.run_id": f"run-{partition.number}-{number % 20}"}
            partition.add(usage_record(f"{partition.number}-{number}", name, number % 13, changes))
    counts = []
    for partition, size in ((large, 100_000), (small, 5)):
        ingest = ingest_env.ingest(cached_organisations=size)
        while partition.read_to < len(partition.log):
            ingest.submit(*partition.next(37))
        ingest.flush()
        assert len(ingest._cache) <= size
        assert ingest._names == {organisation.id: name for name, organisation in ingest._cache.items()}
        counts.append(ingest.counts.charges)
    assert counts == [400, 400]
    recounted = ingest_env.recounted()
    credits_of = {charge.identity[1]: charge.credits for charge in recounted.charges}
    assert [credits_of[f"0-{number}"] for number in range(400)] == [
        credits_of[f"1-{number}"] for number in range(400)
    ]


def test_a_small_cache_with_another_writer(ingest_env: IngestEnvironment) -> None:
    names = [f"org-{number}" for number in range(20)]
    ingest_env.open(*names)
    partition, ingest = ingest_env.partition(), ingest_env.ingest(cached_organisations=3)
    partition.add(*[usage_record(f"m-{number}", names[number % 20]) for number in range(200)])
    while partition.read_to < len(partition.log):
        ingest.submit(*partition.next(15))
        ingest.flush()
        ingest_env.grant(names[partition.read_to % 20])
        ingest_env.grant(names[0])
    assert len(ingest_env.charged_ids()) == 200


def test_snapshots_are_of_committed_versions_and_load_equals_replay(ingest_env: IngestEnvironment) -> None:
    ingest_env.open("org-1", "org-2", trial_credits=700)
    partition, ingest = ingest_env.partition(), ingest_env.ingest()
    for number in range(1_300):
        changes = {"data.usage_type": "watermark_reprocess", "data.run_id": f"run-{number % 9}"}
        partition.add(usage_record(f"a-{number}", "org-1"), usage_record(f"b-{number}", "org-2", 3, changes))
    while partition.read_to < len(partition.log):
        ingest.submit(*partition.next(400))
    ingest.flush()
    rows = ingest_env.connection.execute(
        "SELECT s.originator_id, s.originator_version, e.originator_version FROM ledger.snapshots s"
        " LEFT JOIN ledger.events e USING (originator_id, originator_version) ORDER BY 1, 2"
    ).fetchall()
    assert len(rows) >= 4
    assert all(version == event_version for _, version, event_version in rows)
    assert {stream for stream, _, _ in rows} == {stream_id("org-1"), stream_id("org-2")}

    ingest_env.recounted()
    replayed = replay_log(ingest_env.connection, ingest._store.mapper.codec).organisations
    loaded = ingest_env.store("reader").load([stream_id("org-1"), stream_id("org-2")])
    assert loaded.keys() == replayed.keys()
    for stream, organisation in loaded.items():
        assert (
            _state(organisation)
            == _state(replayed[stream])
            == _state(ingest._cache[organisation.organisation_id])
        )


def test_a_failed_batch_leaves_no_snapshot(
    ingest_env: IngestEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that would reach the snapshot interval with its repeat, but does not without it."""
    monkeypatch.setattr("consumers.usage.recent_keys.RECENT_KEYS", 1)
    ingest_env.open("org-1", trial_credits=1_000_000)
    partition, ingest = ingest_env.partition(), ingest_env.ingest()
    up_to_the_mark = SNAPSHOT_EVERY - 2 - ingest_env.ledger.organisation("org-1").version
    partition.add(*[usage_record(f"a-{number}", "org-1") for number in range(up_to_the_mark)])
    ingest.submit(*partition.next())
    ingest.flush()
    feed(ingest, partition, *[usage_record(f"a-{number}", "org-1") for number in (0, 1, 2)])
    ingest.flush()
    assert ingest_env.connection.execute("SELECT * FROM ledger.snapshots").fetchall() == []
    feed(ingest, partition, usage_record("b", "org-1"), usage_record("c", "org-1"))
    ingest.flush()
    assert ingest_env.connection.execute("SELECT originator_version FROM ledger.snapshots").fetchall() == [
        (SNAPSHOT_EVERY,)
    ]


def _state(organisation: Any) -> dict[str, Any]:
    return {
        name: getattr(organisation, name)
        for name in ("id", "version", "balance", "overdraft", "lots", "run_totals", "time_zone", "plan")
    }


@pytest.mark.parametrize("again", [30, 31])
def test_a_repeat_of_a_batch_in_flight_is_compared_with_the_ledger(
    ingest_env: IngestEnvironment, again: int
) -> None:
    """The ledger has 30 photos, the batch in flight has 31, and the next batch repeats one of the two."""
    ingest_env.open("org-1")
    partition = ingest_env.partition()
    before = ingest_env.ingest()
    feed(before, partition, usage_record("a", "org-1", 30))
    before.close()
    ingest = ingest_env.ingest()
    feed(ingest, partition, usage_record("a", "org-1", 31))
    feed(ingest, partition, usage_record("a", "org-1", again), usage_record("b", "org-1", 1))
    ingest.flush()
    assert ingest_env.letters.offsets() == ([(0, 1)] if again == 30 else [(0, 1), (0, 2)])
    assert ingest_env.charged_ids() == ["a", "b"]
    assert ingest.counts.repeats == (again == 30)
