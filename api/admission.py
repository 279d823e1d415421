"""What a request passes after routing and before its handler: who asks, and whether they may."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request

from api import access
from api.access import Rule
from api.dependencies import services_of
from api.identity import Credentials, CredentialsRefused, IdentitiesUnavailable, Principal
from api.limits import WINDOW_S, Quota
from api.problems import HttpProblem

KEY_HEADER: Final = "X-API-Key"
_CHALLENGE: Final = 'Bearer realm="creditledger"'


async def admit(request: Request, rule: Rule) -> None:
    """Find out who asks, and let them pass; `request.state.principal` knows it from then on.

    Raises:
        HttpProblem: credentials-missing, credentials-refused, role-insufficient, too-many-requests or
            identities-unavailable.
        OrganisationUnknown: it is none of theirs.
        psycopg.OperationalError: the database does not answer.
    """
    if rule.is_open:
        return
    credentials = presented(request.headers)
    try:
        principal = await run_in_threadpool(services_of(request).identify, credentials)
    except CredentialsRefused as refusal:
        raise _refused(str(refusal)) from None
    except IdentitiesUnavailable as error:
        raise HttpProblem("identities-unavailable", str(error)) from error
    let_in(request, rule, principal, _organisation_id(request))


def let_in(request: Request, rule: Rule, principal: Principal, organisation_id: str | None) -> None:
    """Let somebody known pass, if the rule and the quotas do; None is a request about no organisation.

    Raises:
        HttpProblem: role-insufficient or too-many-requests.
        OrganisationUnknown: it is none of theirs.
    """
    request.state.principal = principal
    request.state.allowances = []
    limits = services_of(request).limits
    _count(request, limits.principals, f"{principal.kind} {principal.subject}")
    access.check(principal, rule, organisation_id)
    if organisation_id is not None:
        # After the check: what strangers ask for costs an organisation nothing, and tells them nothing.
        _count(request, limits.organisations, organisation_id)


def _organisation_id(request: Request) -> str | None:
    """Return which organisation a request is about; None: about no one of them."""
    segment: str | None = request.path_params.get("organisation_id")
    return None if segment is None else unquote(segment, errors="replace")


def presented(headers: Headers) -> Credentials:
    """Return the credentials that a request presents.

    Raises:
        HttpProblem: credentials-missing, or credentials-refused where they are not one of one kind.
    """
    authorizations, keys = headers.getlist("authorization"), headers.getlist(KEY_HEADER)
    if not authorizations and not keys:
        raise HttpProblem(
            "credentials-missing",
            f"send a bearer token in Authorization, or an API key in {KEY_HEADER}",
            headers={"WWW-Authenticate": _CHALLENGE},
        )
    if len(authorizations) + len(keys) > 1:
        raise _refused("send one token or one key")
    if keys:
        return Credentials(key=keys[0])
    scheme, _, token = authorizations[0].partition(" ")
    if scheme.lower() != "bearer":
        raise _refused("the Authorization header does not have a bearer token")
    return Credentials(token=token.strip())


def _count(request: Request, quota: Quota, who: str) -> None:
    allowance = quota.take(who)
    request.state.allowances.append(allowance)
    if allowance.is_spent:
        raise HttpProblem(
            "too-many-requests",
            f"more than {allowance.quota} requests in {WINDOW_S} seconds of this {allowance.policy}",
            headers={"Retry-After": str(allowance.retry_in_s)},
        )


def _refused(reason: str) -> HttpProblem:
    challenge = {"WWW-Authenticate": f'{_CHALLENGE}, error="invalid_token"'}
    return HttpProblem("credentials-refused", reason, headers=challenge)
