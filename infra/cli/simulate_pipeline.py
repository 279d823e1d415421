"""`creditledger simulate-pipeline`: the simulator, wired to this service's broker and API."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec
from kafka import KafkaConsumer, KafkaProducer

from consumers.client import Balances, Holds
from consumers.client.sending import PRODUCER_OPTIONS
from domain.pricing.rate_card import UsageType
from infra.clock import utc_now
from infra.kafka.connections import connection_options
from infra.service.process import stop_on_signals
from infra.settings import Settings, load_rate_card
from infra.simulator.credit_checks import LedgerCreditChecks
from infra.simulator.demo import DEMO_ORGANISATIONS
from infra.simulator.options import SimulatorOptions
from infra.simulator.pipeline import run
from infra.simulator.sent_totals import SentTotals
from infra.up.tokens import service_token
from infra.up.verification import OrganisationTotals, PublishedTotals

HOLD_RETRY_FOR_S: Final = 2.0


def simulate(settings: Settings, *, history: bool, rate: float, tally_file: Path | None) -> int:
    """Publish the demo organisations' usage until stopped; write the totals sent to a file.

    Returns:
        1 if the broker did not acknowledge every record, else 0.

    Raises:
        InvalidSetting: no token for the API is configured.
    """
    originals_rate = load_rate_card(settings.rate_card).rate_millionths(
        UsageType.STORE_ORIGINALS, ai_search=True, at=utc_now()
    )
    options = SimulatorOptions(
        organisations=tuple(organisation.traffic for organisation in DEMO_ORGANISATIONS),
        topic=settings.usage_topic,
        history=history,
        live_per_second=rate,
        store_originals_rate_millionths=originals_rate,
    )
    connection = connection_options(settings)
    stop = stop_on_signals()
    token = service_token(settings)
    holds = Holds(
        f"http://{settings.api_host}:{settings.api_port}",
        headers=lambda: {"Authorization": f"Bearer {token()}"},
        retry_for_s=HOLD_RETRY_FOR_S,
    )
    balance_options = {**connection, "auto_offset_reset": "earliest"}
    with Balances(lambda: KafkaConsumer(**balance_options), topic=settings.balances_topic) as balances:
        sent_totals = run(
            replace(options, credit_checks=LedgerCreditChecks(balances, holds, stop)),
            lambda: KafkaProducer(**(connection | dict(PRODUCER_OPTIONS))),
            stop,
            utc_now,
        )
    if tally_file is not None:
        tally_file.write_bytes(msgspec.json.encode(published_totals(sent_totals)))
    return 1 if sent_totals.unconfirmed else 0


def published_totals(sent_totals: SentTotals) -> PublishedTotals:
    """Return the totals of a simulation in the format of the final report."""
    totals = sent_totals.as_dict()
    return PublishedTotals(
        records=totals["acknowledged"],
        refused=sum(totals["malformed"].values()) + totals["conflicting"],
        accounts={
            name: OrganisationTotals(credits=each["expected_credits"], runs=each["charged_runs"])
            for name, each in totals["organisations"].items()
        },
        next_offsets={int(partition): last + 1 for partition, last in totals["last_offsets"].items()},
        unconfirmed=len(totals["unconfirmed"]),
    )
