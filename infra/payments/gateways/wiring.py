"""The gateways that the settings name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TypeVar

from infra.clock import utc_now
from infra.payments.gateways.payglocal import PayGlocalGateway
from infra.payments.gateways.payglocal_tokens import InvalidKey, PayGlocalTokens, read_key
from infra.payments.gateways.razorpay import RazorpayGateway
from infra.settings import InvalidSetting, Settings

Gateway = RazorpayGateway | PayGlocalGateway

T = TypeVar("T")


def make_gateways(settings: Settings, clock: Callable[[], datetime]) -> Mapping[str, Gateway]:
    """Return the adapters of the gateways that the settings have keys of, by name.

    Raises:
        InvalidSetting: a key is missing, or cannot be used.
    """
    made: list[Gateway] = []
    if settings.razorpay_key_id is not None:
        made.append(_razorpay(settings, settings.razorpay_key_id, clock))
    if settings.payglocal_merchant_id is not None:
        made.append(_payglocal(settings, settings.payglocal_merchant_id, clock))
    return {gateway.name: gateway for gateway in made}


def _razorpay(settings: Settings, key_id: str, clock: Callable[[], datetime]) -> RazorpayGateway:
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
        clock=clock,
        url=settings.razorpay_url,
        timeout_s=settings.gateway_timeout_s,
    )


def _payglocal(settings: Settings, merchant_id: str, clock: Callable[[], datetime]) -> PayGlocalGateway:
    of = "PAYGLOCAL_MERCHANT_ID"
    private = _require_setting("PAYGLOCAL_PRIVATE_KEY", settings.payglocal_private_key, of)
    private_id = _require_setting("PAYGLOCAL_PRIVATE_KEY_ID", settings.payglocal_private_key_id, of)
    public = _require_setting("PAYGLOCAL_PUBLIC_KEY", settings.payglocal_public_key, of)
    public_id = _require_setting("PAYGLOCAL_PUBLIC_KEY_ID", settings.payglocal_public_key_id, of)
    try:
        tokens = PayGlocalTokens(merchant_id, read_key(private), private_id, read_key(public), public_id)
    except InvalidKey as error:
        raise InvalidSetting(f"PAYGLOCAL_PRIVATE_KEY or PAYGLOCAL_PUBLIC_KEY: {error}") from None
    return PayGlocalGateway(
        tokens,
        currencies=settings.gateway_currencies[PayGlocalGateway.name],
        clock=clock,
        url=settings.payglocal_url,
        timeout_s=settings.gateway_timeout_s,
    )


def _require_setting(variable: str, value: T | None, given: str) -> T:
    if value is None:
        raise InvalidSetting(f"{variable} is not set, and {given} is")
    return value


def gateways(settings: Settings) -> Mapping[str, Gateway]:
    """Return the payment gateways that the settings have keys of, by name. Close each when done.

    Raises:
        InvalidSetting: a key is missing, or cannot be used.
    """
    from infra.payments.gateways.wiring import make_gateways  # Razorpay's client takes long to import

    return make_gateways(settings, utc_now)
