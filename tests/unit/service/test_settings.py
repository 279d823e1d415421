"""Settings of the API's address and host names, and of the price book."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from infra.settings import LOOPBACK, InvalidSetting, Settings, load_price_book

ISSUER = "https://issuer.example"
EVERYWHERE = "0.0.0.0"  # noqa: S104


@pytest.mark.parametrize("host", list(LOOPBACK))
def test_on_loopback_no_issuer_is_needed(host: str) -> None:
    assert Settings(api_host=host).allowed_hosts >= set(LOOPBACK.values())


def test_beyond_loopback_an_issuer_is_needed() -> None:
    with pytest.raises(ValidationError, match="without OIDC_ISSUER the API listens on loopback only"):
        Settings(api_host=EVERYWHERE)
    assert Settings(api_host=EVERYWHERE, oidc_issuer=ISSUER).api_host == EVERYWHERE


def test_keys_of_the_embedded_issuer_are_not_enough_beyond_loopback(tmp_path) -> None:
    with pytest.raises(ValidationError, match="loopback only"):
        Settings(api_host=EVERYWHERE, embedded_issuer_keys=tmp_path / "keys.json")


def test_the_api_accepts_only_its_host_names() -> None:
    settings = Settings(api_host="10.0.0.7", oidc_issuer=ISSUER, api_names="Ledger.Example.com, other:8443")
    assert settings.allowed_hosts == {"10.0.0.7", "ledger.example.com", "other:8443", *LOOPBACK.values()}


def test_tokens_in_settings_are_never_shown() -> None:
    assert "secret-token" not in repr(Settings(pipeline_token="secret-token"))  # noqa: S106


def test_a_price_book_is_read_from_its_file(tmp_path) -> None:
    book = tmp_path / "prices.json"
    book.write_text('[{"version": "a", "effective_from": "2027-01-01T00:00:00Z", "minimum_credits": 500}]')
    new_year = datetime(2027, 1, 1, tzinfo=UTC)
    assert load_price_book(book).at(new_year).minimum_credits == 500
    assert load_price_book(None).at(new_year).minimum_credits == 1_000


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("prices", "is not a valid list of price editions"),
        ('[{"version": "a"}]', r"missing required field `effective_from` - at `\$\[0\]`"),
        (
            '[{"version": "a", "effective_from": "2027-01-01T00:00:00Z", "currencies": {"EUR": {}}}]',
            r"Invalid enum value 'EUR'",
        ),
        (
            '[{"version": "a", "effective_from": "2027-01-01T00:00:00Z", "minimum_credits": 0}]',
            r"editions\[0\].minimum_credits: 0 is outside 1 to",
        ),
    ],
)
def test_an_invalid_price_book_names_the_place(tmp_path, content: str, sentence: str) -> None:
    book = tmp_path / "prices.json"
    book.write_text(content)
    with pytest.raises(InvalidSetting, match=sentence) as refusal:
        load_price_book(book)
    assert str(refusal.value).startswith(f"PRICE_BOOK: {book} ")
