"""One run of the simulation: an ingest that dies, or loses its database, at one chosen step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from consumers.usage import UsageIngest
from domain.errors import PositionMoved, StoreUnavailable
from domain.ports import DeadLetterRecord
from domain.rate_card import RateCard
from infra.event_store.usage_store import PostgresUsageStore
from tests.integration.consumers.hooks import Hooked
from tests.integration.consumers.lab import Lab, Partition
from tests.integration.consumers.recount import read_books
from tests.simulation.auditor import audit
from tests.simulation.workload import KNOWN, NEVER_OPENS, Action, Workload

ATTEMPTS_MAX = 200
BATCH = 4
TRIAL_CREDITS = 60
GRANT = 5


class Death(BaseException):
    """The process is gone: nothing it would have done happens any more."""


class Post:
    """Dead letters in memory, of which an interrupted `send` leaves none, some or all."""

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


class World:
    """A workload on a real database. `fails_at` numbers the step at which it goes wrong, None for never."""

    def __init__(
        self,
        lab: Lab,
        work: Workload,
        prefix: str,
        rival_store: PostgresUsageStore,
        *,
        fails_at: int | None = None,
        dies: bool = True,
    ) -> None:
        self.lab = lab
        self._rival_store = rival_store
        self.work = work
        self.prefix = prefix
        self.steps: list[str] = []
        self.failed_at = ""
        self._fails_at = fails_at
        self._dies = dies
        self._dead = False
        self._post = Post(self._step)
        self._log_start = lab.connection.execute(
            "SELECT coalesce(max(notification_id), 0) FROM ledger.events"
        ).fetchone()[0]  # type: ignore[index]
        self._given: dict[str, int] = {}
        topic = f"usage-{prefix}"
        self.partitions = [lab.partition(number, topic) for number in range(len(work.records))]
        for partition, records in zip(self.partitions, work.records, strict=True):
            partition.add(*records)
        for name in KNOWN:
            self._open(name)
        self._start()

    # --------------------------------------------------------------------------------- what happens

    def run(self) -> None:
        """Let everything happen, then charge what is left, and audit."""
        for action in self.work.actions:
            self._survive(lambda action=action: self._do(action))  # type: ignore[misc]
        self._survive_until(self._charge_the_rest)
        self.lab.wait_days(8)
        self._survive_until(self._keep_house)
        self._store.close()
        self._audit()

    def _do(self, action: Action) -> None:
        if action.what == "charge":
            self._charge(self.partitions[int(action.whom)])
        elif action.what == "flush":
            self._ingest.flush()
        elif action.what == "keep house":
            self._keep_house()
        elif action.what == "grant":
            self.lab.grant(f"{self.prefix}-{action.whom}", GRANT)
            self._given[f"{self.prefix}-{action.whom}"] += GRANT
        elif action.what == "open":
            self._open(str(action.whom))
        else:
            self._rival(self.partitions[int(action.whom)])

    def _charge(self, partition: Partition) -> None:
        if partition.read_to < len(partition.log):
            self._ingest.submit(*partition.next(BATCH))

    def _keep_house(self) -> None:
        self._ingest.charge_parked()
        self._ingest.expire_parked()
        self._ingest.flush()

    def _charge_the_rest(self) -> None:
        while any(partition.read_to < len(partition.log) for partition in self.partitions):
            for partition in self.partitions:
                self._charge(partition)
        self._keep_house()

    def _rival(self, partition: Partition) -> None:
        """Another consumer takes over for a batch, and ours does not know."""
        mine, partition.read_to = partition.read_to, self.lab.position(partition)
        post = Post(lambda _: None)
        post.safe = self._post.safe
        ingest = UsageIngest(self._rival_store, RateCard(), post, lambda: self.lab.now)
        if partition.read_to < len(partition.log):
            ingest.submit(*partition.next(BATCH))
        ingest.close()
        partition.read_to = mine

    def _open(self, name: str) -> None:
        organisation_id = f"{self.prefix}-{name}"
        self.lab.open(organisation_id, trial_credits=TRIAL_CREDITS)
        self._given[organisation_id] = TRIAL_CREDITS

    # --------------------------------------------------------------------------- failure and recovery

    def _step(self, name: str) -> None:
        self._stop_if_dead()
        number = len(self.steps)
        self.steps.append(name)
        if number == self._fails_at:
            self.failed_at = name
            if self._dies:
                self._dead = True
                raise Death
            self.lab.terminate()

    def _stop_if_dead(self) -> None:
        """Clean-up after a death is not done either."""
        if self._dead:
            raise Death

    def _start(self) -> None:
        """A new process: it knows nothing but the database."""
        self._dead = False
        self._store: PostgresUsageStore = self.lab.store()
        store: Any = Hooked(self._store, self._step)
        self._ingest = UsageIngest(store, RateCard(), self._post, lambda: self.lab.now)
        self._resume()

    def _resume(self) -> None:
        for partition in self.partitions:
            partition.read_to = self.lab.position(partition)

    def _survive(self, action: Callable[[], None]) -> bool:
        """Act; after a failure go on as the consumer would, and return False."""
        try:
            action()
            self._stop_if_dead()
        except Death:
            self._store.close()
            self._start()
            return False
        except (StoreUnavailable, PositionMoved):
            self._ingest.reset()
            self._resume()
            return False
        return True

    def _survive_until(self, action: Callable[[], None]) -> None:
        for _ in range(ATTEMPTS_MAX):
            if self._survive(action):
                return
        raise AssertionError("it never comes to an end")

    # ------------------------------------------------------------------------------------- the audit

    def _audit(self) -> None:
        log = {
            (record.partition, record.offset): record
            for partition in self.partitions
            for record in partition.log
        }
        books = read_books(self.lab.connection, after=self._log_start)
        letters = [(letter.partition, letter.record_offset) for letter in self._post.safe]
        audit(log, self._given, books, letters)
        for letter in self._post.safe:
            record = log[letter.partition, letter.record_offset]
            assert (letter.record_key, letter.record_value) == (record.key, record.value)
            assert list(letter.record_headers) == record.headers
        assert self.lab.parked() == []
        assert f"{self.prefix}-{NEVER_OPENS}" not in books.versions
        stored = self.lab.positions.positions(self.partitions[0].topic)
        assert {number: at.next_offset for number, at in stored.items()} == {
            partition.number: len(partition.log) for partition in self.partitions
        }
        # Snapshots are made on the way: what is loaded through them is what the events say.
        for name, version in books.versions.items():
            loaded = self.lab.ledger.organisation(name)
            loaded.check_invariants()
            assert (loaded.version, loaded.balance) == (version, books.balances[name])
