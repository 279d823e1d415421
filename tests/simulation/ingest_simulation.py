"""One run of the simulation: an ingest that crashes, or loses its database, at a chosen step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from consumers.usage.ingest import UsageIngest
from consumers.usage.ports import DeadLetterRecord
from domain.pricing.rate_card import RateCard
from domain.shared.errors import CheckpointConflict, StoreUnavailable
from infra.event_store.usage_store import PostgresUsageStore
from tests.integration.consumers.call_interceptor import CallInterceptor
from tests.integration.consumers.ingest_environment import IngestEnvironment, Partition
from tests.integration.consumers.recount import recount_ledger
from tests.simulation.auditor import audit
from tests.simulation.workload import KNOWN, NEVER_OPENS, Action, Workload

ATTEMPTS_MAX = 200
BATCH = 4
TRIAL_CREDITS = 60
GRANT = 5


class SimulatedCrash(BaseException):
    """The process has crashed: none of its further steps happen."""


class CrashingDeadLetters:
    """Dead letters in memory. An interrupted `send` stores none, some or all of them."""

    def __init__(self, step: Callable[[str], None]) -> None:
        self.safe: list[DeadLetterRecord] = []
        self._step = step

    def send(self, letters: Sequence[DeadLetterRecord]) -> Callable[[], None]:
        self._step("before send")
        half = len(letters) // 2
        self.safe += letters[:half]
        self._step("after send")

        def wait() -> None:
            self._step("before wait")
            self.safe.extend(letters[half:])
            self._step("after wait")

        return wait


class IngestSimulation:
    """A workload on a real database. `fails_at` is the number of the failing step; None means no failure."""

    def __init__(
        self,
        ingest_env: IngestEnvironment,
        work: Workload,
        prefix: str,
        rival_store: PostgresUsageStore,
        *,
        fails_at: int | None = None,
        crash_mode: bool = True,
    ) -> None:
        self.ingest_env = ingest_env
        self._rival_store = rival_store
        self.work = work
        self.prefix = prefix
        self.steps: list[str] = []
        self.failed_at = ""
        self._fails_at = fails_at
        self._crash_mode = crash_mode
        self._crashed = False
        self._post = CrashingDeadLetters(self._step)
        self._log_start = ingest_env.connection.execute(
            "SELECT coalesce(max(notification_id), 0) FROM ledger.events"
        ).fetchone()[0]  # type: ignore[index]
        self._given: dict[str, int] = {}
        topic = f"usage-{prefix}"
        self.partitions = [ingest_env.partition(number, topic) for number in range(len(work.records))]
        for partition, records in zip(self.partitions, work.records, strict=True):
            partition.add(*records)
        for name in KNOWN:
            self._open(name)
        self._start()

    # --------------------------------------------------------------------------------- actions

    def run(self) -> None:
        """Execute all actions, charge the remaining records, and run the audit."""
        for action in self.work.actions:
            self._survive(lambda action=action: self._do(action))  # type: ignore[misc]
        self._survive_until(self._charge_the_rest)
        self.ingest_env.wait_days(8)
        self._survive_until(self._run_maintenance)
        self._store.close()
        self._audit()

    def _do(self, action: Action) -> None:
        if action.what == "charge":
            self._charge(self.partitions[int(action.whom)])
        elif action.what == "flush":
            self._ingest.flush()
        elif action.what == "keep house":
            self._run_maintenance()
        elif action.what == "grant":
            self.ingest_env.grant(f"{self.prefix}-{action.whom}", GRANT)
            self._given[f"{self.prefix}-{action.whom}"] += GRANT
        elif action.what == "open":
            self._open(str(action.whom))
        else:
            self._rival(self.partitions[int(action.whom)])

    def _charge(self, partition: Partition) -> None:
        if partition.read_to < len(partition.log):
            self._ingest.submit(*partition.next(BATCH))

    def _run_maintenance(self) -> None:
        self._ingest.charge_parked()
        self._ingest.expire_parked()
        self._ingest.flush()

    def _charge_the_rest(self) -> None:
        while any(partition.read_to < len(partition.log) for partition in self.partitions):
            for partition in self.partitions:
                self._charge(partition)
        self._run_maintenance()

    def _rival(self, partition: Partition) -> None:
        """Another consumer takes over for one batch, and ours does not know it."""
        mine, partition.read_to = partition.read_to, self.ingest_env.position(partition)
        post = CrashingDeadLetters(lambda _: None)
        post.safe = self._post.safe
        ingest = UsageIngest(self._rival_store, RateCard(), post, lambda: self.ingest_env.now)
        if partition.read_to < len(partition.log):
            ingest.submit(*partition.next(BATCH))
        ingest.close()
        partition.read_to = mine

    def _open(self, name: str) -> None:
        organisation_id = f"{self.prefix}-{name}"
        self.ingest_env.open(organisation_id, trial_credits=TRIAL_CREDITS)
        self._given[organisation_id] = TRIAL_CREDITS

    # --------------------------------------------------------------------------- failure and recovery

    def _step(self, name: str) -> None:
        self._stop_if_crashed()
        number = len(self.steps)
        self.steps.append(name)
        if number == self._fails_at:
            self.failed_at = name
            if self._crash_mode:
                self._crashed = True
                raise SimulatedCrash
            self.ingest_env.terminate()

    def _stop_if_crashed(self) -> None:
        """A crashed process does no clean-up either."""
        if self._crashed:
            raise SimulatedCrash

    def _start(self) -> None:
        """Start a new process. Its only state is the database."""
        self._crashed = False
        self._store: PostgresUsageStore = self.ingest_env.store()
        store: Any = CallInterceptor(self._store, self._step)
        self._ingest = UsageIngest(store, RateCard(), self._post, lambda: self.ingest_env.now)
        self._resume()

    def _resume(self) -> None:
        for partition in self.partitions:
            partition.read_to = self.ingest_env.position(partition)

    def _survive(self, action: Callable[[], None]) -> bool:
        """Run an action. After a failure, continue like the consumer and return False."""
        try:
            action()
            self._stop_if_crashed()
        except SimulatedCrash:
            self._store.close()
            self._start()
            return False
        except (StoreUnavailable, CheckpointConflict):
            self._ingest.reset()
            self._resume()
            return False
        return True

    def _survive_until(self, action: Callable[[], None]) -> None:
        for _ in range(ATTEMPTS_MAX):
            if self._survive(action):
                return
        raise AssertionError("it never ends")

    # ------------------------------------------------------------------------------------- the audit

    def _audit(self) -> None:
        log = {
            (record.partition, record.offset): record
            for partition in self.partitions
            for record in partition.log
        }
        recounted = recount_ledger(self.ingest_env.connection, after=self._log_start)
        letters = [(letter.partition, letter.record_offset) for letter in self._post.safe]
        audit(log, self._given, recounted, letters)
        for letter in self._post.safe:
            record = log[letter.partition, letter.record_offset]
            assert (letter.record_key, letter.record_value) == (record.key, record.value)
            assert list(letter.record_headers) == record.headers
        assert self.ingest_env.parked() == []
        assert f"{self.prefix}-{NEVER_OPENS}" not in recounted.versions
        stored = self.ingest_env.positions.positions(self.partitions[0].topic)
        assert {number: at.next_offset for number, at in stored.items()} == {
            partition.number: len(partition.log) for partition in self.partitions
        }
        # Snapshots were taken meanwhile: a load through them must equal the replay of the events.
        for name, version in recounted.versions.items():
            loaded = self.ingest_env.ledger.organisation(name)
            loaded.check_invariants()
            assert (loaded.version, loaded.balance) == (version, recounted.balances[name])
