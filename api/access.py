"""Who may call what: one rule for every operation, and how a rule is applied.

The table is the whole of it. A route that is not in it cannot be made, and a line without a route fails a
test. To add an operation, add its line.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from api.identity import Kind, Membership, Principal
from api.problems import HttpProblem
from domain.errors import OrganisationUnknown


@dataclass(frozen=True)
class Rule:
    """Who may call an operation; everybody else who is known is refused."""

    anywhere: frozenset[Kind] = frozenset()
    """These may, whichever organisation it is about."""
    members: frozenset[Membership] = frozenset()
    """Persons may who are one of these in the organisation it is about."""
    keys: bool = False
    """Whether an API key of the organisation may."""
    signed_in: bool = False
    """Whoever is signed in to the pages may; it is about no organisation."""
    without_organisation: bool = False
    """It is about none, or about all of them."""
    is_open: bool = False
    """Anybody may, and nobody is asked who they are."""

    @property
    def in_words(self) -> str:
        """Who may, as a sentence of the documentation."""
        if self.is_open:
            return "Open to everybody."
        if self.signed_in:
            return "For whoever is signed in."
        kinds = [name for kind, name in _IN_WORDS.items() if kind in self.anywhere]
        roles = [f"{role.value}s" for role in Membership if role in self.members]
        own = [f"{' and '.join(roles)} of the organisation"] if roles else []
        return f"For {', '.join(own + ['its API keys'] * self.keys + kinds)}."


_IN_WORDS: Final = {Kind.SERVICE: "the service", Kind.STAFF: "staff", Kind.AUDITOR: "auditors"}
_EVERYONE: Final = frozenset(Membership)

OPEN: Final = Rule(is_open=True)
READ: Final = Rule(anywhere=frozenset({Kind.STAFF, Kind.AUDITOR}), members=_EVERYONE, keys=True)
READ_OR_PIPELINE: Final = Rule(anywhere=READ.anywhere | {Kind.SERVICE}, members=_EVERYONE, keys=True)
OFFICE: Final = Rule(anywhere=frozenset({Kind.STAFF}))
MEMBERS: Final = Rule(anywhere=frozenset({Kind.STAFF}), members=_EVERYONE)
PIPELINE: Final = Rule(anywhere=frozenset({Kind.SERVICE}))
OWNERS: Final = Rule(anywhere=frozenset({Kind.STAFF}), members=frozenset({Membership.ADMIN}))
OWNERS_OR_AUDITORS: Final = Rule(anywhere=OWNERS.anywhere | {Kind.AUDITOR}, members=OWNERS.members)

PAGE: Final = Rule(anywhere=READ.anywhere, members=_EVERYONE)
SIGNED_IN: Final = Rule(signed_in=True)
LOOKING: Final = Rule(anywhere=READ.anywhere, without_organisation=True)

_ORGANISATION: Final = "/v1/organisations/{organisation_id}"

RULES: Final[Mapping[str, Rule]] = {
    f"PUT {_ORGANISATION}": OFFICE,
    f"GET {_ORGANISATION}/balance": READ_OR_PIPELINE,
    f"GET {_ORGANISATION}/usage-summary": READ,
    f"GET {_ORGANISATION}/daily-usage": READ,
    f"GET {_ORGANISATION}/transactions": READ,
    f"GET {_ORGANISATION}/transactions/{{run_id}}/charges": READ,
    f"GET {_ORGANISATION}/events": READ,
    f"GET {_ORGANISATION}/subscription": READ,
    f"POST {_ORGANISATION}/grants": OFFICE,
    f"POST {_ORGANISATION}/purchases": OFFICE,
    f"POST {_ORGANISATION}/refunds": OFFICE,
    f"POST {_ORGANISATION}/purchase-quotes": READ,
    f"POST {_ORGANISATION}/payments": OWNERS,
    f"POST {_ORGANISATION}/custom-payments": OFFICE,
    f"POST {_ORGANISATION}/payments/{{payment_id}}/checkout": OWNERS,
    f"POST {_ORGANISATION}/payments/{{payment_id}}/recheck": OWNERS,
    f"POST {_ORGANISATION}/payments/{{payment_id}}/abandon": OWNERS,
    f"POST {_ORGANISATION}/payments/{{payment_id}}/refunds": OFFICE,
    f"POST {_ORGANISATION}/payments/{{payment_id}}/flags/settle": OFFICE,
    "GET /v1/payment-flags": LOOKING,
    f"GET {_ORGANISATION}/payments": READ,
    f"GET {_ORGANISATION}/auto-top-up": READ,
    f"PUT {_ORGANISATION}/auto-top-up": OWNERS,
    f"DELETE {_ORGANISATION}/auto-top-up": OWNERS,
    f"GET {_ORGANISATION}/payments/{{payment_id}}": READ,
    "POST /v1/gateways/{gateway}/webhooks": OPEN,
    "POST /credits/payments/{payment_id}/return": OPEN,
    f"PUT {_ORGANISATION}/price": OFFICE,
    f"PUT {_ORGANISATION}/plan": OFFICE,
    f"PUT {_ORGANISATION}/time-zone": OFFICE,
    f"POST {_ORGANISATION}/api-keys": OWNERS,
    f"GET {_ORGANISATION}/api-keys": OWNERS_OR_AUDITORS,
    f"DELETE {_ORGANISATION}/api-keys/{{key_id}}": OWNERS,
    f"POST {_ORGANISATION}/webhook-endpoints": OWNERS,
    f"GET {_ORGANISATION}/webhook-endpoints": OWNERS_OR_AUDITORS,
    f"DELETE {_ORGANISATION}/webhook-endpoints/{{endpoint_id}}": OWNERS,
    f"POST {_ORGANISATION}/webhook-endpoints/{{endpoint_id}}/secret": OWNERS,
    f"POST {_ORGANISATION}/webhook-endpoints/{{endpoint_id}}/enable": OWNERS,
    f"POST {_ORGANISATION}/webhook-endpoints/{{endpoint_id}}/test": OWNERS,
    f"GET {_ORGANISATION}/webhook-endpoints/{{endpoint_id}}/deliveries": OWNERS_OR_AUDITORS,
    f"PUT {_ORGANISATION}/low-balance-threshold": OWNERS,
    f"GET {_ORGANISATION}/billing-details": READ,
    f"PUT {_ORGANISATION}/billing-details": OWNERS,
    f"DELETE {_ORGANISATION}/billing-details": OWNERS,
    f"GET {_ORGANISATION}/invoices": READ,
    f"GET {_ORGANISATION}/invoices/{{invoice_id}}": READ,
    f"GET {_ORGANISATION}/invoices/{{invoice_id}}.pdf": READ,
    f"POST {_ORGANISATION}/payments/{{payment_id}}/invoice": MEMBERS,
    f"POST {_ORGANISATION}/holds": PIPELINE,
    f"POST {_ORGANISATION}/holds/{{hold_id}}/settle": PIPELINE,
    f"POST {_ORGANISATION}/holds/{{hold_id}}/release": PIPELINE,
    f"GET {_ORGANISATION}/holds": READ_OR_PIPELINE,
    f"GET {_ORGANISATION}/holds/{{hold_id}}": READ_OR_PIPELINE,
    f"POST {_ORGANISATION}/quotes": READ_OR_PIPELINE,
    "GET /sign-in": OPEN,
    "POST /sign-in": OPEN,
    "POST /sign-out": SIGNED_IN,
    "POST /credits/preferences": SIGNED_IN,
    "GET /credits": PAGE,
    "GET /credits/months/{month}": PAGE,
    "GET /credits/events/{event_id}": PAGE,
    "GET /credits/runs": PAGE,
    "GET /credits/balance": PAGE,
    "GET /credits/subscription": PAGE,
    "GET /credits/export/{name}": PAGE,
    "GET /credits/organisations": SIGNED_IN,
    "GET /credits/billing": PAGE,
    "POST /credits/billing": OWNERS,
    "POST /credits/billing/recheck": OWNERS,
    "POST /credits/billing/abandon": OWNERS,
    "POST /credits/billing/invoice": OWNERS,
    "GET /credits/billing/papers/{paper}": PAGE,
    "GET /credits/payments/{payment_id}/cancelled": SIGNED_IN,
    "GET /credits/auto-top-up": PAGE,
    "POST /credits/auto-top-up": OWNERS,
    "POST /credits/auto-top-up/switch-on": OWNERS,
    "POST /credits/auto-top-up/switch-off": OWNERS,
    "GET /credits/purchase": OWNERS,
    "POST /credits/purchase": OWNERS,
    "GET /credits/purchase/review": OWNERS,
    "GET /credits/purchase/payment": OWNERS,
    "POST /credits/purchase/payment": OWNERS,
    "GET /credits/staff/grant": OFFICE,
    "POST /credits/staff/grant": OFFICE,
    "GET /credits/staff/refund": OFFICE,
    "POST /credits/staff/refund": OFFICE,
    "GET /credits/staff/refund-payment": OFFICE,
    "POST /credits/staff/refund-payment": OFFICE,
    "GET /credits/staff/custom-payment": OFFICE,
    "POST /credits/staff/custom-payment": OFFICE,
    "GET /credits/staff/terms": OFFICE,
    "POST /credits/staff/price": OFFICE,
    "POST /credits/staff/plan": OFFICE,
    "POST /credits/staff/settle-flag": OFFICE,
    "GET /credits/flags": LOOKING,
    "GET /credits/dead-letters": LOOKING,
    "GET /credits/{address}": OPEN,
    "GET /credits/reconciliation": LOOKING,
    "GET /assets/{digest}/{name}": OPEN,
    "PUT /v1/people/{user_id}": OFFICE,
    "GET /v1/people/{user_id}": OFFICE,
    "DELETE /v1/people/{user_id}": OFFICE,
    "GET /": OPEN,
    "GET /docs": OPEN,
    "GET /docs/reference.css": OPEN,
    "GET /openapi.json": OPEN,
    "GET /healthz": OPEN,
    "GET /readyz": OPEN,
    "GET /metrics": OPEN,
    "GET /problems/{name}": OPEN,
}


class RuleMissing(Exception):
    """A route has no rule, so it cannot be served."""


def rule_of(methods: Collection[str], path: str) -> Rule:
    """Return the rule of a route, which takes one method.

    Raises:
        RuleMissing: there is none.
    """
    name = " ".join([*sorted(methods), path])
    try:
        return RULES[name]
    except KeyError:
        raise RuleMissing(f"{name} has no rule in api.access") from None


def check(principal: Principal, rule: Rule, organisation_id: str | None) -> None:
    """Let a principal pass, or say why not; None is a request about no organisation.

    Whoever is of organisations learns nothing of others: one that is there and one that is not are answered
    alike, before anything is looked up. What is about no organisation is for nobody who is of some.

    Raises:
        OrganisationUnknown: the organisation is none of theirs.
        HttpProblem: role-insufficient.
    """
    if principal.kind in rule.anywhere or rule.signed_in:
        return
    if principal.is_of_organisations and organisation_id is not None:
        role = principal.memberships.get(organisation_id)
        if role is None:
            raise OrganisationUnknown
        if rule.keys if principal.kind is Kind.KEY else role in rule.members:
            return
    raise HttpProblem("role-insufficient", f"this is not for you. {rule.in_words}")
