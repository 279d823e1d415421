"""The gateways from the settings; missing variables are named."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from infra.embedded.gateway_sandbox.keys import KeyFolder
from infra.payments.gateways.wiring import open_gateways
from infra.settings import InvalidSetting, Settings


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables of both gateways."""
    folder = KeyFolder(tmp_path_factory.mktemp("keys"))
    return {name.lower(): value for name, value in folder.settings("http://127.0.0.1:9").items()}


def test_without_keys_there_is_no_gateway() -> None:
    assert open_gateways(Settings()) == {}
    assert not Settings().names_gateway


def test_each_is_offered_for_its_currencies(variables: dict[str, str]) -> None:
    made = open_gateways(Settings(**variables, razorpay_currencies=" INR ,"))
    assert {name: gateway.currencies for name, gateway in made.items()} == {
        "razorpay": frozenset({"INR"}),
        "payglocal": frozenset({"USD"}),
    }
    for gateway in made.values():
        gateway.close()


@pytest.mark.parametrize(
    "missing",
    [
        "razorpay_key_secret",
        "razorpay_webhook_secret",
        "payglocal_private_key",
        "payglocal_private_key_id",
        "payglocal_public_key",
        "payglocal_public_key_id",
    ],
)
def test_a_missing_variable_is_named(variables: dict[str, str], missing: str) -> None:
    given = {name: value for name, value in variables.items() if name != missing}
    with pytest.raises(InvalidSetting, match=f"{missing.upper()} is not set"):
        open_gateways(Settings(**given))


def test_an_invalid_key_file_is_named(variables: dict[str, str], tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    with pytest.raises(InvalidSetting, match=r"PAYGLOCAL_PRIVATE_KEY.*empty\.pem"):
        open_gateways(Settings(**variables | {"payglocal_private_key": str(empty)}))


def test_secrets_of_gateways_are_never_shown(variables: dict[str, str]) -> None:
    shown = repr(Settings(**variables))
    assert variables["razorpay_key_secret"] not in shown
    assert variables["razorpay_webhook_secret"] not in shown


@pytest.mark.parametrize("url", ["http://gateway.example", "ftp://127.0.0.1", "gateway.example"])
def test_a_gateway_is_reached_over_tls_or_on_this_machine(url: str) -> None:
    with pytest.raises(ValidationError, match="https"):
        Settings(razorpay_url=url)


def test_an_unsupported_currency_is_named() -> None:
    with pytest.raises(ValidationError, match="EUR is not one of USD, INR"):
        Settings(payglocal_currencies="USD,EUR")


def test_the_public_address_is_the_apis_own_unless_it_is_given() -> None:
    assert Settings(api_port=8123).public_address == "http://127.0.0.1:8123"
    assert Settings(api_host="::1").public_address == "http://[::1]:8000"
    assert Settings(public_url="https://credits.example/").public_address == "https://credits.example"
