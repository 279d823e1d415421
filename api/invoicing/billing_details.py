"""Billing details: who the organisation's invoices are made out to."""

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
    """Where somebody is."""

    model_config = ConfigDict(from_attributes=True)

    country: Annotated[str, Field(min_length=2, max_length=2)] = Field(
        description="ISO 3166-1 code of two letters.", examples=["IN"]
    )
    state: Place = Field(
        default="",
        description="State or province; in India needed, by its name or its GST code.",
        examples=["Karnataka"],
    )
    city: Place = Field(description="City.", examples=["Bengaluru"])
    postal_code: Annotated[str, Field(max_length=billing_details.POSTAL_CODE_MAX_LENGTH)] = Field(
        default="", description="Postal code; six digits in India.", examples=["560001"]
    )
    lines: Annotated[list[Place], Field(min_length=1, max_length=LINES_MAX, strict=False)] = Field(
        description="Street and house, floor, district.", examples=[["12 MG Road", "4th floor"]]
    )


class BillingDetails(Body):
    """A company's or a person's name and address. Letters are Latin, Greek or Cyrillic: they are printed."""

    model_config = ConfigDict(from_attributes=True)

    name: Annotated[str, Field(min_length=1, max_length=NAME_MAX_LENGTH)] = Field(
        description="Company or personal name.", examples=["Marathon Photos Pvt Ltd"]
    )
    email: Annotated[str, Field(max_length=EMAIL_MAX_LENGTH)] = Field(
        description="Where invoices may be sent.", examples=["accounts@marathon.example"]
    )
    address: Address = Field(description="The billing address; in India the place of supply.")
    phone: Annotated[str, Field(max_length=PHONE_MAX_LENGTH)] | None = Field(
        default=None, description="A phone number.", examples=["+91 80 4718 0000"]
    )
    tax_id: Annotated[str, Field(max_length=TAX_ID_MAX_LENGTH)] | None = Field(
        default=None,
        description="GSTIN, VAT number, ABN, EIN: where the country's form is known, it is checked.",
        examples=["29AAGCB7383J1Z4"],
    )
    shipping: Address | None = Field(
        default=None, description="Another address to ship to; null: the billing address.", examples=[None]
    )

    def to_domain(self) -> billing_details.BillingDetails:
        """Return them as the ledger takes them, which checks them."""
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

    details: BillingDetails | None = Field(description="The details; null: there are none.")
    changed_at: Instant | None = Field(description="When they were put on file.")
    changed_by: str | None = Field(description="Who put them on file.", examples=["u-17"])
    position: Position


class BillingDetailsRecorded(View):
    """What was put on file."""

    details: BillingDetails = Field(description="The details, in the form they are kept.")
    position: Position


@reads.get(
    "",
    operation_id="getBillingDetails",
    summary="Billing details",
    response_description="The details, if any are on file.",
)
def get_billing_details(organisation_id: OrganisationId, read: Read) -> BillingOnFile:
    """Who invoices are made out to. An invoice keeps the details that were on file when it was issued."""
    return BillingOnFile.model_validate(read.view(invoice_queries.billing_details, organisation_id))


@writes.put(
    "",
    operation_id="putBillingDetails",
    summary="Put billing details on file",
    response_description="The details are on file.",
    responses=write_responses(200, "organisation-unknown"),
)
def put_billing_details(
    organisation_id: OrganisationId, body: BillingDetails, write: Write
) -> BillingDetailsRecorded:
    """Say who invoices are made out to. The history keeps who changed it and when, and a digest only.

    Payments that waited for billing details get their invoices at once.
    """
    kept, result = write.services.invoicing.change_billing_details(
        organisation_id,
        body.to_domain(),
        context=write.request,
        idempotency_key=write.idempotency_key(organisation_id, body),
    )
    write.services.invoicing.issue_due(organisation_id, context=write.request)
    write.set_headers(result)
    return BillingDetailsRecorded(details=BillingDetails.model_validate(kept), position=result.position)


@writes.delete(
    "",
    operation_id="eraseBillingDetails",
    summary="Erase billing details",
    status_code=204,
    response_description="There are none on file any more.",
    responses=responses(*COMMON_PROBLEMS),
)
def erase_billing_details(organisation_id: OrganisationId, write: Write) -> None:
    """Take the details off the file for good. Invoices keep their own copies, as the law demands."""
    write.services.invoicing.erase_billing_details(organisation_id, context=write.request)


def _address(address: Address) -> billing_details.Address:
    return billing_details.Address(
        address.country, address.state, address.city, address.postal_code, tuple(address.lines)
    )
