"""Sign-in links of the embedded issuer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from domain.identity.principals import InvalidCredentials, PrincipalKind, Role
from infra.embedded.issuer import EmbeddedIssuer
from infra.identity.embedded_issuer import AUDIENCE, ISSUER, TICKET_AUDIENCE
from infra.identity.signing_keys import StaticKeys
from infra.identity.tokens import TokenVerifier
from infra.settings import InvalidSetting, Settings
from infra.up.tokens import sign_in_link, sign_in_links
from tests.servers import servers_folder

URL = "http://127.0.0.1:8000"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the servers' accounts can enter, like a data directory."""
    with servers_folder() as folder:
        yield folder


@pytest.fixture
def settings(folder: Path) -> Settings:
    EmbeddedIssuer(folder / "data").start()
    return Settings(data_dir=folder / "data")


def verifier(settings: Settings, audience: str) -> TokenVerifier:
    keys = StaticKeys(EmbeddedIssuer(settings.data_dir).jwks())
    return TokenVerifier(keys, issuer=ISSUER, audience=audience)


def query_of(link: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(link).query).items()}


def test_a_link_has_one_role_and_opens_its_organisation(settings: Settings) -> None:
    query = query_of(sign_in_link(settings, URL, "admin", "stride-photos"))
    ticket = verifier(settings, TICKET_AUDIENCE).ticket(query["ticket"])
    assert ticket.principal.memberships == {"stride-photos": Role.ADMIN}
    assert query["next"] == "/credits?organisation=stride-photos"
    staff = query_of(sign_in_link(settings, URL, "staff"))
    assert verifier(settings, TICKET_AUDIENCE).ticket(staff["ticket"]).principal.kind is PrincipalKind.STAFF


def test_links_are_unique_and_are_not_tokens(settings: Settings) -> None:
    first, second = (query_of(sign_in_link(settings, URL, "staff"))["ticket"] for _ in range(2))
    tickets = verifier(settings, TICKET_AUDIENCE)
    assert tickets.ticket(first).ticket_id != tickets.ticket(second).ticket_id
    with pytest.raises(InvalidCredentials, match="another audience"):
        verifier(settings, AUDIENCE).principal(first)


def test_up_prints_a_link_for_every_role_and_organisation(settings: Settings) -> None:
    lines = list(sign_in_links(settings, URL, ["stride-photos", "campus-clicks"]))[1:]
    assert [line.partition(":")[0] for line in lines] == [
        "admin of stride-photos",
        "member of stride-photos",
        "admin of campus-clicks",
        "member of campus-clicks",
        "staff",
        "auditor",
    ]


def test_there_are_no_links_without_the_embedded_issuer(settings: Settings, folder: Path) -> None:
    given = Settings(data_dir=settings.data_dir, oidc_issuer="https://issuer.example")
    with pytest.raises(InvalidSetting, match="OIDC_ISSUER"):
        sign_in_link(given, URL, "staff")
    with pytest.raises(InvalidSetting, match="has no token issuer"):
        sign_in_link(Settings(data_dir=folder / "empty"), URL, "staff")
    with pytest.raises(InvalidSetting, match="--organisation"):
        sign_in_link(settings, URL, "member")
