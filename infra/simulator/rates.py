"""The pipeline's expected rates: an independent copy of the published rate card."""

from __future__ import annotations

from typing import Final

PHOTO_PROCESSING: Final = "photo_processing"
AI_IMAGE_ROTATION: Final = "ai_image_rotation"
WATERMARK_REPROCESS: Final = "watermark_reprocess"
STORE_ORIGINALS: Final = "store_originals"

_MILLIONTHS: Final = 1_000_000


class Rates:
    """Rates in millionths of a credit per photo. The rate for storing originals can be given."""

    def __init__(self, store_originals_rate_millionths: int = 0) -> None:
        self._searched = {
            PHOTO_PROCESSING: _MILLIONTHS,
            AI_IMAGE_ROTATION: _MILLIONTHS,
            WATERMARK_REPROCESS: _MILLIONTHS // 10,
            STORE_ORIGINALS: store_originals_rate_millionths,
        }

    def rate_millionths(self, usage_type: str, *, ai_search: bool) -> int:
        """Return the rate of a photo. Processing without AI search is free."""
        if usage_type == PHOTO_PROCESSING and not ai_search:
            return 0
        return self._searched[usage_type]


def whole_credits(photos: int, rate_millionths: int) -> int:
    """Return the credits of photos at a rate, rounded up."""
    credits, remainder = divmod(photos * rate_millionths, _MILLIONTHS)
    return credits + (1 if remainder else 0)
