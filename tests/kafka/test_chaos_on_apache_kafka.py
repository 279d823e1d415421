"""The chaos test in full size, on three brokers of real Kafka, one of which is also killed and restarted."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.embedded.apache_kafka import ApacheKafkaCluster
from infra.embedded.postgres import EmbeddedPostgres
from tests.e2e.chaos import Chaos, Plan
from tests.e2e.pipeline_environment import PipelineEnvironment
from tests.servers import servers_folder

pytestmark = [pytest.mark.kafka, pytest.mark.slow(seconds=120)]

BROKERS = 3
DOWN_S = 3.0


def test_the_ledger_is_correct_after_chaos_on_a_cluster(
    tmp_path: Path, topic_name: Callable[[str], str]
) -> None:
    plan = Plan(
        seed=secrets.randbelow(10**6),
        messages=200_000,
        organisations=1_000,
        rounds=12,
        pair_rounds=range(3, 8),
        database_rounds=frozenset({1, 9}),
        broker_rounds=frozenset({4, 10}),
        longest_wait_s=1.0,
    )
    with (
        servers_folder() as folder,
        ApacheKafkaCluster(folder / "kafka", brokers=BROKERS) as cluster,
        EmbeddedPostgres(folder / "postgres") as postgres,
    ):
        victims = iter([secrets.randbelow(BROKERS) + 1, secrets.randbelow(BROKERS) + 1])

        def restart_broker() -> None:
            victim = next(victims)
            cluster.kill(victim)
            time.sleep(DOWN_S)  # long enough for the others to take over and for clients to detect it
            cluster.start_broker(victim)

        pipeline_env = PipelineEnvironment(postgres, cluster.bootstrap_servers, topic_name("usage"), tmp_path)
        chaos = Chaos(plan, pipeline_env, restart_broker)
        report = chaos.run()
    assert report.differences == []
    assert report.verdicts.repeats > plan.messages // 25
    assert len(report.verdicts.refused) > plan.messages // 100
    assert chaos.tally.kills >= 20
    assert (chaos.tally.database_kills, chaos.tally.broker_kills) == (2, 2)
