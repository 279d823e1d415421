"""Load on the service: reads by every role, and writes with an account of their credits.

If a response is lost because the API was killed, the request is sent again. A write uses the same idempotency
key, so it counts once in the account.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from random import Random
from threading import Event, Lock
from typing import Any, Final

import httpx

from benchmarks.soak.service import Service

READS_PER_S: Final = 4.0
WRITES_PER_S: Final = 2.0
CREDITS_MAX: Final = 4_000
"""Credits of one addition: organisations run out sometimes, and have credits most of the time."""
REQUEST_TIMEOUT_S: Final = 60.0
_READS: Final = (
    *("balance", "usage-summary", "transactions", "transactions?kind=usage&limit=50", "events"),
    *("subscription", "holds", "daily-usage?from=2026-01-01&to=2026-01-31"),
)
_FINE: Final = (200, 201, 202, 204)


class Findings:
    """Findings, and the number of responses per status. All threads use it."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._lock = Lock()

    def status(self, status: str) -> None:
        """Count a response."""
        with self._lock:
            self.statuses[status] += 1

    def add(self, sentence: str) -> None:
        """Store a finding, up to one hundred."""
        with self._lock:
            if len(self.wrong) < 100:
                self.wrong.append(sentence)


class Caller:
    """Sends requests until they get a response."""

    def __init__(self, service: Service, findings: Findings, stop: Event) -> None:
        self._service = service
        self._findings = findings
        self._stop = stop
        self._client = httpx.Client(base_url=service.url, timeout=10, trust_env=False)

    def call(
        self, method: str, path: str, headers: Mapping[str, str], **content: Any
    ) -> httpx.Response | None:
        """Return the response, or None after the time-out, which is a finding."""
        deadline = time.monotonic() + REQUEST_TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                answer = self._client.request(method, path, headers=dict(headers), **content)
            except httpx.TransportError as error:
                self._findings.status(type(error).__name__)
            else:
                self._findings.status(str(answer.status_code))
                if answer.status_code != 503:
                    return answer
            time.sleep(0.2)
        self._findings.add(f"{method} {path}: no answer within {REQUEST_TIMEOUT_S:.0f} s")
        return None

    def close(self) -> None:
        """Close connections."""
        self._client.close()


def read(service: Service, findings: Findings, organisations: list[str], stop: Event, seed: int) -> None:
    """Read with every permitted role until stopped. Every response must be a success."""
    random, caller = Random(seed), Caller(service, findings, stop)
    key = _new_key(service, caller, organisations[0])
    while not stop.wait(random.expovariate(READS_PER_S)):
        organisation_id = random.choice(organisations)
        path = f"/v1/organisations/{organisation_id}/{random.choice(_READS)}"
        headers = random.choice(
            [
                service.bearer("soak-auditor", roles=["auditor"]),
                service.bearer("soak-staff", roles=["staff"]),
                service.bearer("soak-admin", organisations={organisation_id: "admin"}),
                service.bearer("soak-member", organisations={organisation_id: "member"}),
            ]
        )
        if organisation_id == organisations[0] and random.random() < 0.3:
            headers = {"X-API-Key": key}
        if random.random() < 0.1:
            path = f"/v1/organisations/{organisation_id}/balance"
            headers = service.bearer("soak-pipeline", roles=["service"])
        answer = caller.call("GET", path, headers)
        if answer is not None and answer.status_code != 200:
            findings.add(f"GET {path}: {answer.status_code} {answer.text[:200]}")
        foreign = service.bearer("soak-stranger", organisations={"org-of-strangers": "admin"})
        if random.random() < 0.05:
            answer = caller.call("GET", path, foreign)
            if answer is not None and answer.status_code != 404:
                findings.add(f"a stranger got {answer.status_code} from {path}")
    caller.close()


class Writer:
    """Adds credits, and keeps an account of them."""

    def __init__(self, service: Service, findings: Findings, organisations: list[str], stop: Event) -> None:
        self.granted: dict[str, int] = defaultdict(int)
        self.purchased: dict[str, int] = defaultdict(int)
        self.purchases: dict[str, int] = defaultdict(int)
        self.keys = 0
        self._service = service
        self._findings = findings
        self._organisations = organisations
        self._stop = stop

    def run(self, seed: int) -> None:
        """Write until stopped."""
        random, caller = Random(seed), Caller(self._service, self._findings, self._stop)
        number = 0
        while not self._stop.wait(random.expovariate(WRITES_PER_S)):
            number += 1
            organisation_id = random.choice(self._organisations)
            path = f"/v1/organisations/{organisation_id}"
            staff = self._service.bearer(f"soak-staff-{number % 7}", roles=["staff"])
            once = {**staff, "Idempotency-Key": f"soak-{number}"}
            match random.randrange(8):
                case 0 | 1 | 2 | 3:
                    body: dict[str, Any] = {
                        "credits": random.randint(1, CREDITS_MAX),
                        "kind": "admin",
                        "reason": "soak",
                    }
                    if self._done(caller.call("POST", f"{path}/grants", once, json=body)):
                        self.granted[organisation_id] += body["credits"]
                case 4 | 5:
                    body = {
                        "credits": CREDITS_MAX,
                        "payment_id": f"soak-{number}",
                        "order_id": "soak",
                        "gateway": "soak",
                    }
                    if self._done(caller.call("POST", f"{path}/purchases", once, json=body)):
                        self.purchased[organisation_id] += body["credits"]
                        self.purchases[organisation_id] += 1
                case 6:
                    self._make_and_revoke_a_key(caller, path, staff)
                case _:
                    self._put_person(caller, number)
        caller.close()

    def _make_and_revoke_a_key(self, caller: Caller, path: str, staff: Mapping[str, str]) -> None:
        made = caller.call("POST", f"{path}/api-keys", staff, json={"name": "soak"})
        if made is not None and made.status_code == 409:
            # Requests without a response may have issued keys that no client has: revoke these.
            listed = caller.call("GET", f"{path}/api-keys", staff)
            for key in [] if listed is None else listed.json()["api_keys"][1:]:
                caller.call("DELETE", f"{path}/api-keys/{key['key_id']}", staff)
        elif self._done(made) and made is not None:
            caller.call("DELETE", f"{path}/api-keys/{made.json()['key_id']}", staff)
            self.keys += 1

    def _put_person(self, caller: Caller, number: int) -> None:
        staff = self._service.bearer("soak-sign-in", roles=["staff"])
        path = f"/v1/people/soak-staff-{number % 6}"
        self._done(caller.call("PUT", path, staff, json={"name": f"Person {number}"}))

    def _done(self, answer: httpx.Response | None) -> bool:
        if answer is None:
            return False
        if answer.status_code not in _FINE:
            self._findings.add(
                f"{answer.request.method} {answer.url.path}: {answer.status_code} {answer.text[:200]}"
            )
        return answer.status_code in _FINE


def _new_key(service: Service, caller: Caller, organisation_id: str) -> str:
    admin = service.bearer("soak-admin", organisations={organisation_id: "admin"})
    answer = caller.call(
        "POST", f"/v1/organisations/{organisation_id}/api-keys", admin, json={"name": "reader"}
    )
    if answer is None or answer.status_code != 201:
        raise RuntimeError("no API key could be made")
    return str(answer.json()["key"])
