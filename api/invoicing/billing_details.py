"""Billing details: the buyer on the organisation's invoices."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter
from pydantic import ConfigDict, Field

from api.http.bodies import Body
from api.http.dependencies import Read, Write
from api.http.fields import Instant, OrganisationId
from api.http.problems import responses
from api.http.responses import COMMON_PROBLEMS, read_responses, write_responses
from api.http.routes import ReadRoute, StrictRoute
from api.http.views import Position, View
from domain.invoicing import billing_details
from domain.invoicing.billing_details import (
    EMAIL_MAX_LENGTH,
    LINES_MAX,
    NAME_MAX_LENGTH,
    PHONE_MAX_LENGTH,
    PLACE_MAX_LENGTH,
)
from domain.invoicing.tax_identifiers import TAX_ID_MAX_LENGTH
from projections.invoicing import queries as invoice_queries

_PATH: Final = "/v1/organisations/{organisation_id}/billing-details"

reads = APIRouter(
    prefix=_PATH,
    route_class=ReadRoute,
    tags=["Invoices"],
    responses={**read_responses(), **responses(*COMMON_PROBLEMS)},
)
writes = APIRouter(prefix=_PATH, route_class=StrictRoute, tags=["Invoices"])

Place = Annotated[str, Field(max_length=PLACE_MAX_LENGTH)]


class Address(Body):
    """A postal address."""

    model_config = ConfigDict(from_attributes=True)

    country: Annotated[str, Field(min_length=2, max_length=2)] = Field(
        description="Two-letter ISO 3166-1 code.", examples=["IN"]
    )
    state: Place = Field(
        default="",
        description="State or province. Required in India: its name or its GST code.",
        examples=["Karnataka"],
    )
    city: Place = Field(description="City.", examples=["Bengaluru"])
    postal_code: Annotated[str, Field(max_length=billing_details.POSTAL_CODE_MAX_LENGTH)] = Field(
        default="", description="Postal code; six digits in India.", examples=["560001"]
    )
    lines: Annotated[list[Place], Field(min_length=1, max_length=LINES_MAX, strict=False)] = Field(
        description="Street, house number, floor, district.", examples=[["12 MG Road", "4th floor"]]
    )


class BillingDetails(Body):
    """A company's or a person's name and address.

    Only Latin, Greek and Cyrillic letters: invoices print them.
    """

    model_config = ConfigDict(from_attributes=True)

    name: Annotated[str, Field(min_length=1, max_length=NAME_MAX_LENGTH)] = Field(
        description="Company or personal name.", examples=["Marathon Photos Pvt Ltd"]
    )
    email: Annotated[str, Field(max_length=EMAIL_MAX_LENGTH)] = Field(
        description="The email address for invoices.", examples=["accounts@marathon.example"]
    )
    address: Address = Field(description="The billing address. In India it is the place of supply.")
    phone: Annotated[str, Field(max_length=PHONE_MAX_LENGTH)] | None = Field(
        default=None, description="A phone number.", examples=["+91 80 4718 0000"]
    )
    tax_id: Annotated[str, Field(max_length=TAX_ID_MAX_LENGTH)] | None = Field(
        default=None,
        description="GSTIN, VAT number, ABN or EIN. The service checks it if it knows the country's format.",
        examples=["29AAGCB7383J1Z4"],
    )
    shipping: Address | None = Field(
        default=None, description="A different shipping address; null: the billing address.", examples=[None]
    )

    def to_domain(self) -> billing_details.BillingDetails:
        """Return the domain's billing details.

        Raises:
            InvalidInput: a field is invalid.
        """
        return billing_details.BillingDetails(
            self.name,
            self.email,
            _address(self.address),
            self.phone,
            self.tax_id,
            None if self.shipping is None else _address(self.shipping),
        )


class BillingOnFile(View):
    """The billing details on file."""

    details: BillingDetails | None = Field(description="The details; null: none on file.")
    changed_at: Instant | None = Field(description="When the details were saved.")
    changed_by: str | None = Field(description="Who saved the details.", examples=["u-17"])
    position: Position


class BillingDetailsRecorded(View):
    """The saved billing details."""

    details: BillingDetails = Field(description="The details, normalised.")
    position: Position


@reads.get(
    "",
    operation_id="getBillingDetails",
    summary="Billing details",
    response_description="The details, if any are on file.",
)
def get_billing_details(organisation_id: OrganisationId, read: Read) -> BillingOnFile:
    """Return the billing details. An invoice keeps the details that were on file when it was issued."""
    return BillingOnFile.model_validate(read.view(invoice_queries.billing_details, organisation_id))


@writes.put(
    "",
    operation_id="putBillingDetails",
    summary="Save billing details",
    response_description="The details are saved.",
    responses=write_responses(200, "organisation-unknown"),
)
def put_billing_details(
    organisation_id: OrganisationId, body: BillingDetails, write: Write
) -> BillingDetailsRecorded:
    """Save the billing details. The event history records who changed them, when, and only a digest of them.

    Payments that waited for billing details get their invoices immediately.
    """
    saved, result = write.services.invoicing.change_billing_details(
        organisation_id,
        body.to_domain(),
        context=write.request,
        idempotency_key=write.idempotency_key(organisation_id, body),
    )
    write.services.invoicing.issue_due(organisation_id, context=write.request)
    write.set_headers(result)
    return BillingDetailsRecorded(details=BillingDetails.model_validate(saved), position=result.position)


@writes.delete(
    "",
    operation_id="eraseBillingDetails",
    summary="Erase billing details",
    status_code=204,
    response_description="The details are erased.",
    responses=responses(*COMMON_PROBLEMS),
)
def erase_billing_details(organisation_id: OrganisationId, write: Write) -> None:
    """Erase the billing details.

    This is final. Issued invoices keep their own copies, as the law requires.
    """
    write.services.invoicing.erase_billing_details(organisation_id, context=write.request)


def _address(address: Address) -> billing_details.Address:
    return billing_details.Address(
        address.country, address.state, address.city, address.postal_code, tuple(address.lines)
    )
