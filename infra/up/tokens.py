"""Tokens, sign-in links and example commands for the API of `up`."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypedDict
from urllib.parse import urlencode

from api.http.sessions import SIGN_IN
from infra.embedded.issuer import EmbeddedIssuer
from infra.settings import InvalidSetting, Settings
from infra.up.servers import reachable_data_dir

_ORGANISATION_ROLES: Final = {"admin": "u-1", "member": "u-2"}
_GLOBAL_ROLES: Final = {"staff": "s-1", "auditor": "a-1", "service": "pipeline"}
ROLES: Final = (*_ORGANISATION_ROLES, *_GLOBAL_ROLES)
"""Roles of a bearer."""
PEOPLE: Final = (*_ORGANISATION_ROLES, "staff", "auditor")
"""Roles that can sign in to the pages."""
_JSON: Final = "-H 'Content-Type: application/json'"
_OPEN: Final = (
    f"-X PUT {_JSON} -H 'Idempotency-Key: open-acme'"
    """ -d '{"time_zone":"Asia/Kolkata","currency":"INR"}'"""
)
"""The same request as in docs/http-api.md, so that both can be run."""
_GRANT: Final = f"""-X POST {_JSON} -d '{{"credits":50,"kind":"admin","reason":"to try it out"}}'"""


class _Claims(TypedDict, total=False):
    roles: Sequence[str]
    organisations: Mapping[str, str]


def embedded_token(
    settings: Settings, role: str, organisation_id: str | None = None, subject: str | None = None
) -> str:
    """Return a token from the issuer in the data directory.

    Raises:
        InvalidSetting: OIDC_ISSUER is set, no embedded issuer exists, or the organisation is missing.
        EmbeddedServerError: the issuer's key cannot be used.
    """
    issuer = _issuer(settings)
    return issuer.token(subject or _subject(role), **_claims(role, organisation_id))


def sign_in_link(
    settings: Settings, url: str, role: str, organisation_id: str | None = None, subject: str | None = None
) -> str:
    """Return a link that signs in to the pages at `url` with a role, once, within an hour.

    Raises:
        InvalidSetting: OIDC_ISSUER is set, no embedded issuer exists, or the organisation is missing.
        EmbeddedServerError: the issuer's key cannot be used.
    """
    issuer = _issuer(settings)
    ticket = issuer.ticket(subject or _subject(role), **_claims(role, organisation_id))
    next_path = (
        f"&{urlencode({'next': f'/credits?organisation={organisation_id}'})}" if organisation_id else ""
    )
    return f"{url}{SIGN_IN}?ticket={ticket}{next_path}"


def sign_in_links(settings: Settings, url: str, organisation_ids: Sequence[str]) -> Iterator[str]:
    """Return a line with a link for each role that can sign in; per organisation for admin and member."""
    yield "sign-in links (each works once, within an hour; `creditledger sign-in` prints new ones):"
    for organisation_id in organisation_ids:
        for role in _ORGANISATION_ROLES:
            link = sign_in_link(settings, url, role, organisation_id)
            yield f"{role} of {organisation_id}: {link}"
    for role in PEOPLE:
        if role in _GLOBAL_ROLES:
            yield f"{role}: {sign_in_link(settings, url, role)}"


def _issuer(settings: Settings) -> EmbeddedIssuer:
    if settings.oidc_issuer is not None:
        raise InvalidSetting(f"OIDC_ISSUER is set: tokens come from {settings.oidc_issuer}")
    data_dir = reachable_data_dir(settings.data_dir.resolve())
    issuer = EmbeddedIssuer(data_dir)
    if not issuer.exists:
        raise InvalidSetting(f"DATA_DIR: {data_dir} has no token issuer: `creditledger up` creates one")
    return issuer


def _subject(role: str) -> str:
    return {**_GLOBAL_ROLES, **_ORGANISATION_ROLES}[role]


def _claims(role: str, organisation_id: str | None) -> _Claims:
    if role in _GLOBAL_ROLES:
        return {"roles": [role]}
    if organisation_id is None:
        raise InvalidSetting(f"the role {role} needs an organisation: --organisation ID")
    return {"organisations": {organisation_id: role}}


def service_token(settings: Settings) -> Callable[[], str]:
    """Return a function that returns a token with the role service: PIPELINE_TOKEN, or a new embedded one.

    Raises:
        InvalidSetting: neither exists.
        EmbeddedServerError: the embedded issuer's key cannot be used.
    """
    if settings.pipeline_token is not None:
        return settings.pipeline_token.get_secret_value
    require_service_token(settings)
    embedded_token(settings, "service")
    return partial(embedded_token, settings, "service")


def require_service_token(settings: Settings) -> None:
    """Check that PIPELINE_TOKEN is set if OIDC_ISSUER is set.

    Raises:
        InvalidSetting: PIPELINE_TOKEN is missing.
    """
    if settings.oidc_issuer is not None and settings.pipeline_token is None:
        raise InvalidSetting(
            "PIPELINE_TOKEN is not set: it must be a token of OIDC_ISSUER with the role service"
        )


def example_commands(settings: Settings, url: str, organisation_id: str, *, is_open: bool) -> Iterator[str]:
    """Return an example command for each role. Each calls `creditledger token`; none contains a token."""
    command = _command(settings)
    organisation = f"{url}/v1/organisations/{organisation_id}"
    own = f" --organisation {shlex.quote(organisation_id)}"
    hint = "" if is_open else f"; run the one for staff first, it opens {organisation_id}"
    yield f"example commands for each role{hint}:"
    for role, token_options, request in (
        ("staff", "", f"{_GRANT} {organisation}/grants" if is_open else f"{_OPEN} {organisation}"),
        ("admin", own, f"{organisation}/subscription"),
        ("member", own, f"{organisation}/usage-summary"),
        ("auditor", "", f"{organisation}/transactions"),
        ("service", "", f"{organisation}/balance"),
    ):
        yield f'{role}: curl -s -H "Authorization: Bearer $({command} token {role}{token_options})" {request}'


def _command(settings: Settings) -> str:
    path = Path(sys.executable).parent / "creditledger"
    executable = os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
    default = Settings.model_fields["data_dir"].default
    data_dir_variable = (
        "" if settings.data_dir == default else f"DATA_DIR={shlex.quote(str(settings.data_dir))} "
    )
    return data_dir_variable + shlex.quote(executable)
