"""A photo-processing pipeline that never was: believable usage traffic, and an account of what was sent.

The simulator stands for the program on the other side of Kafka. It shares no code with the ledger, so
that its tally is a second opinion on what the ledger must have charged.
"""
