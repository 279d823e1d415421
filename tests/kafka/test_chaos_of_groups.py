"""A consumer group on real Kafka loses nothing while its three members join, leave and die all the time."""

from __future__ import annotations

import random
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.embedded.apache_kafka import ApacheKafkaCluster
from infra.embedded.postgres import EmbeddedPostgres
from tests.e2e.auditing import audit
from tests.e2e.ledger_writer import LedgerWriter
from tests.e2e.pipeline_environment import PipelineEnvironment, running_pipeline
from tests.e2e.processes import Worker
from tests.e2e.traffic import Traffic
from tests.servers import FAST

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

CHANGES = 15
MESSAGES = 60_000


def test_a_group_under_churn_loses_nothing(
    cluster: ApacheKafkaCluster, servers_root: Path, tmp_path: Path, topic_name: Callable[[str], str]
) -> None:
    seed = secrets.randbelow(10**6)
    sys.stderr.write(f"churn seed {seed}\n")
    randomness = random.Random(seed)
    traffic = Traffic(seed, messages=MESSAGES, organisations=300, in_the_middle=0)
    records = list(traffic.records)
    share = len(records) // CHANGES + 1
    with EmbeddedPostgres(servers_root / "churn-postgres", settings=FAST) as postgres:
        pipeline_env = PipelineEnvironment(postgres, cluster.bootstrap_servers, topic_name("usage"), tmp_path)
        with running_pipeline(pipeline_env) as publisher:
            ledger_writer = LedgerWriter(pipeline_env.database_url, seed)
            try:
                ledger_writer.open([each for each in traffic.organisations if each.opens == "at the start"])
            finally:
                ledger_writer.close()
            projector = pipeline_env.worker("projector", "project")
            members = [pipeline_env.worker(f"member-{number}", "consume") for number in range(3)]
            for worker in (projector, *members):
                worker.start()
            for number in range(CHANGES):
                publisher.send(records[number * share : (number + 1) * share])
                time.sleep(randomness.uniform(0, 2))
                change(pipeline_env, randomness.choice(members), randomness)
            publisher.settle()
            for member in members:
                member.start()
            pipeline_env.wait_until_drained(publisher.ends, ledger_writer.names)
            for worker in (projector, *members):
                pipeline_env.wait_until_up(worker)
                assert worker.stop(within_s=10) == 0, worker.log
            report = audit(pipeline_env, ledger_writer.accounts, publisher.ends)
    assert report.records == len(records)
    assert report.differences == []


def change(pipeline_env: PipelineEnvironment, member: Worker, randomness: random.Random) -> None:
    """Let a member rejoin, leave gracefully, or die. Half of the time a new one follows immediately."""
    if not member.is_running:
        member.start()
        return
    if randomness.random() < 0.5:
        member.kill()
    else:
        pipeline_env.wait_until_up(member)
        assert member.stop(within_s=10) == 0, member.log
    if randomness.random() < 0.5:
        member.start()
