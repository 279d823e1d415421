"""Authentication and authorisation of a request: runs after routing and before the handler."""

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
    """Identify the caller and check access. Sets `request.state.principal`.

    Raises:
        HttpProblem: credentials-missing, credentials-refused, role-insufficient, too-many-requests or
            identities-unavailable.
        OrganisationNotFound: the caller does not belong to the organisation.
        psycopg.OperationalError: the database does not respond.
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
    """Check an identified caller against the rule and the quotas; None: the request concerns no organisation.

    Raises:
        HttpProblem: role-insufficient or too-many-requests.
        OrganisationNotFound: the caller does not belong to the organisation.
    """
    request.state.principal = principal
    request.state.allowances = []
    limits = services_of(request).limits
    _spend_quota(request, limits.principals, f"{principal.kind} {principal.subject}")
    permissions.check_access(principal, rule, organisation_id)
    if organisation_id is not None:
        # After the check: a stranger's request must not spend, or reveal, the organisation's quota.
        _spend_quota(request, limits.organisations, organisation_id)


def _organisation_id(request: Request) -> str | None:
    """Return the id of the organisation that a request concerns, or None."""
    segment: str | None = request.path_params.get("organisation_id")
    return None if segment is None else unquote(segment, errors="replace")


def credentials_from(headers: Headers) -> Credentials:
    """Return the credentials of a request.

    Raises:
        HttpProblem: credentials-missing, or credentials-refused for several credentials or another scheme.
    """
    authorizations, keys = headers.getlist("authorization"), headers.getlist(KEY_HEADER)
    if not authorizations and not keys:
        raise HttpProblem(
            "credentials-missing",
            f"send a bearer token in Authorization, or an API key in {KEY_HEADER}",
            headers={"WWW-Authenticate": _CHALLENGE},
        )
    if len(authorizations) + len(keys) > 1:
        raise _invalid_credentials("send exactly one token or one API key")
    if keys:
        return Credentials(key=keys[0])
    scheme, _, token = authorizations[0].partition(" ")
    if scheme.lower() != "bearer":
        raise _invalid_credentials("the Authorization header has no bearer token")
    return Credentials(token=token.strip())


def _spend_quota(request: Request, quota: Quota, caller: str) -> None:
    allowance = quota.take(caller)
    request.state.allowances.append(allowance)
    if allowance.is_exceeded:
        raise HttpProblem(
            "too-many-requests",
            f"this {allowance.policy} sent more than {allowance.quota} requests in {WINDOW_S} seconds",
            headers={"Retry-After": str(allowance.retry_in_s)},
        )


def _invalid_credentials(reason: str) -> HttpProblem:
    challenge = {"WWW-Authenticate": f'{_CHALLENGE}, error="invalid_token"'}
    return HttpProblem("credentials-refused", reason, headers=challenge)
