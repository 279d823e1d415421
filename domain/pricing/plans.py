"""The plans of organisations."""

from __future__ import annotations

from enum import StrEnum


class Plan(StrEnum):
    """The plan of an organisation."""

    TRIAL = "trial"
    PAY_AS_YOU_GO = "pay_as_you_go"
    PRO = "pro"
    ENTERPRISE = "enterprise"
