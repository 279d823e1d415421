"""`creditledger simulate-pipeline`: the simulator, wired to this service's broker and API."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from kafka import KafkaProducer

from consumers.client.sending import PRODUCER_OPTIONS
from domain.rate_card import UsageType
from infra.bootstrap import utc_now
from infra.kafka import connection_options
from infra.process import stop_on_signals
from infra.settings import Settings, load_rate_card
from infra.simulator.demo import DEMO_ORGANISATIONS
from infra.simulator.options import SimulatorOptions
from infra.simulator.pipeline import run
from infra.simulator.tally import Tally
from infra.up.reckoning import Account, Published
from infra.up.tokens import service_token


def simulate(settings: Settings, *, history: bool, rate: float, tally_file: Path | None) -> int:
    """Publish the demo organisations' usage until stopped; leave the account of it in a file.

    Returns:
        1 if some records were never acknowledged by the broker, else 0.

    Raises:
        WrongSetting: there is no token to ask the API with.
    """
    originals = load_rate_card(settings.rate_card).rate_millionths(
        UsageType.STORE_ORIGINALS, ai_search=True, at=utc_now()
    )
    options = SimulatorOptions(
        organisations=tuple(organisation.traffic for organisation in DEMO_ORGANISATIONS),
        topic=settings.usage_topic,
        history=history,
        live_per_second=rate,
        store_originals_rate_millionths=originals,
        credits_left=_Balances(f"http://{settings.api_host}:{settings.api_port}", service_token(settings)),
    )
    connection = {**connection_options(settings), **PRODUCER_OPTIONS}
    tally = run(options, lambda: KafkaProducer(**connection), stop_on_signals(), utc_now)
    if tally_file is not None:
        tally_file.write_bytes(msgspec.json.encode(published(tally)))
    return 1 if tally.unconfirmed else 0


def published(tally: Tally) -> Published:
    """Return a simulation's account in the words of the closing report."""
    account = tally.as_dict()
    return Published(
        records=account["acknowledged"],
        refused=sum(account["malformed"].values()) + account["conflicting"],
        accounts={
            name: Account(credits=each["expected_credits"], runs=each["charged_runs"])
            for name, each in account["organisations"].items()
        },
        next_offsets={int(partition): last + 1 for partition, last in account["last_offsets"].items()},
        unconfirmed=len(account["unconfirmed"]),
    )


class _Balances:
    """Asks the API what an organisation may still spend, as a pipeline does before a run."""

    def __init__(self, api_url: str, token: Callable[[], str]) -> None:
        self._api_url = api_url
        self._token = token

    def __call__(self, organisation_id: str) -> int | None:
        url = f"{self._api_url}/v1/organisations/{organisation_id}/balance"
        headers = {"Authorization": f"Bearer {self._token()}"}
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - http, to our own API
        try:
            with urllib.request.urlopen(request, timeout=2) as answer:  # noqa: S310
                balance: dict[str, Any] = json.load(answer)
        except (urllib.error.URLError, OSError):
            return 0  # who cannot ask does not spend
        return int(balance["available"])
