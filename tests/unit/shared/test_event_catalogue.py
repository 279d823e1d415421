"""Every event survives storage unchanged, and old shapes are upcast to current ones."""

from datetime import datetime

import msgspec
import pytest

from domain.credits.events import ChargeRefunded, CreditsGranted, GrantKind, PlanChanged
from domain.credits.lots import Lot
from domain.credits.organisation_state import OrganisationSnapshot
from domain.event_catalogue import CURRENT_TYPES, EventCodec, Upcaster
from domain.shared.errors import UnknownEventType
from tests.unit.credits.builders import NOON
from tests.unit.shared.events import EVENTS

CODEC = EventCodec()


def test_every_topic_has_an_example() -> None:
    assert {topic: type(event) for topic, event in EVENTS.items()} == dict(CURRENT_TYPES)


@pytest.mark.parametrize("topic", CURRENT_TYPES)
def test_an_event_is_decoded_unchanged(topic: str) -> None:
    event = EVENTS[topic]
    assert CODEC.topic_of[type(event)] == topic
    assert CODEC.decode(topic, CODEC.encode(event)) == event


@pytest.mark.parametrize("topic", CURRENT_TYPES)
def test_an_event_is_stored_as_a_json_array_that_starts_with_its_time(topic: str) -> None:
    stored = msgspec.json.decode(CODEC.encode(EVENTS[topic]))
    assert isinstance(stored, list)
    assert datetime.fromisoformat(stored[0]) == EVENTS[topic].recorded_at


@pytest.mark.parametrize("topic", CURRENT_TYPES)
def test_topics_are_names_with_a_version_and_no_module_paths(topic: str) -> None:
    name, _, version = topic.partition(".")
    assert name.replace("_", "").isalpha()
    assert version.startswith("v")
    assert int(version[1:]) >= 1


def test_missing_values_stay_missing() -> None:
    plan = EVENTS["plan_changed.v1"]
    assert isinstance(plan, PlanChanged)
    endless = msgspec.structs.replace(plan, expires_at=None, actor=None)
    assert CODEC.decode("plan_changed.v1", CODEC.encode(endless)) == endless


def test_lots_are_decoded_as_lots() -> None:
    refund = CODEC.decode("charge_refunded.v1", CODEC.encode(EVENTS["charge_refunded.v1"]))
    snapshot = CODEC.decode("organisation_snapshot.v1", CODEC.encode(EVENTS["organisation_snapshot.v1"]))
    assert isinstance(refund, ChargeRefunded)
    assert isinstance(snapshot, OrganisationSnapshot)
    assert all(isinstance(lot, Lot) for lot in (*refund.returned, *snapshot.lots))


def test_an_unknown_topic_is_refused_by_name() -> None:
    with pytest.raises(UnknownEventType, match=r"'credits_borrowed\.v1'") as refusal:
        CODEC.decode("credits_borrowed.v1", b"[]")
    assert refusal.value.details == {"topic": "credits_borrowed.v1"}


class TestSupersededTopics:
    """Every change other than a new last field needs a new topic, and an upcaster for the old one."""

    class GrantedInDozens(msgspec.Struct, frozen=True, array_like=True):
        """A fictional old event: a grant by the dozen, which pays no overdraft."""

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

    def test_old_bytes_are_upcast_to_a_current_event(self, codec: EventCodec) -> None:
        event = codec.decode("credits_granted.v0", b'["2026-07-01T12:00:00Z",3]')
        assert event == CreditsGranted(NOON, None, "before causes were kept", 36, GrantKind.ADMIN, "", 0)

    def test_only_the_current_topic_is_written(self, codec: EventCodec) -> None:
        assert codec.topic_of[CreditsGranted] == "credits_granted.v1"
        assert "credits_granted.v0" not in codec.topic_of.values()

    def test_the_current_topic_is_read_as_before(self, codec: EventCodec) -> None:
        event = EVENTS["credits_granted.v1"]
        assert codec.decode("credits_granted.v1", codec.encode(event)) == event
