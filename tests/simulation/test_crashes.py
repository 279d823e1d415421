"""A crash at every step of the ingest, on a real database: nothing is lost, nothing counts twice.

A failure names its seed and the step at which it crashed: both are arguments of `simulate`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from tests.integration.consumers.ingest_environment import IngestEnvironment
from tests.simulation.ingest_simulation import IngestSimulation
from tests.simulation.workload import workload

SEED = int(os.environ.get("SIMULATION_SEED", "1"))
"""Set it for other workloads than the default ones."""
QUIET_SEEDS = range(SEED + 100, SEED + 120)


@pytest.fixture
def ingest_env(migrated_database: str, service_database: str) -> Iterator[IngestEnvironment]:
    ingest_env = IngestEnvironment(migrated_database, service_database)
    yield ingest_env
    ingest_env.close()


@pytest.fixture(autouse=True)
def _small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set small limits, so that a workload of a few messages reaches every branch."""
    monkeypatch.setattr("consumers.usage.recent_keys.RECENT_KEYS", 2)
    monkeypatch.setattr("consumers.usage.recent_keys.LOOKUP_BATCHES", 1)
    monkeypatch.setattr("domain.credits.organisation_state.SNAPSHOT_EVERY", 4)


@pytest.fixture
def simulate(ingest_env: IngestEnvironment) -> Callable[..., IngestSimulation]:
    """A function that runs one simulation, and reports its seed and step if it fails."""
    rival_store = ingest_env.store("rival")
    runs = count()

    def run(seed: int, fails_at: int | None = None, *, crash_mode: bool = True) -> IngestSimulation:
        prefix = f"{seed}-{next(runs)}"
        world = IngestSimulation(
            ingest_env, workload(seed, prefix), prefix, rival_store, fails_at=fails_at, crash_mode=crash_mode
        )
        try:
            world.run()
        except BaseException as error:
            what = "crash_mode" if crash_mode else "loses its database"
            error.add_note(f"simulation: seed {seed}, {what} at step {fails_at} ({world.failed_at})")
            raise
        return world

    return run


def test_without_a_crash(simulate: Callable[..., IngestSimulation]) -> None:
    steps = {step for seed in QUIET_SEEDS for step in simulate(seed).steps}
    assert {step.removeprefix("before ") for step in steps if step.startswith("before ")} == {
        *(
            "log_end",
            "load",
            "recorded",
            "parked",
            "rows",
            "parked_with_open_organisation",
            "parked_before",
            "begin",
        ),
        *("streams_appended_after", "catch_up", "park", "unpark", "start_commit", "finish_commit"),
        *("send", "wait"),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "crash_mode"), [(SEED, True), (SEED + 1, False)], ids=["process", "database"]
)
def test_a_crash_at_every_step(
    simulate: Callable[..., IngestSimulation], seed: int, crash_mode: bool
) -> None:
    for step in count():
        world = simulate(seed, step, crash_mode=crash_mode)
        if not world.failed_at:
            break
    assert step > 50
