"""What a request passes after routing and before its handler: who asks, and whether they may."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request

from api.http import permissions
from api.http.dependencies import services_of
from api.http.permissions import Rule
from api.http.problems import HttpProblem
from api.http.rate_limits import WINDOW_S, Quota
from domain.identity.principals import (
    Credentials,
    IdentityProviderUnavailable,
    InvalidCredentials,
    Principal,
)

KEY_HEADER: Final = "X-API-Key"
_CHALLENGE: Final = 'Bearer realm="creditledger"'


async def authenticate(request: Request, rule: Rule) -> None:
    """Find out who asks, and let them pass; `request.state.principal` knows it from then on.

    Raises:
        HttpProblem: credentials-missing, credentials-refused, role-insufficient, too-many-requests or
            identities-unavailable.
        OrganisationNotFound: it is none of theirs.
        psycopg.OperationalError: the database does not answer.
    """
    if rule.is_public:
        return
    credentials = credentials_from(request.headers)
    try:
        principal = await run_in_threadpool(services_of(request).identify, credentials)
    except InvalidCredentials as refusal:
        raise _invalid_credentials(str(refusal)) from None
    except IdentityProviderUnavailable as error:
        raise HttpProblem("identities-unavailable", str(error)) from error
    authorize(request, rule, principal, _organisation_id(request))


def authorize(request: Request, rule: Rule, principal: Principal, organisation_id: str | None) -> None:
    """Let somebody known pass, if the rule and the quotas do; None is a request about no organisation.

    Raises:
        HttpProblem: role-insufficient or too-many-requests.
        OrganisationNotFound: it is none of theirs.
    """
    request.state.principal = principal
    request.state.allowances = []
    limits = services_of(request).limits
    _spend_quota(request, limits.principals, f"{principal.kind} {principal.subject}")
    permissions.check_access(principal, rule, organisation_id)
    if organisation_id is not None:
        # After the check: what strangers ask for costs an organisation nothing, and tells them nothing.
        _spend_quota(request, limits.organisations, organisation_id)


def _organisation_id(request: Request) -> str | None:
    """Return which organisation a request is about; None: about no one of them."""
    segment: str | None = request.path_params.get("organisation_id")
    return None if segment is None else unquote(segment, errors="replace")


def credentials_from(headers: Headers) -> Credentials:
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
        raise _invalid_credentials("send one token or one key")
    if keys:
        return Credentials(key=keys[0])
    scheme, _, token = authorizations[0].partition(" ")
    if scheme.lower() != "bearer":
        raise _invalid_credentials("the Authorization header does not have a bearer token")
    return Credentials(token=token.strip())


def _spend_quota(request: Request, quota: Quota, caller: str) -> None:
    allowance = quota.take(caller)
    request.state.allowances.append(allowance)
    if allowance.is_exceeded:
        raise HttpProblem(
            "too-many-requests",
            f"more than {allowance.quota} requests in {WINDOW_S} seconds of this {allowance.policy}",
            headers={"Retry-After": str(allowance.retry_in_s)},
        )


def _invalid_credentials(reason: str) -> HttpProblem:
    challenge = {"WWW-Authenticate": f'{_CHALLENGE}, error="invalid_token"'}
    return HttpProblem("credentials-refused", reason, headers=challenge)
