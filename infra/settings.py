"""Settings: the only reader of the environment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from domain.pricing.price_book import Edition, PriceBook
from domain.pricing.rate_card import RateCard, RateChange
from domain.shared.errors import InvalidInput
from domain.shared.money import Currency
from infra.url_safety import is_safe

Entry = TypeVar("Entry")
Built = TypeVar("Built")

LOOPBACK: Final = {"127.0.0.1": "127.0.0.1", "localhost": "localhost", "::1": "[::1]"}
"""Loopback addresses, and their form in URLs."""


class InvalidSetting(Exception):
    """A setting is invalid. The message is a sentence that names the setting."""


class Settings(BaseSettings):
    """All settings with their defaults.

    Without DATABASE_URL or KAFKA_BOOTSTRAP_SERVERS, `up` starts its own PostgreSQL or Kafka broker.
    """

    model_config = SettingsConfigDict(env_file=None, extra="ignore")

    database_url: SecretStr | None = Field(None, description="PostgreSQL URL for the service's role.")
    migration_database_url: SecretStr | None = Field(
        None, description="PostgreSQL URL for the owner, used by migrate and rebuild; default: DATABASE_URL."
    )

    kafka_bootstrap_servers: str | None = Field(None, description="host:port, comma-separated.")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_ssl_cafile: Path | None = None
    kafka_ssl_certfile: Path | None = None
    kafka_ssl_keyfile: Path | None = None
    kafka_ssl_password: SecretStr | None = None
    kafka_group_id: str = "credit-ledger"
    kafka_group_instance_id: str | None = Field(None, description="Id for static group membership.")
    kafka_session_timeout_ms: Annotated[int, Field(ge=1_000, le=300_000)] = 6_000
    kafka_create_topics: bool = Field(True, description="Create missing topics on start.")
    kafka_replication_factor: int = Field(-1, description="For created topics; -1: the broker's default.")
    usage_topic: str = "photo-processing.usage.v1"
    usage_partitions: Annotated[int, Field(ge=1, le=1_000)] = 8
    events_topic: str = Field("credit-ledger.events.v1", description="Every event of the ledger.")
    balances_topic: str = Field("credit-ledger.balances.v1", description="Latest balances; compacted.")

    oidc_issuer: str | None = Field(None, description="Issuer of the API's bearer tokens.")
    oidc_audience: str = Field("creditledger", description="Required audience of the tokens.")
    oidc_jwks_url: str | None = Field(None, description="URL of the issuer's keys; discovered if unset.")
    oidc_subject_claim: str = "sub"
    oidc_roles_claim: str = "roles"
    oidc_organisations_claim: str = "organisations"
    embedded_issuer_keys: Path | None = Field(
        None, description="Public keys of the embedded issuer; `up` sets this for its parts."
    )

    pipeline_token: SecretStr | None = Field(
        None, description="With OIDC_ISSUER: the token that simulate-pipeline uses for the API."
    )

    public_url: str | None = Field(
        None, description="URL for browsers and gateways; default: http://API_HOST:API_PORT."
    )
    checkout_name: str = Field("Photo credits", description="Name of the payee on the gateway's page.")
    gateway_timeout_s: Annotated[float, Field(gt=0, le=60)] = 10.0
    razorpay_key_id: str | None = None
    razorpay_key_secret: SecretStr | None = None
    razorpay_webhook_secret: SecretStr | None = None
    razorpay_url: str = "https://api.razorpay.com"
    razorpay_currencies: str = Field("INR,USD", description="Currencies of this gateway, comma-separated.")
    payglocal_merchant_id: str | None = None
    payglocal_private_key: Path | None = Field(None, description="PEM file of our private key.")
    payglocal_private_key_id: str | None = None
    payglocal_public_key: Path | None = Field(None, description="PEM file of PayGlocal's public key.")
    payglocal_public_key_id: str | None = None
    payglocal_url: str = "https://api.payglocal.in"
    payglocal_currencies: str = Field("USD", description="Currencies of this gateway, comma-separated.")

    api_host: str = "127.0.0.1"
    api_port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    api_names: str = Field("", description="Accepted host names besides loopback, comma-separated.")
    api_requests_per_minute: Annotated[int, Field(ge=1)] = 3_000
    api_organisation_requests_per_minute: Annotated[int, Field(ge=1)] = 6_000
    sign_in_origins: str = Field(
        "", description="Origins whose pages may post a token to /sign-in, as https://name, comma-separated."
    )
    support_contact: str = Field("", description="Email address or https link shown on the pages.")
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] | None = Field(
        None, description="Prometheus port of each part except the API; off by default."
    )
    webhook_allow_private: bool = Field(
        False, description="Allow webhooks to private addresses and over http; for local use."
    )
    seller_name: str | None = Field(
        None, description="Name of the seller on invoices; default: a fictitious seller."
    )
    seller_email: str | None = None
    seller_gstin: str | None = None
    seller_address: str | None = Field(None, description="Street and house; separate lines with |.")
    seller_city: str | None = None
    seller_postal_code: str | None = None
    seller_state: str | None = Field(None, description="State of India, by name or GST code.")
    seller_time_zone: str = Field("Asia/Kolkata", description="For invoice dates and financial years.")
    seller_invoice_prefix: str = Field("CL", description="Prefix of invoice numbers; one or two characters.")
    seller_service_code: str = Field(
        "998439", pattern=r"^[0-9]{4,8}$", description="Service code (SAC) on invoices."
    )
    seller_letter_of_undertaking: str | None = Field(
        None, description="Reference number (ARN) of the letter for exports without tax."
    )
    data_dir: Path = Field(Path("var"), description="Directory for the data of the embedded servers.")
    rate_card: Path | None = Field(None, description="JSON file with a list of rate changes.")
    price_book: Path | None = Field(None, description="JSON file with a list of price editions.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("oidc_issuer", "oidc_jwks_url")
    @classmethod
    def _check_issuer(cls, url: str | None) -> str | None:
        if url is not None and not is_safe(url):
            raise PydanticCustomError("issuer", "an https address is needed, such as https://issuer.example")
        return url

    @field_validator("razorpay_url", "payglocal_url")
    @classmethod
    def _check_gateway(cls, url: str) -> str:
        if not is_safe(url):
            raise PydanticCustomError(
                "gateway", "an https address is needed, such as https://gateway.example"
            )
        return url

    @field_validator("razorpay_currencies", "payglocal_currencies")
    @classmethod
    def _check_currencies(cls, currencies: str) -> str:
        unknown = _names(currencies) - set(Currency)
        if unknown:
            raise PydanticCustomError(
                "currency",
                "{unknown} is not one of {known}",
                {"unknown": ", ".join(sorted(unknown)), "known": ", ".join(Currency)},
            )
        return currencies

    @field_validator("api_host")
    @classmethod
    def _check_loopback(cls, host: str, others: ValidationInfo) -> str:
        if host not in LOOPBACK and others.data.get("oidc_issuer") is None:
            raise PydanticCustomError(
                "loopback",
                "without OIDC_ISSUER the API listens on loopback only ({hosts}), not on {host}",
                {"hosts": ", ".join(LOOPBACK), "host": host},
            )
        return host

    @property
    def allowed_hosts(self) -> frozenset[str]:
        """Values of the Host header that the API answers to."""
        names = _names(self.api_names) | {self.api_host}
        return frozenset({name.lower() for name in names} | set(LOOPBACK.values()))

    @property
    def public_address(self) -> str:
        """URL for browsers and gateways, without a trailing slash."""
        return (
            self.public_url or f"http://{LOOPBACK.get(self.api_host, self.api_host)}:{self.api_port}"
        ).rstrip("/")

    @property
    def gateway_names(self) -> tuple[str, ...]:
        """Names of the configured payment gateways."""
        keys = {"razorpay": self.razorpay_key_id, "payglocal": self.payglocal_merchant_id}
        return tuple(name for name, key in keys.items() if key is not None)

    @property
    def names_gateway(self) -> bool:
        """Whether a payment gateway is configured."""
        return bool(self.gateway_names)

    @property
    def gateway_currencies(self) -> dict[str, frozenset[str]]:
        """Currencies of each gateway, by gateway name."""
        return {
            "razorpay": _names(self.razorpay_currencies),
            "payglocal": _names(self.payglocal_currencies),
        }

    @property
    def sign_in_sites(self) -> frozenset[str]:
        """The origins in `sign_in_origins`."""
        return frozenset(site.strip().lower() for site in self.sign_in_origins.split(",") if site.strip())

    @property
    def dead_letter_topic(self) -> str:
        """Topic of the dead letters."""
        return f"{self.usage_topic}.dlq"

    @property
    def owner_database_url(self) -> str | None:
        """URL for commands that change the schema."""
        url = self.migration_database_url or self.database_url
        return None if url is None else url.get_secret_value()


def _names(listed: str) -> frozenset[str]:
    return frozenset(name.strip() for name in listed.split(",") if name.strip())


def load_rate_card(path: Path | None) -> RateCard:
    """Return the default rates with the changes from a JSON file.

    Each change is `{"usage_type": ..., "rate_millionths": ..., "effective_from": ...}`.

    Raises:
        InvalidSetting: the file cannot be read, or a change is invalid. The message names the field.
    """
    return _load("RATE_CARD", path, list[RateChange], "list of rate changes", RateCard)


def load_price_book(path: Path | None) -> PriceBook:
    """Return the default prices with the editions from a JSON file.

    Each edition is `{"version": ..., "effective_from": ..., "currencies": {"INR": {...}}}`; see
    `domain.pricing.price_book.Edition`.

    Raises:
        InvalidSetting: the file cannot be read, or an edition is invalid. The message names the field.
    """
    return _load("PRICE_BOOK", path, list[Edition], "list of price editions", PriceBook)


def _load(
    setting: str,
    path: Path | None,
    entries: type[list[Entry]],
    what: str,
    build: Callable[[list[Entry]], Built],
) -> Built:
    """Read the entries of a JSON file and pass them to `build`. Without a file, pass no entries."""
    if path is None:
        return build([])
    try:
        return build(msgspec.json.decode(path.read_bytes(), type=entries))
    except OSError as error:
        raise InvalidSetting(f"{setting}: {path} cannot be read: {error.strerror}") from error
    except InvalidInput as error:
        raise InvalidSetting(f"{setting}: {path} is not a valid {what}: {error.field}: {error}") from error
    except (ValueError, msgspec.MsgspecError) as error:
        raise InvalidSetting(f"{setting}: {path} is not a valid {what}: {error}") from error
