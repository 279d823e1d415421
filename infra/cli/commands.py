"""The commands of `creditledger`. Machine-readable output goes to stdout, logs go to stderr."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import psycopg
from kafka import KafkaConsumer, TopicPartition
from prometheus_client import CollectorRegistry

from consumers.usage.broker_offsets import known_offsets
from infra.cli.simulate_pipeline import simulate
from infra.clock import new_id, utc_now
from infra.credits.hold_expiry import HoldExpiryWorker
from infra.event_store.datastore import LedgerDatastore
from infra.event_store.kafka_positions import PostgresKafkaPositions
from infra.event_store.snapshot_retention import SnapshotRetentionWorker
from infra.invoicing.invoice_worker import InvoiceWorker
from infra.kafka.connections import connection_options
from infra.kafka.dead_letters import dead_letter_fields, read_dead_letters
from infra.migrations.migrate import migrate
from infra.payments.auto_top_up_worker import AutoTopUpWorker
from infra.payments.payment_worker import PaymentWorker
from infra.service.composition import (
    credits_of,
    open_invoicing,
    open_ledger,
    open_payments,
    publisher,
    token_verifier,
    usage_consumer,
    webhook_deliverer,
)
from infra.service.process import (
    database_url,
    owner_database_url,
    require_broker,
    run_in_threads,
    stop_on_signals,
    tune_for_throughput,
)
from infra.service.telemetry import (
    consumer_metrics,
    payment_metrics,
    projection_metrics,
    publisher_metrics,
    serve_metrics,
    top_up_metrics,
    webhook_metrics,
)
from infra.settings import Settings, load_price_book
from infra.up.run import run_up
from infra.up.tokens import embedded_token, sign_in_link
from projections.audit.invariants import check
from projections.audit.row_comparison import compare_with_log
from projections.audit.seals import ExternalSeal, check_seals, seal
from projections.engine.rebuild import rebuild
from projections.engine.runner import ProjectionRunner
from projections.registry import ALL_PROJECTIONS, projections_named

log = logging.getLogger("creditledger")

Command = Callable[[Settings, argparse.Namespace], int]
"""Runs a command and returns its exit code."""


def up(settings: Settings, options: argparse.Namespace) -> int:
    """Run all parts until Ctrl-C or for the given number of seconds."""
    return run_up(settings, demo=options.demo, for_s=options.for_s, rate=options.rate)


def simulate_pipeline(settings: Settings, options: argparse.Namespace) -> int:
    """Publish the demo organisations' usage until stopped; write the totals sent to a file."""
    require_broker(settings)
    return simulate(settings, history=options.history, rate=options.rate, tally_file=options.tally)


def api(settings: Settings, _: argparse.Namespace) -> int:
    """Serve the HTTP API until SIGTERM or Ctrl-C."""
    # Imported here: the web server and its pages take 40 MB and a second, which no other part needs.
    from infra.service.api_server import serve

    verifier = token_verifier(settings)
    serve(settings, database_url(settings), verifier, stop_on_signals())
    return 0


def token(settings: Settings, options: argparse.Namespace) -> int:
    """Print a token from the embedded issuer of `up`."""
    _print(embedded_token(settings, options.role, options.organisation, options.subject))
    return 0


def sign_in(settings: Settings, options: argparse.Namespace) -> int:
    """Print a link that signs in to the pages of the running `up`."""
    url = f"http://{settings.api_host}:{settings.api_port}"
    _print(sign_in_link(settings, url, options.role, options.organisation, options.subject))
    return 0


def consume(settings: Settings, _: argparse.Namespace) -> int:
    """Charge usage until SIGTERM or Ctrl-C, then finish the current batch."""
    stop = stop_on_signals()
    require_broker(settings, wait_until_up=True)
    with usage_consumer(settings, database_url(settings, wait_until_up=True)) as consumer:
        registry = CollectorRegistry()
        registry.register(consumer_metrics(consumer))
        serve_metrics(settings.metrics_port, registry)
        tune_for_throughput()
        log.info("charging usage from %s", settings.usage_topic)
        consumer.run(stop)
        counts = consumer.ingest.counts
        log.info(
            "stopped: %d records, %d charges, %d repeats, %d dead letters",
            counts.records,
            counts.charges,
            counts.repeats,
            counts.dead_letters,
        )
    return 0


