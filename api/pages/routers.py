"""Everything that the pages serve."""

from __future__ import annotations

from typing import Final

from api.pages import (
    assets,
    billing,
    credits,
    details,
    exports,
    flags,
    organisations,
    purchase,
    reconciling,
    refunding,
    sign_in,
    staff,
    subscription,
    top_up,
    unknown,
)

ROUTERS: Final = (
    sign_in.router,
    credits.router,
    details.router,
    exports.router,
    billing.router,
    purchase.router,
    subscription.router,
    top_up.router,
    organisations.router,
    staff.router,
    refunding.router,
    flags.router,
    reconciling.router,
    assets.router,
    unknown.router,  # the last: it takes every address that is left
)
