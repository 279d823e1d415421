"""Permissions: one rule for every operation, and the check of a rule.

`RULES` is the complete table. The name of a rule says who may call, not what the operation does: readers may
also request quotes by POST. A route without a rule cannot be created, and a rule without a route fails a
test. To add an operation, add its rule.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from api.http.problems import HttpProblem
from domain.credits.errors import OrganisationNotFound
from domain.identity.principals import Principal, PrincipalKind, Role


@dataclass(frozen=True)
class Rule:
    """The callers that may use an operation. Every other caller is refused."""

    allowed_kinds: frozenset[PrincipalKind] = frozenset()
    """Principals of these kinds may call it, for every organisation."""
    allowed_roles: frozenset[Role] = frozenset()
    """Persons with one of these roles in the organisation may call it."""
    allows_api_keys: bool = False
    """Whether an API key of the organisation may call it."""
    signed_in: bool = False
    """Every person with a session may call it. It concerns no organisation."""
    without_organisation: bool = False
    """Whether the operation concerns no single organisation."""
    is_public: bool = False
    """Everyone may call it, without authentication."""

    @property
    def access_text(self) -> str:
        """The allowed callers, as a sentence of the documentation."""
        if self.is_public:
            return "Allowed without authentication."
        if self.signed_in:
            return "Allowed for every signed-in person."
        kinds = [name for kind, name in _KIND_NAMES.items() if kind in self.allowed_kinds]
        roles = [f"{role.value}s" for role in Role if role in self.allowed_roles]
        own = [f"{' and '.join(roles)} of the organisation"] if roles else []
        *others, last = own + ["its API keys"] * self.allows_api_keys + kinds
        return f"Allowed for {' and '.join([', '.join(others)] * bool(others) + [last])}."


_KIND_NAMES: Final = {
    PrincipalKind.SERVICE: "the service",
    PrincipalKind.STAFF: "staff",
    PrincipalKind.AUDITOR: "auditors",
}
_ANY_ROLE: Final = frozenset(Role)

PUBLIC: Final = Rule(is_public=True)
READERS: Final = Rule(
    allowed_kinds=frozenset({PrincipalKind.STAFF, PrincipalKind.AUDITOR}),
    allowed_roles=_ANY_ROLE,
    allows_api_keys=True,
)
READERS_OR_SERVICE: Final = Rule(
    allowed_kinds=READERS.allowed_kinds | {PrincipalKind.SERVICE},
    allowed_roles=_ANY_ROLE,
    allows_api_keys=True,
)
STAFF_ONLY: Final = Rule(allowed_kinds=frozenset({PrincipalKind.STAFF}))
STAFF_ADMIN_OR_MEMBER: Final = Rule(allowed_kinds=frozenset({PrincipalKind.STAFF}), allowed_roles=_ANY_ROLE)
SERVICE_ONLY: Final = Rule(allowed_kinds=frozenset({PrincipalKind.SERVICE}))
STAFF_OR_ADMIN: Final = Rule(
    allowed_kinds=frozenset({PrincipalKind.STAFF}), allowed_roles=frozenset({Role.ADMIN})
)
STAFF_ADMIN_OR_AUDITOR: Final = Rule(
    allowed_kinds=STAFF_OR_ADMIN.allowed_kinds | {PrincipalKind.AUDITOR},
    allowed_roles=STAFF_OR_ADMIN.allowed_roles,
)

READERS_WITHOUT_API_KEYS: Final = Rule(allowed_kinds=READERS.allowed_kinds, allowed_roles=_ANY_ROLE)
SIGNED_IN: Final = Rule(signed_in=True)
STAFF_OR_AUDITOR: Final = Rule(allowed_kinds=READERS.allowed_kinds, without_organisation=True)

_ORGANISATION: Final = "/v1/organisations/{organisation_id}"

RULES: Final[Mapping[str, Rule]] = {
    f"PUT {_ORGANISATION}": STAFF_ONLY,
    f"GET {_ORGANISATION}/balance": READERS_OR_SERVICE,
    f"GET {_ORGANISATION}/usage-summary": READERS,
    f"GET {_ORGANISATION}/daily-usage": READERS,
    f"GET {_ORGANISATION}/transactions": READERS,
    f"GET {_ORGANISATION}/transactions/{{run_id}}/charges": READERS,
    f"GET {_ORGANISATION}/events": READERS,
    f"GET {_ORGANISATION}/subscription": READERS,
    f"POST {_ORGANISATION}/grants": STAFF_ONLY,
    f"POST {_ORGANISATION}/purchases": STAFF_ONLY,
    f"POST {_ORGANISATION}/refunds": STAFF_ONLY,
    f"POST {_ORGANISATION}/purchase-quotes": READERS,
    f"POST {_ORGANISATION}/payments": STAFF_OR_ADMIN,
    f"POST {_ORGANISATION}/custom-payments": STAFF_ONLY,
    f"POST {_ORGANISATION}/payments/{{payment_id}}/checkout": STAFF_OR_ADMIN,
    f"POST {_ORGANISATION}/payments/{{payment_id}}/recheck": STAFF_OR_ADMIN,
    f"POST {_ORGANISATION}/payments/{{payment_id}}/abandon": STAFF_OR_ADMIN,
    f"POST {_ORGANISATION}/payments/{{payment_id}}/refunds": STAFF_ONLY,
    f"POST {_ORGANISATION}/payments/{{payment_id}}/flags/settle": STAFF_ONLY,
    "GET /v1/payment-flags": STAFF_OR_AUDITOR,
    f"GET {_ORGANISATION}/payments": READERS,
    f"GET {_ORGANISATION}/auto-top-up": READERS,
    f"PUT {_ORGANISATION}/auto-top-up": STAFF_OR_ADMIN,
    f"DELETE {_ORGANISATION}/auto-top-up": STAFF_OR_ADMIN,
    f"GET {_ORGANISATION}/payments/{{payment_id}}": READERS,
    "POST /v1/gateways/{gateway}/webhooks": PUBLIC,
    "POST /credits/payments/{payment_id}/return": PUBLIC,
    f"PUT {_ORGANISATION}/price": STAFF_ONLY,
    f"PUT {_ORGANISATION}/plan": STAFF_ONLY,
    f"PUT {_ORGANISATION}/time-zone": STAFF_ONLY,
    f"POST {_ORGANISATION}/api-keys": STAFF_OR_ADMIN,
    f"GET {_ORGANISATION}/api-keys": STAFF_ADMIN_OR_AUDITOR,
    f"DELETE {_ORGANISATION}/api-keys/{{key_id}}": STAFF_OR_ADMIN,
    f"POST {_ORGANISATION}/webhook-endpoints": STAFF_OR_ADMIN,
    f"GET {_ORGANISATION}/webhook-endpoints": STAFF_ADMIN_OR_AUDITOR,
    f"DELETE {_ORGANISATION}/webhook-endpoints/{{endpoint_id}}": STAFF_OR_ADMIN,
    f"POST {_ORGANISATION}/webhook-endpoints/{{endpoint_id}}/secret": STAFF_OR_ADMIN,
    f"POST {_ORGANISATION}/webhook-endpoints/{{endpoint_id}}/enable": STAFF_OR_ADMIN,
    f"POST {_ORGANISATION}/webhook-endpoints/{{endpoint_id}}/test": STAFF_OR_ADMIN,
    f"GET {_ORGANISATION}/webhook-endpoints/{{endpoint_id}}/deliveries": STAFF_ADMIN_OR_AUDITOR,
    f"PUT {_ORGANISATION}/low-balance-threshold": STAFF_OR_ADMIN,
    f"GET {_ORGANISATION}/billing-details": READERS,
    f"PUT {_ORGANISATION}/billing-details": STAFF_OR_ADMIN,
    f"DELETE {_ORGANISATION}/billing-details": STAFF_OR_ADMIN,
    f"GET {_ORGANISATION}/invoices": READERS,
    f"GET {_ORGANISATION}/invoices/{{invoice_id}}": READERS,
    f"GET {_ORGANISATION}/invoices/{{invoice_id}}.pdf": READERS,
    f"POST {_ORGANISATION}/payments/{{payment_id}}/invoice": STAFF_ADMIN_OR_MEMBER,
    f"POST {_ORGANISATION}/holds": SERVICE_ONLY,
    f"POST {_ORGANISATION}/holds/{{hold_id}}/settle": SERVICE_ONLY,
    f"POST {_ORGANISATION}/holds/{{hold_id}}/release": SERVICE_ONLY,
    f"GET {_ORGANISATION}/holds": READERS_OR_SERVICE,
    f"GET {_ORGANISATION}/holds/{{hold_id}}": READERS_OR_SERVICE,
    f"POST {_ORGANISATION}/quotes": READERS_OR_SERVICE,
    "GET /sign-in": PUBLIC,
    "POST /sign-in": PUBLIC,
    "POST /sign-out": SIGNED_IN,
    "POST /credits/preferences": SIGNED_IN,
    "GET /credits": READERS_WITHOUT_API_KEYS,
    "GET /credits/months/{month}": READERS_WITHOUT_API_KEYS,
    "GET /credits/events/{event_id}": READERS_WITHOUT_API_KEYS,
    "GET /credits/runs": READERS_WITHOUT_API_KEYS,
    "GET /credits/balance": READERS_WITHOUT_API_KEYS,
    "GET /credits/subscription": READERS_WITHOUT_API_KEYS,
    "GET /credits/export/{name}": READERS_WITHOUT_API_KEYS,
    "GET /credits/organisations": SIGNED_IN,
    "GET /credits/billing": READERS_WITHOUT_API_KEYS,
    "POST /credits/billing": STAFF_OR_ADMIN,
    "POST /credits/billing/recheck": STAFF_OR_ADMIN,
    "POST /credits/billing/abandon": STAFF_OR_ADMIN,
    "POST /credits/billing/invoice": STAFF_ADMIN_OR_MEMBER,
    "GET /credits/billing/papers/{paper}": READERS_WITHOUT_API_KEYS,
    "GET /credits/payments/{payment_id}/cancelled": SIGNED_IN,
    "GET /credits/auto-top-up": READERS_WITHOUT_API_KEYS,
    "POST /credits/auto-top-up": STAFF_OR_ADMIN,
    "POST /credits/auto-top-up/switch-on": STAFF_OR_ADMIN,
    "POST /credits/auto-top-up/switch-off": STAFF_OR_ADMIN,
    "GET /credits/purchase": STAFF_OR_ADMIN,
    "POST /credits/purchase": STAFF_OR_ADMIN,
    "GET /credits/purchase/review": STAFF_OR_ADMIN,
    "GET /credits/purchase/payment": STAFF_OR_ADMIN,
    "POST /credits/purchase/payment": STAFF_OR_ADMIN,
    "GET /credits/staff/grant": STAFF_ONLY,
    "POST /credits/staff/grant": STAFF_ONLY,
    "GET /credits/staff/refund": STAFF_ONLY,
    "POST /credits/staff/refund": STAFF_ONLY,
    "GET /credits/staff/refund-payment": STAFF_ONLY,
    "POST /credits/staff/refund-payment": STAFF_ONLY,
    "GET /credits/staff/custom-payment": STAFF_ONLY,
    "POST /credits/staff/custom-payment": STAFF_ONLY,
    "GET /credits/staff/terms": STAFF_ONLY,
    "POST /credits/staff/price": STAFF_ONLY,
    "POST /credits/staff/plan": STAFF_ONLY,
    "POST /credits/staff/settle-flag": STAFF_ONLY,
    "GET /credits/flags": STAFF_OR_AUDITOR,
    "GET /credits/dead-letters": STAFF_OR_AUDITOR,
    "GET /credits/{address}": PUBLIC,
    "GET /credits/reconciliation": STAFF_OR_AUDITOR,
    "GET /assets/{digest}/{name}": PUBLIC,
    "PUT /v1/people/{user_id}": STAFF_ONLY,
    "GET /v1/people/{user_id}": STAFF_ONLY,
    "DELETE /v1/people/{user_id}": STAFF_ONLY,
    "GET /": PUBLIC,
    "GET /docs": PUBLIC,
    "GET /docs/reference.css": PUBLIC,
    "GET /openapi.json": PUBLIC,
    "GET /healthz": PUBLIC,
    "GET /readyz": PUBLIC,
    "GET /metrics": PUBLIC,
    "GET /problems/{name}": PUBLIC,
}


class RuleMissing(Exception):
    """A route has no permission rule."""


def rule_of(methods: Collection[str], path: str) -> Rule:
    """Return the rule of a route with one method.

    Raises:
        RuleMissing: the route has no rule.
    """
    name = " ".join([*sorted(methods), path])
    try:
        return RULES[name]
    except KeyError:
        raise RuleMissing(f"{name} has no rule in api.http.permissions") from None


def check_access(principal: Principal, rule: Rule, organisation_id: str | None) -> None:
    """Check a principal against a rule; None: the request concerns no organisation.

    A caller who belongs to other organisations gets the same response for an existing organisation and for an
    unknown one, before any lookup. Operations on no single organisation are closed to members of
    organisations.

    Raises:
        OrganisationNotFound: the caller does not belong to the organisation.
        HttpProblem: role-insufficient.
    """
    if principal.kind in rule.allowed_kinds or rule.signed_in:
        return
    if principal.belongs_to_organisations and organisation_id is not None:
        role = principal.memberships.get(organisation_id)
        if role is None:
            raise OrganisationNotFound
        if rule.allows_api_keys if principal.kind is PrincipalKind.KEY else role in rule.allowed_roles:
            return
    raise HttpProblem("role-insufficient", f"You may not call this operation. {rule.access_text}")
