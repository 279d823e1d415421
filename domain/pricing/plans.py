"""The plans that an organisation pays by."""

from __future__ import annotations

from enum import StrEnum


class Plan(StrEnum):
    """What an organisation pays by."""

    TRIAL = "trial"
    PAY_AS_YOU_GO = "pay_as_you_go"
    PRO = "pro"
    ENTERPRISE = "enterprise"
