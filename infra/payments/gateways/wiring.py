"""Builds the adapters of the configured payment gateways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

from infra.clock import utc_now
from infra.settings import InvalidSetting, Settings
from infra.struct_types import prepare_struct_types

if TYPE_CHECKING:
    from infra.payments.gateways.payglocal import PayGlocalGateway
    from infra.payments.gateways.razorpay import RazorpayGateway

T = TypeVar("T")


def open_gateways(settings: Settings) -> Mapping[str, RazorpayGateway | PayGlocalGateway]:
    """Return the adapters of the configured gateways, by name. The caller closes each of them.

    Raises:
        InvalidSetting: a key is missing or invalid.
    """
    opened: list[RazorpayGateway | PayGlocalGateway] = []
    if settings.razorpay_key_id is not None:
        opened.append(_razorpay(settings, settings.razorpay_key_id))
    if settings.payglocal_merchant_id is not None:
        opened.append(_payglocal(settings, settings.payglocal_merchant_id))
    prepare_struct_types()  # webhooks arrive in many threads
    return {gateway.name: gateway for gateway in opened}


def _razorpay(settings: Settings, key_id: str) -> RazorpayGateway:
    # Imported here: Razorpay's client takes long to import, and not every process needs it.
    from infra.payments.gateways.razorpay import RazorpayGateway

    secret = _require_setting("RAZORPAY_KEY_SECRET", settings.razorpay_key_secret, "RAZORPAY_KEY_ID")
    webhooks = _require_setting(
        "RAZORPAY_WEBHOOK_SECRET", settings.razorpay_webhook_secret, "RAZORPAY_KEY_ID"
    )
    return RazorpayGateway(
        key_id,
        secret.get_secret_value(),
        webhooks.get_secret_value(),
        currencies=settings.gateway_currencies[RazorpayGateway.name],
        merchant_name=settings.checkout_name,
        clock=utc_now,
        url=settings.razorpay_url,
        timeout_s=settings.gateway_timeout_s,
    )


def _payglocal(settings: Settings, merchant_id: str) -> PayGlocalGateway:
    from infra.payments.gateways.payglocal import PayGlocalGateway
    from infra.payments.gateways.payglocal_tokens import InvalidKey, PayGlocalTokens, read_key

    because = "PAYGLOCAL_MERCHANT_ID"
    private = _require_setting("PAYGLOCAL_PRIVATE_KEY", settings.payglocal_private_key, because)
    private_id = _require_setting("PAYGLOCAL_PRIVATE_KEY_ID", settings.payglocal_private_key_id, because)
    public = _require_setting("PAYGLOCAL_PUBLIC_KEY", settings.payglocal_public_key, because)
    public_id = _require_setting("PAYGLOCAL_PUBLIC_KEY_ID", settings.payglocal_public_key_id, because)
    try:
        tokens = PayGlocalTokens(merchant_id, read_key(private), private_id, read_key(public), public_id)
    except InvalidKey as error:
        raise InvalidSetting(f"PAYGLOCAL_PRIVATE_KEY or PAYGLOCAL_PUBLIC_KEY: {error}") from None
    return PayGlocalGateway(
        tokens,
        currencies=settings.gateway_currencies[PayGlocalGateway.name],
        clock=utc_now,
        url=settings.payglocal_url,
        timeout_s=settings.gateway_timeout_s,
    )


def _require_setting(variable: str, value: T | None, because: str) -> T:
    if value is None:
        raise InvalidSetting(f"{variable} is not set, but {because} is")
    return value
