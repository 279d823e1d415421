"""Every record is either refused, or it can be charged, stored and projected."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from consumers.usage.batch import Batch
from consumers.usage.wire_format import REASON_MAX_LENGTH, InvalidUsageMessage, decode_usage
from domain.credits.events import UsageCharged
from domain.credits.organisation import Organisation
from domain.credits.usage import UsageReport
from domain.pricing.rate_card import RateCard
from domain.shared.aggregate import EventEnvelope
from domain.shared.command_context import CommandContext
from domain.shared.money import Currency
from domain.shared.stream_keys import dedupe_key
from infra.event_store.mapper import LedgerMapper, copy_rows
from projections.audit import invariants
from projections.engine.runner import ProjectionRunner
from projections.registry import ALL_PROJECTIONS
from tests.integration.consumers.ingest_environment import START, IngestEnvironment
from tests.unit.usage.records import Header, KafkaRecord, binary, structured, usage_event

MAPPER = LedgerMapper()
RATES = RateCard()

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)
# Values that are almost valid for a field, in addition to arbitrary JSON.
near_misses = st.sampled_from(
    [
        *("", "x" * 64, "x" * 128, "x" * 129, "x" * 256, "x" * 257, "\0", "\n", "\x7f", "\ud800", "🏃", "é"),
        *(0, -1, 1_000_000, 1_000_001, 2**53 - 1, 2**53, 2**63, 2**64, 10**40, 1.0, 1e400, -0.0),
        *(True, False, None, [], {}, {"id": "u"}, {"id": 1, "name": ""}),
        *("photo_processing", "watermark_reprocess", "store_originals", "1.0", "org-4711"),
        *(
            "2026-11-22T09:15:00Z",
            "2000-01-01T00:00:00Z",
            "2099-12-31T23:59:59.999999Z",
            "2024-02-29T00:00:00Z",
        ),
        *("2100-01-01T00:00:00+14:00", "1999-12-31T23:59:59-00:01", "9999-12-31T23:59:59.9999999-23:59"),
        *("0001-01-01T00:00:00+23:59", "2026-03-08T02:30:00-05:00", "2026-11-22T24:00:00Z"),
    ]
)
PATHS = [
    *("specversion", "id", "source", "type", "subject", "time", "data", "data.run_id", "data.usage_type"),
    *("data.photos", "data.ai_search", "data.event", "data.event.id", "data.event.name", "data.user"),
    *("data.user.id", "data.hold_id"),
]
DROP, NEST, REPLACE = "drop", "nest", "replace"
mutations = st.tuples(
    st.sampled_from(PATHS), st.sampled_from([DROP, NEST, REPLACE, REPLACE]), near_misses | json_values
)
headers = st.lists(
    st.tuples(
        st.sampled_from(["ce_specversion", "ce_id", "CE_TIME", "ce_subject", "content-type", "Content-Type"])
        | st.text(),
        st.none()
        | st.binary()
        | st.sampled_from([b"1.0", b"application/json", b"application/cloudevents+json", b"org-4711"]),
    ),
    max_size=6,
)
keys = st.none() | st.binary() | st.just(b"org-4711")


def mutated(changes: list[tuple[str, str, Any]]) -> dict[str, Any]:
    """Return a valid event with fields dropped, replaced, or moved one level deeper."""
    envelope = usage_event()
    for path, change, value in changes:
        *parents, name = path.split(".")
        holder: Any = envelope
        for parent in parents:
            holder = holder.get(parent) if isinstance(holder, dict) else None
        if not isinstance(holder, dict):
            continue
        if change == DROP:
            holder.pop(name, None)
        elif change == NEST:
            holder[name] = {name: deepcopy(holder.get(name))}
        else:
            holder[name] = value
    return envelope


def written(envelope: dict[str, Any], *, ascii_only: bool) -> bytes:
    try:
        return json.dumps(envelope, ensure_ascii=ascii_only).encode()
    except UnicodeEncodeError:  # a lone surrogate: it can only be encoded as an escape
        return json.dumps(envelope).encode()


@st.composite
def near_records(draw: Callable[..., Any]) -> KafkaRecord:
    """Records of valid and almost valid events, in either mode, mostly with the right key."""
    envelope = mutated(draw(st.lists(mutations, max_size=3)))
    ascii_only = draw(st.booleans())
    subject = str(envelope.get("subject", "org-4711")).encode(errors="replace")
    key = draw(st.just(subject) | keys)
    if draw(st.booleans()):
        return KafkaRecord(key, written(envelope, ascii_only=ascii_only), draw(st.just([]) | headers))
    attributes: list[Header] = [
        (f"ce_{name}", str(content).encode(errors="surrogatepass"))
        for name, content in envelope.items()
        if name != "data"
    ]
    data = written(envelope.get("data", {}), ascii_only=ascii_only)
    return KafkaRecord(key, data, attributes + draw(st.just([]) | headers))


def json_text(value: object) -> bytes:
    return json.dumps(value).encode()


anything = st.builds(KafkaRecord, keys, st.none() | st.binary() | json_values.map(json_text), headers)


def decoded(record: KafkaRecord) -> UsageReport | None:
    """Decode a record, or check its refusal."""
    try:
        found = decode_usage(record.key, record.value, record.headers)
    except InvalidUsageMessage as refused:
        check_refusal(refused)
        return None
    assert isinstance(found, UsageReport)
    return found


def check_refusal(refused: InvalidUsageMessage) -> None:
    assert 0 < len(refused.reason) <= REASON_MAX_LENGTH
    assert refused.reason.encode()  # it is sent in a header
    assert refused.field is None or refused.field


def charge(found: UsageReport) -> EventEnvelope:
    organisation = Organisation.open(
        found.organisation_id,
        time_zone="America/New_York",
        currency=Currency.USD,
        price_millionths=1,
        trial_credits=100,
        context=CommandContext(START, None, "r"),
    )
    usage = found.usage
    rate = RATES.rate_millionths(usage.usage_type, usage.ai_search, found.occurred_at)
    envelope = organisation.charge(found, rate, START)
    organisation.check_invariants()
    return envelope


def check(record: KafkaRecord) -> None:
    """Check that a batch accepts any record, and that a decoded message can be charged and stored."""
    batch = Batch((), START)
    batch.decode([record])
    found = decoded(record)
    assert (len(batch.by_key), len(batch.dead_letters_to_send)) == ((0, 1) if found is None else (1, 0))
    if found is None:
        return
    envelope = charge(found)
    key = dedupe_key(found.source, found.message_id)
    assert MAPPER.charge_rows([envelope], [key]) == copy_rows([stored := MAPPER.to_stored_event(envelope)])
    assert MAPPER.to_domain_event(stored) == envelope
    event = envelope.event
    assert isinstance(event, UsageCharged)
    assert event.charge_fingerprint == found.charge_fingerprint
    assert b"\\u0000" not in stored.state


@given(anything)
@example(KafkaRecord(b"org-4711", b"\xed\xa0\x80"))
@example(KafkaRecord(b"org-4711", b"1" * 5_000))
@example(KafkaRecord(b"org-4711", b'{"specversion":"1.0","id":"\\ud800"}'))
def test_arbitrary_records_are_refused_or_charged(record: KafkaRecord) -> None:
    check(record)


@settings(max_examples=500)
@given(near_records())
@example(structured(usage_event()))
@example(binary(usage_event()))
@example(structured(usage_event({"time": "0001-01-01T00:00:00+23:59"})))
@example(structured(usage_event({"time": "9999-12-31T23:59:59.9999999-23:59"})))
def test_events_with_changes_are_refused_or_charged(record: KafkaRecord) -> None:
    check(record)


@given(st.data())
def test_a_changed_byte_is_refused_or_charged(data: st.DataObject) -> None:
    record = data.draw(st.sampled_from([structured(usage_event()), binary(usage_event())]))
    value = bytearray(record.value or b"")
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(value) - 1))
        value[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
        if not value:
            break
    check(record._replace(value=bytes(value)))


# ------------------------------------------------------------------------------- on a real database


texts = st.text(min_size=1, max_size=128) | st.sampled_from(
    ["\x7f", "\u2028", '"', "\\", "é" * 128, "x" * 128]
)
zones = st.sampled_from([UTC, *(timezone(timedelta(hours=hours)) for hours in (-12, -5, 5.5, 14))])
valid_changes = st.fixed_dictionaries(
    {},
    optional={
        "id": texts,
        "source": texts | st.text(min_size=1, max_size=256),
        "subject": st.text(min_size=1, max_size=64) | st.sampled_from(["org-1", "org-2"]),
        "time": st.datetimes(datetime(1999, 12, 31), datetime(2100, 1, 2), timezones=zones).map(  # noqa: DTZ001
            datetime.isoformat
        ),
        "data.run_id": texts,
        "data.usage_type": st.sampled_from(
            ["photo_processing", "ai_image_rotation", "watermark_reprocess", "store_originals"]
        ),
        "data.photos": st.integers(-1, 1_000_001),
        "data.ai_search": st.booleans(),
        "data.event.id": st.integers(-1, 2**53),
        "data.event.name": st.text(max_size=256),
        "data.user": st.none() | st.builds(lambda text: {"id": text}, texts),
        "data.hold_id": st.none() | texts,
    },
)


def survivors(count: int) -> list[KafkaRecord]:
    """Return generated records, with many valid ones of every shape."""
    found: list[KafkaRecord] = []

    @settings(max_examples=count, phases=[Phase.generate], database=None, deadline=None)
    @given(valid_changes, st.booleans(), near_records())
    def collect(changes: dict[str, Any], in_binary: bool, near: KafkaRecord) -> None:
        envelope = usage_event({"id": f"id-{len(found)}"} | changes)
        try:
            found.append((binary if in_binary else structured)(envelope))
        except UnicodeEncodeError:
            found.append(KafkaRecord(b"key", written(envelope, ascii_only=True)))
        found.append(near)

    collect()
    return found


def test_generated_messages_reach_the_projections(migrated_database: str, service_database: str) -> None:
    # This comes first: threads of connection pools use random numbers, which Hypothesis does not allow.
    records = survivors(400)
    ingest_env = IngestEnvironment(migrated_database, service_database)
    try:
        charge_all(ingest_env, records)
        check_projections(ingest_env)
    finally:
        ingest_env.close()


def charge_all(ingest_env: IngestEnvironment, records: list[KafkaRecord]) -> None:
    partition, ingest = ingest_env.partition(), ingest_env.ingest()
    partition.add(*records)
    while partition.read_to < len(partition.log):
        ingest.submit(*partition.next(150))
    ingest.flush()
    expected: dict[bytes, UsageReport] = {}
    refused = set()
    conflicts = 0
    for offset, record in enumerate(records):
        found = decoded(record)
        if found is None:
            refused.add(offset)
            continue
        key = dedupe_key(found.source, found.message_id)
        first = expected.setdefault(key, found)
        same = (
            first.organisation_id == found.organisation_id
            and first.charge_fingerprint == found.charge_fingerprint
        )
        conflicts += not same
    assert len(expected) > 100
    assert len(ingest_env.letters.safe) == len(refused) + conflicts
    assert len(ingest_env.parked()) == len(expected)

    # Organisations with any id open, and all their parked messages are charged.
    for name in {found.organisation_id for found in expected.values()}:
        if name.isprintable():
            ingest_env.open(name)
        else:
            expected = {key: found for key, found in expected.items() if found.organisation_id != name}
    while ingest.charge_parked(limit=100):
        pass
    charges = ingest_env.recounted().charges
    assert len(charges) == len(expected)
    assert {(charge.identity, charge.photos) for charge in charges} == {
        ((found.source, found.message_id), found.usage.photos) for found in expected.values()
    }
    ingest_env.wait_days(8)
    while ingest.expire_parked():
        pass
    assert ingest_env.parked() == []


def check_projections(ingest_env: IngestEnvironment) -> None:
    ProjectionRunner(ingest_env.service, ALL_PROJECTIONS).catch_up()
    assert invariants.check(ingest_env.connection) == []
    projected = ingest_env.connection.execute(
        "SELECT sum(credits) FROM projections.transactions WHERE kind = 'usage'"
    ).fetchone()
    assert projected == (-sum(charge.credits for charge in ingest_env.recounted().charges),)
