"""Places and settles holds over HTTP. Retries are safe: a request keeps its Idempotency-Key."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import msgspec

from consumers.client.usage import uuid7
from domain.credits.holds import HoldMode
from domain.credits.usage import PhotoEvent
from domain.pricing.rate_card import UsageType
from domain.shared.backoff import Backoff

RETRY_FOR_S: Final = 30.0
_TIMEOUT_S: Final = 10.0
_BACKOFF_INITIAL_S: Final = 0.1
_BACKOFF_MAX_S: Final = 2.0
_RETRYABLE: Final = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE)


class PlacedHold(msgspec.Struct, frozen=True):
    """A hold after a request.

    `credits` were held, `remaining` are still held, and `available` are free for other runs.
    """

    hold_id: str
    run_id: str
    status: str
    credits: int
    remaining: int
    available: int


class HoldRefused(Exception):
    """The ledger refused the request; a retry gets the same result.

    `problem` is the name of the RFC 9457 type. `insufficient-credits`: wait for credits. `hold-closed`: the
    run has already used its one hold.
    """

    def __init__(self, problem: str, status: int, detail: str) -> None:
        super().__init__(detail)
        self.problem = problem
        self.status = status


class LedgerUnreachable(Exception):
    """The ledger did not respond in time.

    The request may have taken effect: repeat it with the same run id.
    """


class Holds:
    """Holds of a pipeline's runs.

    Args:
        api_url: such as `https://ledger.example.com`, without `/v1`.
        headers: returns the headers of every request, such as `Authorization`.
    """

    def __init__(
        self,
        api_url: str,
        *,
        headers: Callable[[], Mapping[str, str]] = dict,
        retry_for_s: float = RETRY_FOR_S,
    ) -> None:
        self._api_url = api_url.rstrip("/")
        self._headers = headers
        self._retry_for_s = retry_for_s

    def place(
        self,
        organisation_id: str,
        run_id: str,
        usage_type: UsageType,
        photos: int,
        *,
        mode: HoldMode = HoldMode.UP_TO,
        ai_search: bool = True,
        expires_in_s: int = 3_600,
        event: PhotoEvent | None = None,
    ) -> PlacedHold:
        """Hold credits for a run: all that it needs, or (`up_to`) as many as are available.

        `event` is the photo event to which a settlement charges photos that no message has reported. Default:
        the photo event of the run's messages.

        Raises:
            HoldRefused: too few credits are available, the run has already used its one hold, or a value is
                invalid.
            LedgerUnreachable: no response in time.
        """
        body = {
            "run_id": run_id,
            "usage_type": usage_type,
            "photos": photos,
            "ai_search": ai_search,
            "mode": mode,
            "expires_in_s": expires_in_s,
        } | ({} if event is None else {"event": event})
        return self._post(organisation_id, "holds", body)

    def settle(
        self, organisation_id: str, hold_id: str, photos: int, *, usage_type: UsageType | None = None
    ) -> PlacedHold:
        """Settle the hold of a run with the total number of photos that were processed successfully.

        Raises:
            HoldRefused, LedgerUnreachable: see `place`.
        """
        body = {"photos": photos} | ({} if usage_type is None else {"usage_type": usage_type})
        return self._post(organisation_id, f"holds/{quote(hold_id, safe='')}/settle", body)

    def release(self, organisation_id: str, hold_id: str) -> PlacedHold:
        """Release a hold.

        Raises:
            HoldRefused, LedgerUnreachable: see `place`.
        """
        return self._post(organisation_id, f"holds/{quote(hold_id, safe='')}/release", {})

    def _post(self, organisation_id: str, path: str, body: Mapping[str, Any]) -> PlacedHold:
        url = f"{self._api_url}/v1/organisations/{quote(organisation_id, safe='')}/{path}"
        key = str(uuid7())
        deadline = time.monotonic() + self._retry_for_s
        backoff = Backoff(_BACKOFF_INITIAL_S, _BACKOFF_MAX_S)
        while True:
            request = urllib.request.Request(  # noqa: S310 - the URL is the pipeline's own setting
                url,
                msgspec.json.encode(body),
                {**self._headers(), "Content-Type": "application/json", "Idempotency-Key": key},
            )
            try:
                with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310
                    return msgspec.json.decode(response.read(), type=PlacedHold)
            except urllib.error.HTTPError as error:
                with error:
                    if error.code not in _RETRYABLE:
                        raise _refusal(error) from None
                    reason: Exception = error
            except (urllib.error.URLError, OSError) as error:
                reason = error
            if time.monotonic() + backoff.next_s > deadline:
                raise LedgerUnreachable(str(reason)) from reason
            time.sleep(backoff.advance())


class _Problem(msgspec.Struct):
    type: str = ""
    detail: str = ""


def _refusal(error: urllib.error.HTTPError) -> HoldRefused:
    try:
        problem = msgspec.json.decode(error.read(), type=_Problem)
    except msgspec.DecodeError:
        problem = _Problem(detail=str(error))
    return HoldRefused(problem.type.removeprefix("/problems/"), error.code, problem.detail)
