"""All routers of the pages."""

from __future__ import annotations

from typing import Final

from api.pages import staff
from api.pages.credits import details, exports, subscription
from api.pages.credits import overview as credit_overview
from api.pages.identity import organisation_picker, sign_in
from api.pages.payments import (
    auto_top_up,
    billing,
    purchase,
    reconciliation,
    refunds,
)
from api.pages.payments import (
    flags as payment_flags,
)
from api.pages.shell import assets, not_found

ROUTERS: Final = (
    sign_in.router,
    credit_overview.router,
    details.router,
    exports.router,
    billing.router,
    purchase.router,
    subscription.router,
    auto_top_up.router,
    organisation_picker.router,
    staff.router,
    refunds.router,
    payment_flags.router,
    reconciliation.router,
    assets.router,
    not_found.router,  # must be last: it matches every remaining path
)
