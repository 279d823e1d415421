"""The projection engine: event log, runner, checkpoints, rebuild. It knows no single projection."""
