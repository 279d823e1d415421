"""A run's fractional charge is rounded up once, for any number of messages."""

from datetime import timedelta

from domain.credits.events import GrantKind
from domain.credits.organisation import Organisation, evolve
from domain.credits.run_totals import RUN_TOTAL_RETENTION
from domain.pricing.rate_card import WHOLE_CREDIT_MILLIONTHS, UsageType
from tests.unit.credits.builders import NOON, TENTH, charged, opened, request, usage


def credits_of(organisation: Organisation, photos: int, **fields: object) -> int:
    return charged(organisation.charge(usage(photos, **fields), TENTH, NOON)).credits


def test_5000_photos_in_chunks_of_5_cost_500() -> None:
    organisation = opened(trial_credits=1_000)
    for _ in range(1_000):
        credits_of(organisation, 5)
    assert organisation.balance == 500


def test_the_first_chunk_pays_for_the_rounding_of_later_ones() -> None:
    organisation = opened(trial_credits=1_000)
    assert [credits_of(organisation, 4) for _ in range(6)] == [1, 0, 1, 0, 0, 1]


def test_a_chunk_of_no_photos_costs_nothing() -> None:
    organisation = opened(trial_credits=1_000)
    assert [credits_of(organisation, photos) for photos in (0, 1, 0, 9, 0, 1)] == [0, 1, 0, 0, 0, 1]


def test_rounding_is_per_run_type_and_rate() -> None:
    organisation = opened(trial_credits=1_000)
    assert credits_of(organisation, 1) == 1
    assert credits_of(organisation, 1) == 0
    assert credits_of(organisation, 1, run_id="run-89") == 1
    assert credits_of(organisation, 1, usage_type=UsageType.STORE_ORIGINALS) == 1
    other_rate = organisation.charge(usage(1), 2 * TENTH, NOON)
    assert charged(other_rate).credits == 1
    assert credits_of(organisation, 8) == 0, "ten photos of the first run at the first rate"


def test_a_rate_that_changes_within_a_run_rounds_each_part() -> None:
    organisation = opened(trial_credits=1_000)
    rates = [TENTH, TENTH, 3 * TENTH, 3 * TENTH, WHOLE_CREDIT_MILLIONTHS, TENTH]
    charges = [charged(organisation.charge(usage(2), rate, NOON)).credits for rate in rates]
    assert charges == [1, 0, 1, 1, 2, 0]


def test_runs_at_whole_rates_need_no_total() -> None:
    organisation = opened(trial_credits=1_000)
    organisation.charge(usage(5), WHOLE_CREDIT_MILLIONTHS, NOON)
    organisation.charge(usage(5), 0, NOON)
    assert organisation.run_totals == {}


def test_runs_in_overdraft_round_like_others() -> None:
    organisation = opened()
    assert [credits_of(organisation, 4) for _ in range(3)] == [1, 0, 1]
    assert organisation.balance == -2


class TestForgetting:
    """Totals are dropped 90 days after a run's last message, so that the state stays small."""

    @staticmethod
    def charge(organisation: Organisation, run_id: str, day: float) -> int:
        at = NOON + timedelta(days=day)
        return charged(organisation.charge(usage(1, run_id=run_id), TENTH, at)).credits

    @staticmethod
    def runs(organisation: Organisation) -> list[str]:
        return [run_id for run_id, _, _ in organisation.run_totals]

    def test_a_run_is_kept_for_90_days(self) -> None:
        organisation = opened(trial_credits=1_000)
        self.charge(organisation, "run-1", day=0)
        self.charge(organisation, "run-2", day=1)
        self.charge(organisation, "run-3", day=1 + RUN_TOTAL_RETENTION.days)
        assert self.runs(organisation) == ["run-2", "run-3"]

    def test_each_message_keeps_its_run_alive(self) -> None:
        organisation = opened(trial_credits=1_000)
        for run_id, day in [("run-1", 0), ("run-2", 1), ("run-1", 80), ("run-3", 100)]:
            self.charge(organisation, run_id, day)
        assert self.runs(organisation) == ["run-1", "run-3"]

    def test_all_old_runs_are_dropped_together(self) -> None:
        organisation = opened(trial_credits=1_000)
        for number in range(10):
            self.charge(organisation, f"run-{number}", day=number)
        self.charge(organisation, "run-10", day=200)
        assert self.runs(organisation) == ["run-10"]

    def test_a_dropped_run_starts_its_rounding_again(self) -> None:
        organisation = opened(trial_credits=1_000)
        assert self.charge(organisation, "run-1", day=0) == 1
        assert self.charge(organisation, "run-2", day=91) == 1
        assert self.charge(organisation, "run-1", day=92) == 1

    def test_an_old_run_continues_until_it_is_dropped(self) -> None:
        organisation = opened(trial_credits=1_000)
        assert self.charge(organisation, "run-1", day=0) == 1
        assert self.charge(organisation, "run-1", day=400) == 0


def test_recorded_times_never_decrease() -> None:
    organisation = opened(trial_credits=1_000)
    for minutes in (5, 3, 4, 9):
        at = NOON + timedelta(minutes=minutes)
        organisation.grant(1, GrantKind.ADMIN, "test", request(at))
        organisation.charge(usage(1), WHOLE_CREDIT_MILLIONTHS, at - timedelta(minutes=1))
    times = [envelope.event.recorded_at for envelope in organisation.collect_events()]
    assert times == sorted(times)
    assert organisation.last_recorded_at == times[-1]
    assert organisation.fork().last_recorded_at == times[-1]
    assert evolve(None, organisation.snapshot()).last_recorded_at == times[-1]
