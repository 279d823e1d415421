"""The seller on invoices, from the settings."""

from __future__ import annotations

from typing import Final

from domain.invoicing.billing_details import Address, BillingDetails, validated
from domain.invoicing.countries import INDIA
from domain.invoicing.documents import Seller
from domain.invoicing.invoice_series import PREFIX
from domain.shared.calendar import check_time_zone
from domain.shared.errors import InvalidInput
from infra.settings import InvalidSetting, Settings

DEMO_SELLER: Final = Seller(
    "Demo Seller Pvt Ltd",
    "accounts@seller.example",
    "29AABCD1234E1Z4",
    Address(INDIA, "Karnataka", "Bengaluru", "560001", ("1 Example Street",)),
    "Asia/Kolkata",
    "DM",
    "998439",
    remark="Specimen: this seller is made up, and this is no tax document.",
)
"""Used if SELLER_NAME is not set, so that local use shows complete invoices."""

_NEEDED: Final = (
    "seller_email",
    "seller_gstin",
    "seller_address",
    "seller_city",
    "seller_postal_code",
    "seller_state",
)
_SETTING_OF: Final = {
    "name": "SELLER_NAME",
    "email": "SELLER_EMAIL",
    "tax_id": "SELLER_GSTIN",
    "address.state": "SELLER_STATE",
    "address.city": "SELLER_CITY",
    "address.postal_code": "SELLER_POSTAL_CODE",
    "address.lines": "SELLER_ADDRESS",
    "time_zone": "SELLER_TIME_ZONE",
}


def seller_of(settings: Settings) -> Seller:
    """Return the seller of the settings, or `DEMO_SELLER`.

    Raises:
        InvalidSetting: a setting of the seller is missing or invalid. The message names it.
    """
    if settings.seller_name is None:
        return DEMO_SELLER
    missing = [name.upper() for name in _NEEDED if getattr(settings, name) is None]
    if missing:
        raise InvalidSetting(f"SELLER_NAME is set, so these settings are required too: {', '.join(missing)}")
    if not PREFIX.fullmatch(settings.seller_invoice_prefix):
        raise InvalidSetting("SELLER_INVOICE_PREFIX: must be one or two capital letters or digits")
    try:
        return _seller(settings, settings.seller_name)
    except InvalidInput as error:
        raise InvalidSetting(f"{_SETTING_OF[error.field]}: {error}") from error


def _seller(settings: Settings, name: str) -> Seller:
    """Validate the seller's details like a buyer's, because an invoice shows both."""
    lines = tuple(line.strip() for line in (settings.seller_address or "").split("|"))
    details = validated(
        BillingDetails(
            name,
            settings.seller_email or "",
            Address(
                INDIA,
                settings.seller_state or "",
                settings.seller_city or "",
                settings.seller_postal_code or "",
                lines,
            ),
            tax_id=settings.seller_gstin,
        )
    )
    return Seller(
        details.name,
        details.email,
        details.tax_id or "",
        details.address,
        check_time_zone(settings.seller_time_zone),
        settings.seller_invoice_prefix,
        settings.seller_service_code,
        settings.seller_letter_of_undertaking,
    )
