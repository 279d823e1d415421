"""Every fact comes back from its stored bytes as it was, and old shapes come back as today's."""

from datetime import datetime

import msgspec
import pytest

from domain.credits.events import ChargeRefunded, CreditsGranted, GrantKind, PlanChanged
from domain.credits.lots import Lot
from domain.credits.organisation import OrganisationSnapshot
from domain.event_catalogue import CURRENT_TYPES, EventCodec, Upcaster
from domain.shared.errors import UnknownEventType
from tests.unit.credits.builders import NOON
from tests.unit.shared.events import EVENTS

CODEC = EventCodec()


def test_every_topic_has_an_example() -> None:
    assert {topic: type(event) for topic, event in EVENTS.items()} == dict(CURRENT_TYPES)


@pytest.mark.parametrize("topic", CURRENT_TYPES)
def test_a_fact_comes_back_as_it_was(topic: str) -> None:
    event = EVENTS[topic]
    assert CODEC.topic_of[type(event)] == topic
    assert CODEC.decode(topic, CODEC.encode(event)) == event


@pytest.mark.parametrize("topic", CURRENT_TYPES)
def test_a_fact_is_stored_as_a_json_array_that_begins_with_its_time(topic: str) -> None:
    stored = msgspec.json.decode(CODEC.encode(EVENTS[topic]))
    assert isinstance(stored, list)
    assert datetime.fromisoformat(stored[0]) == EVENTS[topic].recorded_at


@pytest.mark.parametrize("topic", CURRENT_TYPES)
def test_topics_are_names_with_a_version_and_no_module_paths(topic: str) -> None:
    name, _, version = topic.partition(".")
    assert name.replace("_", "").isalpha()
    assert version.startswith("v")
    assert int(version[1:]) >= 1


def test_what_may_be_missing_comes_back_missing() -> None:
    plan = EVENTS["plan_changed.v1"]
    assert isinstance(plan, PlanChanged)
    endless = msgspec.structs.replace(plan, expires_at=None, actor=None)
    assert CODEC.decode("plan_changed.v1", CODEC.encode(endless)) == endless


def test_lots_come_back_as_lots() -> None:
    refund = CODEC.decode("charge_refunded.v1", CODEC.encode(EVENTS["charge_refunded.v1"]))
    snapshot = CODEC.decode("organisation_snapshot.v1", CODEC.encode(EVENTS["organisation_snapshot.v1"]))
    assert isinstance(refund, ChargeRefunded)
    assert isinstance(snapshot, OrganisationSnapshot)
    assert all(isinstance(lot, Lot) for lot in (*refund.returned, *snapshot.lots))


def test_a_topic_nobody_knows_is_refused_by_name() -> None:
    with pytest.raises(UnknownEventType, match=r"'credits_borrowed\.v1'") as refusal:
        CODEC.decode("credits_borrowed.v1", b"[]")
    assert refusal.value.details == {"topic": "credits_borrowed.v1"}


class TestSupersededTopics:
    """How an event changes otherwise than by a new last field: a new topic, and a lift from the old one."""

    class GrantedInDozens(msgspec.Struct, frozen=True, array_like=True):
        """As if credits had once been given by the dozen, to pay no overdraft."""

        recorded_at: datetime
        dozens: int

    @staticmethod
    def upcast(old: GrantedInDozens) -> CreditsGranted:
        return CreditsGranted(
            old.recorded_at, None, "before causes were kept", old.dozens * 12, GrantKind.ADMIN, "", 0
        )

    @pytest.fixture
    def codec(self) -> EventCodec:
        return EventCodec(upcasters={"credits_granted.v0": Upcaster(self.GrantedInDozens, self.upcast)})

    def test_old_bytes_are_lifted_to_a_fact_of_today(self, codec: EventCodec) -> None:
        event = codec.decode("credits_granted.v0", b'["2026-07-01T12:00:00Z",3]')
        assert event == CreditsGranted(NOON, None, "before causes were kept", 36, GrantKind.ADMIN, "", 0)

    def test_only_the_current_topic_is_written(self, codec: EventCodec) -> None:
        assert codec.topic_of[CreditsGranted] == "credits_granted.v1"
        assert "credits_granted.v0" not in codec.topic_of.values()

    def test_the_current_topic_is_read_as_before(self, codec: EventCodec) -> None:
        event = EVENTS["credits_granted.v1"]
        assert codec.decode("credits_granted.v1", codec.encode(event)) == event
