"""Logs and metrics of a service process."""

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

_REPEAT_INTERVAL_MIN_S = 10.0
_CONNECTION_LOGGERS = ("kafka.net", "psycopg.pool")
_PDF_LOGGERS = ("fontTools", "fpdf")


def log_to_stderr(level: str) -> None:
    """Log one line per record: time, level, module, message. Limit repeated messages of lost servers."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    handler.addFilter(RepeatedLogFilter(_REPEAT_INTERVAL_MIN_S))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("kafka").setLevel(logging.ERROR)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs a line per request to a gateway
    for name in _CONNECTION_LOGGERS:
        # They log every attempt to connect. The code that waits for the connection logs it once.
        logging.getLogger(name).setLevel(logging.ERROR if level == "DEBUG" else logging.CRITICAL)
    for name in _PDF_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)  # they log dozens of lines per page


def serve_metrics(port: int | None, registry: CollectorRegistry) -> None:
    """Serve /metrics on a loopback port. Do nothing if `port` is None."""
    if port is not None:
        start_http_server(port, "127.0.0.1", registry)


class _OneLine(logging.Formatter):
    """Formats a message as one line, even if a driver's message has several. A traceback still follows."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = " ".join(record.message.split())
        return super().formatMessage(record)


class MetricsCollector(Collector):
    """Reads the values when Prometheus scrapes. The hot path only updates plain integers."""

    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """Return the current metrics."""
        return self._read()


def consumer_metrics(consumer: UsageConsumer) -> MetricsCollector:
    """Return metrics of the consumer: records by outcome, lag by partition, failures."""

    def read() -> Iterable[Metric]:
        records = CounterMetricFamily(
            "creditledger_usage_records", "Usage records by outcome.", labels=["outcome"]
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
    """Return metrics of the projections: positions and lag."""

    def read() -> Iterable[Metric]:
        progress = runner.progress()
        position = GaugeMetricFamily(
            "creditledger_projection_position", "Last log position in the projection.", labels=["projection"]
        )
        for name, value in progress.positions.items():
            position.add_metric([name], value)
        lag = GaugeMetricFamily("creditledger_projection_lag", "Log positions not yet projected.")
        lag.add_metric([], progress.lag)
        return position, lag

    return MetricsCollector(read)


def payment_metrics(worker: PaymentWorker) -> MetricsCollector:
    """Return metrics of payments: pending, open refunds, open flags, failures."""

    def read() -> Iterable[Metric]:
        payment_counts = worker.payment_counts
        pending = GaugeMetricFamily("creditledger_payments_pending", "Payments that are not paid yet.")
        pending.add_metric([], payment_counts.pending)
        oldest = GaugeMetricFamily(
            "creditledger_payments_oldest_pending_seconds",
            "Age of the oldest pending payment; 0 if none is pending.",
        )
        oldest.add_metric([], payment_counts.oldest_pending_s)
        refunds = GaugeMetricFamily(
            "creditledger_payments_open_refunds", "Payments with a refund that the gateway has not confirmed."
        )
        refunds.add_metric([], payment_counts.open_refunds)
        flagged = GaugeMetricFamily(
            "creditledger_payments_flagged", "Open flags of payments, which staff must review."
        )
        flagged.add_metric([], payment_counts.flagged)
        failures = CounterMetricFamily(
            "creditledger_payments_interruptions", "Times a payment could not be processed."
        )
        failures.add_metric([], worker.failures)
        return pending, oldest, refunds, flagged, failures

    return MetricsCollector(read)


def top_up_metrics(worker: AutoTopUpWorker) -> MetricsCollector:
    """Return metrics of auto top-ups: started top-ups and failures."""

    def read() -> Iterable[Metric]:
        return (
            _counter("creditledger_top_ups_begun", "Top-ups that were started.", worker.begun),
            _counter(
                "creditledger_top_ups_interruptions",
                "Times an organisation could not be topped up.",
                worker.failures,
            ),
        )

    return MetricsCollector(read)


def publisher_metrics(publisher: Publisher) -> MetricsCollector:
    """Return metrics of the publisher: records, position and lag by topic, failures."""

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
        for topic, status in dict(publisher.statuses).items():
            position.add_metric([topic], status.position)
            lag.add_metric([topic], status.lag)
        is_leader = GaugeMetricFamily(
            "creditledger_publisher_leads", "1 if this process publishes, 0 if it is on standby."
        )
        is_leader.add_metric([], publisher.is_leader)
        failures = CounterMetricFamily(
            "creditledger_publisher_interruptions", "Times the publisher had to recover."
        )
        failures.add_metric([], publisher.failures)
        too_large = CounterMetricFamily(
            "creditledger_publisher_too_large",
            "Times a topic refused records because of their size. The publisher stops there.",
        )
        too_large.add_metric([], publisher.too_large)
        return records, position, lag, is_leader, failures, too_large

    return MetricsCollector(read)


def webhook_metrics(deliverer: WebhookDeliverer) -> MetricsCollector:
    """Return metrics of webhooks: attempts by outcome, backlog, failures."""

    def read() -> Iterable[Metric]:
        attempts = CounterMetricFamily(
            "creditledger_webhook_attempts", "Delivery attempts by outcome.", labels=["outcome"]
        )
        attempts.add_metric(["delivered"], deliverer.delivered)
        attempts.add_metric(["failed"], deliverer.failed)
        backlog = deliverer.backlog
        return (
            attempts,
            _gauge("creditledger_webhook_lag", "Log positions not yet processed.", deliverer.lag),
            _gauge("creditledger_webhook_pending", "Deliveries that are not delivered yet.", backlog.pending),
            _gauge(
                "creditledger_webhook_oldest_seconds", "Age of the oldest pending delivery.", backlog.oldest_s
            ),
            _counter("creditledger_webhook_endpoints_disabled", "Endpoints disabled.", deliverer.disabled),
            _gauge(
                "creditledger_webhook_leads",
                "1 if this process delivers, 0 if it is on standby.",
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
