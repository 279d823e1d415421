"""Logs and metrics of a process."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from consumers.publishing.publisher import Publisher
from consumers.usage.batch import Counts
from consumers.usage.consumer import UsageConsumer
from infra.kafka.connections import RepeatedLogFilter
from infra.payments.auto_top_up_worker import AutoTopUpWorker
from infra.payments.payment_worker import PaymentWorker
from infra.webhooks.deliverer import WebhookDeliverer
from projections.engine.runner import ProjectionRunner

_REPEATED_AT_MOST_EVERY_S = 10.0
_CLIENTS = ("kafka.net", "psycopg.pool")
_PRINTERS = ("fontTools", "fpdf")


def log_to_stderr(level: str) -> None:
    """Log a line an event: time, level, module, message. A lost broker is reported, not rained."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    handler.addFilter(RepeatedLogFilter(_REPEATED_AT_MOST_EVERY_S))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("kafka").setLevel(logging.ERROR)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for every question to a gateway
    for name in _CLIENTS:
        # They report every attempt to connect; whoever waits for the connection says it once.
        logging.getLogger(name).setLevel(logging.ERROR if level == "DEBUG" else logging.CRITICAL)
    for name in _PRINTERS:
        logging.getLogger(name).setLevel(logging.WARNING)  # a page is dozens of lines of theirs


def serve_metrics(port: int | None, registry: CollectorRegistry) -> None:
    """Serve /metrics on loopback; None serves nothing."""
    if port is not None:
        start_http_server(port, "127.0.0.1", registry)


class _OneLine(logging.Formatter):
    """Writes a message in one line, whatever a driver put in it; a traceback still follows."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = " ".join(record.message.split())
        return super().formatMessage(record)


class MetricsCollector(Collector):
    """Reads numbers when Prometheus asks, so that the hot path counts in plain integers."""

    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of this moment."""
        return self._read()


def consumer_metrics(consumer: UsageConsumer) -> MetricsCollector:
    """Return what became of the records, the lag by partition, and what is wrong."""

    def read() -> Iterable[Metric]:
        records = CounterMetricFamily(
            "creditledger_usage_records", "Usage records by what became of them.", labels=["outcome"]
        )
        for outcome in Counts.__slots__:
            records.add_metric([outcome], getattr(consumer.ingest.counts, outcome))
        lag = GaugeMetricFamily(
            "creditledger_usage_lag_records", "Records not yet charged, by partition.", labels=["partition"]
        )
        for partition, behind in dict(consumer.lag).items():
            lag.add_metric([str(partition)], behind)
        lost = GaugeMetricFamily(
            "creditledger_usage_partitions_stopped", "Partitions stopped because records were lost."
        )
        lost.add_metric([], len(consumer.lost_partitions))
        failures = CounterMetricFamily(
            "creditledger_usage_interruptions", "Times the consumer had to recover."
        )
        failures.add_metric([], consumer.failures)
        return records, lag, lost, failures

    return MetricsCollector(read)


def projection_metrics(runner: ProjectionRunner) -> MetricsCollector:
    """Return where the projections stand and how far behind the log they are."""

    def read() -> Iterable[Metric]:
        progress = runner.progress()
        position = GaugeMetricFamily(
            "creditledger_projection_position", "Last log position in the rows.", labels=["projection"]
        )
        for name, value in progress.positions.items():
            position.add_metric([name], value)
        lag = GaugeMetricFamily("creditledger_projection_lag", "Log positions not yet projected.")
        lag.add_metric([], progress.lag)
        return position, lag

    return MetricsCollector(read)


