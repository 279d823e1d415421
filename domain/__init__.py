"""The ledger's rules: what an organisation's credits are, how they are spent, and what each decision records.

Pure code: no driver, clock, randomness, environment or framework. Times, ids and rates come in as
arguments; decisions come out as events.
"""
