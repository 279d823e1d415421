"""The totals of acknowledged messages."""

import json
from dataclasses import replace

from infra.simulator.rates import Rates
from infra.simulator.sent_totals import SentTotals
from infra.simulator.wire import MalformedKind, Usage, malformed, structured
from tests.unit.simulator.simulations import NOW

USAGE = Usage(
    organisation_id="org-1",
    source="/photo-processing/worker-1",
    message_id="m-1",
    run_id="run-1",
    usage_type="photo_processing",
    photos=500,
    ai_search=True,
    event_id=1042,
    event_name="City Marathon 2026",
    user_id="u-01",
    occurred_at=NOW,
)


def totals_of(*usages: Usage, rates: Rates | None = None) -> SentTotals:
    sent_totals = SentTotals(rates)
    for offset, usage in enumerate(usages):
        sent_totals.acknowledge(structured(usage), partition=0, offset=offset)
    return sent_totals


def account(sent_totals: SentTotals) -> dict[str, int]:
    counted: dict[str, int] = sent_totals.as_dict()["organisations"]["org-1"]
    return counted


def test_empty_totals() -> None:
    assert SentTotals().as_dict() == {
        "acknowledged": 0,
        "organisations": {},
        "malformed": {},
        "conflicting": 0,
        "last_offsets": {},
        "unconfirmed": [],
    }


def test_chunks_of_a_run_round_up_once() -> None:
    chunk = replace(USAGE, usage_type="watermark_reprocess", photos=5)
    chunks = [replace(chunk, message_id=f"m-{number}") for number in range(1_000)]
    assert account(totals_of(*chunks)) == {
        "messages": 1_000,
        "unique_messages": 1_000,
        "conflicting": 0,
        "photos": 5_000,
        "expected_credits": 500,
        "charged_runs": 1,
    }


def test_each_run_is_rounded_up() -> None:
    chunk = replace(USAGE, usage_type="watermark_reprocess", photos=5)
    runs = [replace(chunk, message_id=f"m-{number}", run_id=f"run-{number}") for number in range(10)]
    assert account(totals_of(*runs))["expected_credits"] == 10
    assert account(totals_of(*runs))["charged_runs"] == 10


def test_a_repeat_counts_as_a_message_and_charges_nothing() -> None:
    counted = account(totals_of(USAGE, USAGE, replace(USAGE, event_name="City Marathon", user_id=None)))
    assert (counted["messages"], counted["unique_messages"], counted["expected_credits"]) == (3, 1, 500)


def test_an_id_belongs_to_its_source() -> None:
    counted = account(totals_of(USAGE, replace(USAGE, source="/photo-processing/worker-2")))
    assert (counted["unique_messages"], counted["expected_credits"], counted["charged_runs"]) == (2, 1_000, 1)


def test_the_first_of_two_bodies_counts() -> None:
    sent_totals = totals_of(USAGE, replace(USAGE, photos=1))
    assert sent_totals.as_dict()["conflicting"] == 1
    assert sent_totals.acknowledged == 2
    assert account(sent_totals)["expected_credits"] == 500


def test_searches_off_and_originals_are_free_and_do_not_count_as_charged_runs() -> None:
    off = replace(USAGE, ai_search=False)
    originals = replace(USAGE, message_id="m-2", run_id="run-2", usage_type="store_originals")
    counted = account(totals_of(off, originals))
    assert (counted["photos"], counted["expected_credits"], counted["charged_runs"]) == (1_000, 0, 0)
    assert account(totals_of(off, originals, rates=Rates(2_000)))["expected_credits"] == 1


def test_malformed_messages_are_only_counted() -> None:
    sent_totals = SentTotals()
    for offset, malformed_kind in enumerate(MalformedKind):
        sent_totals.acknowledge(malformed(USAGE, malformed_kind), partition=2, offset=offset)
    counted = sent_totals.as_dict()
    assert counted["malformed"] == {"foreign_key": 1, "missing_field": 1, "not_json": 1}
    assert counted["organisations"] == {}
    assert counted["last_offsets"] == {"2": 2}


def test_totals_are_json() -> None:
    sent_totals = totals_of(USAGE)
    sent_totals.set_unconfirmed([structured(replace(USAGE, message_id="m-9"))])
    counted = json.loads(json.dumps(sent_totals.as_dict()))
    assert counted["unconfirmed"] == [
        {"organisation_id": "org-1", "source": "/photo-processing/worker-1", "id": "m-9"}
    ]
    assert sent_totals.unconfirmed == 1
