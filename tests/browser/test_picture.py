"""The picture of the Credits page in README. `make picture` saves it at README's path."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from PIL import Image

from tests.browser.conftest import SCREENSHOTS, Open

pytestmark = pytest.mark.browser

BYTES_MAX = 150_000
WIDTH = 1_280
HEIGHT = 1_120
COLOURS = 128


def test_picture_of_the_credits_page(open_page: Open) -> None:
    """Take the picture in light colours; PICTURE names the file, without it the picture goes to `var`."""
    page = open_page(
        "admin", viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light", reduced_motion="reduce"
    )
    page.wait_for_load_state("networkidle")
    with Image.open(io.BytesIO(page.screenshot())) as taken:
        small = taken.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    path = Path(os.environ.get("PICTURE", SCREENSHOTS / "readme.png"))
    path.parent.mkdir(parents=True, exist_ok=True)
    small.save(path, optimize=True)
    assert path.stat().st_size < BYTES_MAX
