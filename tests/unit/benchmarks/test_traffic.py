"""The messages of the benchmarks are valid, and cost what the benchmarks compute."""

from collections import defaultdict

from benchmarks.traffic import Traffic, UsageRecord, organisation_ids, with_repeats
from consumers.usage.wire_format import decode_usage
from domain.pricing.rate_card import RateCard, credits_for
from domain.shared.stream_keys import dedupe_key

ORGANISATIONS = organisation_ids(50)


def keys(records: list[UsageRecord]) -> list[bytes]:
    reports = [decode_usage(record.key, record.value, record.headers) for record in records]
    return [dedupe_key(report.source, report.message_id) for report in reports]


def test_every_message_is_valid_and_unique() -> None:
    records = Traffic(ORGANISATIONS).take(2_000)

    assert [record.offset for record in records] == list(range(2_000))
    assert len(set(keys(records))) == 2_000
    assert all(300 <= len(record.value) <= 400 for record in records)


def test_ids_grow_with_time() -> None:
    found = keys(Traffic(ORGANISATIONS).take(2_000))

    assert [key[:6] for key in found] == sorted({key[:6] for key in found})


def test_the_cost_matches_the_rate_card() -> None:
    traffic = Traffic(ORGANISATIONS)
    rate_card = RateCard()
    photos: dict[tuple[str, int], int] = defaultdict(int)
    for record in traffic.take(5_000):
        report = decode_usage(record.key, record.value, record.headers)
        usage = report.usage
        rate = rate_card.rate_millionths(usage.usage_type, usage.ai_search, report.occurred_at)
        photos[usage.run_id, rate] += usage.photos

    assert traffic.credits == sum(credits_for(count, rate) for (_, rate), count in photos.items())


def test_another_seed_or_a_later_start_sends_other_messages_of_other_runs() -> None:
    streams = [Traffic(ORGANISATIONS, seed=1), Traffic(ORGANISATIONS, seed=2, first_message=500)]
    sent = [stream.take(500) for stream in streams]
    runs = [
        {decode_usage(record.key, record.value, record.headers).usage.run_id for record in records}
        for records in sent
    ]

    assert not set(keys(sent[0])) & set(keys(sent[1]))
    assert not runs[0] & runs[1]


def test_the_first_organisations_are_the_busiest_unless_all_are_alike() -> None:
    def share_of_ten(*, alike: bool) -> float:
        busiest = {name.encode() for name in ORGANISATIONS[:10]}
        records = Traffic(ORGANISATIONS, alike=alike).take(5_000)
        return sum(record.key in busiest for record in records) / 5_000

    assert share_of_ten(alike=False) > 0.5
    assert share_of_ten(alike=True) < 0.25


def test_repeats_are_of_recent_or_of_given_messages() -> None:
    traffic = Traffic(ORGANISATIONS)
    earlier, new = traffic.take(100), traffic.take(2_000)

    recent = with_repeats(new, 0.05)
    far = with_repeats(new, 0.05, of=earlier)

    assert set(keys(recent)) == set(keys(new))
    assert set(keys(far)) - set(keys(new)) <= set(keys(earlier))
    for mixed in (recent, far):
        assert [record.offset for record in mixed] == list(range(len(mixed)))
        assert 0.03 < 1 - len(new) / len(mixed) < 0.07