def project(settings: Settings, _: argparse.Namespace) -> int:
    """Keep the projections current until SIGTERM or Ctrl-C."""
    stop = stop_on_signals()
    runner = ProjectionRunner(database_url(settings, wait_until_up=True), ALL_PROJECTIONS)
    registry = CollectorRegistry()
    registry.register(projection_metrics(runner))
    serve_metrics(settings.metrics_port, registry)
    threading.Thread(target=_stop_runner, args=(runner, stop), daemon=True).start()
    tune_for_throughput()
    log.info("projecting")
    runner.run()
    return 0


def worker(settings: Settings, _: argparse.Namespace) -> int:
    """Process due holds, payments, subscriptions, invoices and old snapshots until SIGTERM or Ctrl-C."""
    stop = stop_on_signals()
    prices = load_price_book(settings.price_book)
    url = database_url(settings, wait_until_up=True)
    with (
        closing(open_ledger(url, prices=prices, pool_size=4)) as ledger,
        open_payments(settings, ledger) as payments,
    ):
        credit = credits_of(ledger)
        payment_worker = PaymentWorker(payments.tracking, credit.commands, url, utc_now)
        registry = CollectorRegistry()
        top_ups = AutoTopUpWorker(payments.top_ups, payments.tracking, url, utc_now, new_id)
        registry.register(payment_metrics(payment_worker))
        registry.register(top_up_metrics(top_ups))
        serve_metrics(settings.metrics_port, registry)
        log.info("processing holds, payments, top-ups and invoices")
        run_in_threads(
            [
                HoldExpiryWorker(credit.holds, url, utc_now).run,
                payment_worker.run,
                top_ups.run,
                InvoiceWorker(open_invoicing(settings, credit.commands), utc_now).run,
                SnapshotRetentionWorker(url).run,
            ],
            stop,
        )
    return 0


def deliver_webhooks(settings: Settings, _: argparse.Namespace) -> int:
    """Deliver webhooks until SIGTERM or Ctrl-C."""
    stop = stop_on_signals()
    with webhook_deliverer(settings, database_url(settings, wait_until_up=True)) as deliverer:
        registry = CollectorRegistry()
        registry.register(webhook_metrics(deliverer))
        serve_metrics(settings.metrics_port, registry)
        log.info("delivering webhooks")
        deliverer.run(stop)
        log.info("stopped: %d delivered, %d attempts failed", deliverer.delivered, deliverer.failed)
    return 0


def publish(settings: Settings, _: argparse.Namespace) -> int:
    """Publish events and balances until SIGTERM or Ctrl-C."""
    stop = stop_on_signals()
    require_broker(settings, wait_until_up=True)
    with publisher(settings, database_url(settings, wait_until_up=True)) as event_publisher:
        registry = CollectorRegistry()
        registry.register(publisher_metrics(event_publisher))
        serve_metrics(settings.metrics_port, registry)
        tune_for_throughput()
        log.info("publishing to %s and %s", settings.events_topic, settings.balances_topic)
        event_publisher.run(stop)
        published = ", ".join(f"{count} to {topic}" for topic, count in event_publisher.records.items())
        log.info("stopped: %s", published)
    return 0


def migrate_schema(settings: Settings, _: argparse.Namespace) -> int:
    """Apply pending migrations and print their names."""
    for name in migrate(owner_database_url(settings)):
        _print(name)
    return 0


def rebuild_projections(settings: Settings, options: argparse.Namespace) -> int:
    """Rebuild the named projections, or all of them. Readers use the old rows until the swap."""
    names = options.projection or [projection.name for projection in ALL_PROJECTIONS]
    _print_json(rebuild(owner_database_url(settings), projections_named(names)))
    return 0


