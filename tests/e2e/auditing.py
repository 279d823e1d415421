"""Runs the auditor on a pipeline environment: compares the topics with the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg

from tests.auditor.accounts import Account, Rates
from tests.auditor.audit import Auditor
from tests.auditor.topic import read_topic
from tests.auditor.verdicts import Verdicts
from tests.e2e.pipeline_environment import PipelineEnvironment
from tests.e2e.traffic import RATE_CHANGES


@dataclass(frozen=True)
class Report:
    """The auditor's report: the expected outcomes of records, and all differences."""

    records: int
    verdicts: Verdicts
    differences: list[str]


def audit(
    pipeline_env: PipelineEnvironment,
    accounts: Sequence[Account],
    ends: Mapping[int, int],
    up_to: Mapping[int, int] | None = None,
) -> Report:
    """Recount the records of an environment, or only those before the offsets `up_to`."""
    records = read_topic(pipeline_env.bootstrap_servers, pipeline_env.topic, ends)
    if up_to is not None:
        records = [record for record in records if record.offset < up_to.get(record.partition, 0)]
    letters = read_topic(pipeline_env.bootstrap_servers, pipeline_env.dead_letter_topic)
    auditor = Auditor(pipeline_env.topic, records, accounts, Rates(RATE_CHANGES))
    with psycopg.connect(pipeline_env.postgres.address) as connection:
        return Report(len(records), auditor.verdicts, auditor.differences(connection, letters))
