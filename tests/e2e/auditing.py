"""The auditor sent to a stage: what lies in the topics against what the database says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg

from tests.auditor.accounts import Account, Rates
from tests.auditor.audit import Auditor
from tests.auditor.topic import read_topic
from tests.auditor.verdicts import Verdicts
from tests.e2e.stage import Stage
from tests.e2e.traffic import RATE_CHANGES


@dataclass(frozen=True)
class Report:
    """What the auditor says: how records were judged, and everything that is not as it must be."""

    records: int
    verdicts: Verdicts
    differences: list[str]


def audit(
    stage: Stage,
    accounts: Sequence[Account],
    ends: Mapping[int, int],
    up_to: Mapping[int, int] | None = None,
) -> Report:
    """Recount the records of a stage, or only those before the offsets `up_to`."""
    records = read_topic(stage.bootstrap_servers, stage.topic, ends)
    if up_to is not None:
        records = [record for record in records if record.offset < up_to.get(record.partition, 0)]
    letters = read_topic(stage.bootstrap_servers, stage.dead_letter_topic)
    auditor = Auditor(stage.topic, records, accounts, Rates(RATE_CHANGES))
    with psycopg.connect(stage.postgres.address) as connection:
        return Report(len(records), auditor.verdicts, auditor.differences(connection, letters))