def audit(settings: Settings, options: argparse.Namespace) -> int:
    """Check the ledger, or seal the log."""
    return _seal(settings) if options.what == "seal" else _audit_ledger(settings, options.seal)


def _audit_ledger(settings: Settings, stored_seal: Sequence[ExternalSeal]) -> int:
    """Check that projections, events, lots and seals agree.

    Prints a JSON line per finding, and returns 1 if there is one. The database owner may create tables, so
    for the owner every projected row is compared with a new replay of the log. The service's role compares
    sums only.
    """
    if settings.migration_database_url is not None:
        url = owner_database_url(settings)
        found = compare_with_log(url)
    else:
        url = database_url(settings)
        log.info("MIGRATION_DATABASE_URL is not set: comparing sums only, not every row")
        with psycopg.connect(url, autocommit=True) as connection:
            found = check(connection)
    with psycopg.connect(url, autocommit=True) as connection:
        found += check_seals(connection, stored_seal)
    for finding in found:
        _print(str(finding))
    match len(found):
        case 0:
            log.info("the audit has no findings")
        case 1:
            log.error("1 finding")
        case number:
            log.error("%d findings", number)
    return 1 if found else 0


def _seal(settings: Settings) -> int:
    """Seal the log up to its end. Print the seal, so that an auditor can store it elsewhere."""
    with psycopg.connect(database_url(settings), autocommit=True) as connection:
        latest = seal(connection)
    if latest is None:
        log.info("the log has no events to seal")
        return 0
    stored_seal = ExternalSeal(latest.position, latest.digest)
    _print_json({"seal": str(stored_seal), "position": latest.position, "events": latest.events})
    return 0


def dead_letters(settings: Settings, _: argparse.Namespace) -> int:
    """Print each dead letter as a JSON line."""
    require_broker(settings)
    is_empty = True
    for record in read_dead_letters(settings):
        is_empty = False
        _print_json(dead_letter_fields(record))
    if is_empty:
        log.info("there are no dead letters")
    return 0


def positions(settings: Settings, options: argparse.Namespace) -> int:
    """List the stored Kafka positions, or let a stopped partition continue after lost records."""
    datastore = LedgerDatastore(database_url(settings))
    store = PostgresKafkaPositions(datastore)
    topic = settings.usage_topic
    try:
        stored = store.positions(topic)
        if options.what == "list":
            for partition, position in sorted(stored.items()):
                _print_json(
                    {
                        "topic": topic,
                        "partition": partition,
                        "topic_id": position.topic_id,
                        "next_offset": position.next_offset,
                    }
                )
            return 0
        if options.partition not in stored:
            log.error("name a partition with a stored position: --partition N")
            return 2
        return _accept_loss(settings, store, options.partition)
    finally:
        datastore.close()


def _accept_loss(settings: Settings, store: PostgresKafkaPositions, partition: int) -> int:
    require_broker(settings)
    topic_partition = TopicPartition(settings.usage_topic, partition)
    consumer = KafkaConsumer(**connection_options(settings))
    try:
        earliest = known_offsets(consumer.beginning_offsets, [topic_partition]).get(topic_partition)
    finally:
        consumer.close()
    if earliest is None:
        log.error("partition %d has no leader now, so its first offset is unknown", partition)
        return 1
    stored = store.positions(settings.usage_topic)[partition]
    if earliest <= stored.next_offset:
        log.info(
            "nothing is lost: the partition begins at offset %d, the stored position is %d",
            earliest,
            stored.next_offset,
        )
        return 0
    store.start_log(settings.usage_topic, partition, stored.topic_id, earliest, stored)
    log.warning(
        "partition %d continues at offset %d; offsets %d to %d were never charged",
        partition,
        earliest,
        stored.next_offset,
        earliest - 1,
    )
    return 0


def _stop_runner(runner: ProjectionRunner, stop: threading.Event) -> None:
    stop.wait()
    runner.stop()


def _print_json(value: Any) -> None:
    _print(json.dumps(value, default=str))


def _print(line: str) -> None:
    print(line, file=sys.stdout, flush=True)  # noqa: T201 - this is the command's output
