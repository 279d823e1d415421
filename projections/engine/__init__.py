"""How projections are kept: event log, runner, checkpoints, rebuild. It names no projection."""
