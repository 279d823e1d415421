"""A consumer group on real Kafka whose three members come, leave and die all the time loses nothing."""

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
from tests.e2e.office import Office
from tests.e2e.processes import Worker
from tests.e2e.stage import Stage, staged
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
        stage = Stage(postgres, cluster.bootstrap_servers, topic_name("usage"), tmp_path)
        with staged(stage) as publisher:
            office = Office(stage.database_url, seed)
            try:
                office.open([each for each in traffic.organisations if each.opens == "at the start"])
            finally:
                office.close()
            projector = stage.worker("projector", "project")
            members = [stage.worker(f"member-{number}", "consume") for number in range(3)]
            for worker in (projector, *members):
                worker.start()
            for number in range(CHANGES):
                publisher.send(records[number * share : (number + 1) * share])
                time.sleep(randomness.uniform(0, 2))
                change(stage, randomness.choice(members), randomness)
            publisher.settle()
            for member in members:
                member.start()
            stage.wait_until_drained(publisher.ends, office.names)
            for worker in (projector, *members):
                stage.wait_until_up(worker)
                assert worker.stop(within_s=10) == 0, worker.log
            report = audit(stage, office.accounts, publisher.ends)
    assert report.records == len(records)
    assert report.differences == []


def change(stage: Stage, member: Worker, randomness: random.Random) -> None:
    """Let a member come back, leave in good order, or die; a new one follows at once half of the time."""
    if not member.is_running:
        member.start()
        return
    if randomness.random() < 0.5:
        member.kill()
    else:
        stage.wait_until_up(member)
        assert member.stop(within_s=10) == 0, member.log
    if randomness.random() < 0.5:
        member.start()
