"""Shared by all aggregates: events, the command runner, the event store port, money, time, errors."""
