"""Nothing is lost, counted twice or invented while processes and the database are killed at random."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.embedded.postgres import EmbeddedPostgres
from tests.e2e.chaos import Chaos, Plan
from tests.e2e.pipeline_environment import PipelineEnvironment


@pytest.mark.slow(seconds=90)
def test_the_ledger_is_correct_after_chaos(
    servers_root: Path, tmp_path: Path, broker: str, topic_name: Callable[[str], str]
) -> None:
    plan = Plan(
        seed=secrets.randbelow(10**6),
        messages=20_000,
        organisations=200,
        rounds=7,
        pair_rounds=range(2, 4),
        database_rounds=frozenset({1, 5}),
        leaves_broken_groups=True,
    )
    with EmbeddedPostgres(servers_root / "chaos-postgres") as postgres:
        chaos = Chaos(plan, PipelineEnvironment(postgres, broker, topic_name("usage"), tmp_path))
        report = chaos.run()
    assert report.differences == []
    assert report.verdicts.repeats > plan.messages // 25
    assert len(report.verdicts.refused) > plan.messages // 100
    assert chaos.tally.kills >= 20
    assert chaos.tally.database_kills == 2