def payment_metrics(worker: PaymentWorker) -> MetricsCollector:
    """Return what is open, since when, and what somebody has to look at."""

    def read() -> Iterable[Metric]:
        payment_counts = worker.payment_counts
        pending = GaugeMetricFamily("creditledger_payments_pending", "Payments that nobody has paid yet.")
        pending.add_metric([], payment_counts.pending)
        oldest = GaugeMetricFamily(
            "creditledger_payments_oldest_pending_seconds", "Age of the oldest of them, 0 without any."
        )
        oldest.add_metric([], payment_counts.oldest_pending_s)
        refunds = GaugeMetricFamily(
            "creditledger_payments_open_refunds", "Payments with a refund that the gateway has not answered."
        )
        refunds.add_metric([], payment_counts.open_refunds)
        flagged = GaugeMetricFamily(
            "creditledger_payments_flagged", "Flags of payments that are open: somebody has to look."
        )
        flagged.add_metric([], payment_counts.flagged)
        failures = CounterMetricFamily(
            "creditledger_payments_interruptions", "Times a payment could not be looked after."
        )
        failures.add_metric([], worker.failures)
        return pending, oldest, refunds, flagged, failures

    return MetricsCollector(read)


def top_up_metrics(worker: AutoTopUpWorker) -> MetricsCollector:
    """Return how many top-ups were begun, and what is wrong."""

    def read() -> Iterable[Metric]:
        return (
            _counter("creditledger_top_ups_begun", "Top-ups that were begun.", worker.begun),
            _counter(
                "creditledger_top_ups_interruptions",
                "Times an organisation could not be topped up.",
                worker.failures,
            ),
        )

    return MetricsCollector(read)


def publisher_metrics(publisher: Publisher) -> MetricsCollector:
    """Return what was published, by topic, how far behind the log it is, and what is wrong."""

    def read() -> Iterable[Metric]:
        records = CounterMetricFamily(
            "creditledger_published_records", "Records acknowledged, repeats included.", labels=["topic"]
        )
        for topic, count in dict(publisher.records).items():
            records.add_metric([topic], count)
        position = GaugeMetricFamily(
            "creditledger_published_position", "Last log position published.", labels=["topic"]
        )
        lag = GaugeMetricFamily(
            "creditledger_published_lag", "Log positions not yet published.", labels=["topic"]
        )
        for topic, standing in dict(publisher.statuses).items():
            position.add_metric([topic], standing.position)
            lag.add_metric([topic], standing.lag)
        is_leader = GaugeMetricFamily(
            "creditledger_publisher_leads", "1 if this one publishes, 0 if it stands by."
        )
        is_leader.add_metric([], publisher.is_leader)
        failures = CounterMetricFamily(
            "creditledger_publisher_interruptions", "Times the publisher had to recover."
        )
        failures.add_metric([], publisher.failures)
        too_large = CounterMetricFamily(
            "creditledger_publisher_too_large",
            "Times a topic refused records for their size: nothing goes on.",
        )
        too_large.add_metric([], publisher.too_large)
        return records, position, lag, is_leader, failures, too_large

    return MetricsCollector(read)


def webhook_metrics(deliverer: WebhookDeliverer) -> MetricsCollector:
    """Return what became of attempts, what waits, and what is wrong."""

    def read() -> Iterable[Metric]:
        attempts = CounterMetricFamily(
            "creditledger_webhook_attempts", "Attempts to deliver, by how they ended.", labels=["outcome"]
        )
        attempts.add_metric(["delivered"], deliverer.delivered)
        attempts.add_metric(["failed"], deliverer.failed)
        backlog = deliverer.backlog
        return (
            attempts,
            _gauge("creditledger_webhook_lag", "Log positions not yet looked at.", deliverer.lag),
            _gauge("creditledger_webhook_pending", "Deliveries that wait for an attempt.", backlog.pending),
            _gauge("creditledger_webhook_oldest_seconds", "Age of the oldest of them.", backlog.oldest_s),
            _counter("creditledger_webhook_endpoints_disabled", "Endpoints disabled.", deliverer.disabled),
            _gauge(
                "creditledger_webhook_leads",
                "1 if this one delivers, 0 if it stands by.",
                deliverer.is_leader,
            ),
            _counter(
                "creditledger_webhook_interruptions",
                "Times the deliverer had to recover.",
                deliverer.failures,
            ),
        )

    return MetricsCollector(read)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, value=value)
