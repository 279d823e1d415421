"""The whole service, as `creditledger up --demo` runs it, and a real browser in front of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from infra.embedded.files import pick_free_port
from infra.settings import Settings
from infra.up.tokens import sign_in_link

NAMES = ("chromium", "chromium-browser", "google-chrome")
READY_WITHIN_S = 60
HISTORY_WITHIN_S = 30
SCREENSHOTS = Path("var/screenshots")
ORGANISATION = "stride-photos"

Open = Callable[..., Page]


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the browser. Without one the tests fail instead of being skipped."""
    named = os.environ.get("CHROMIUM")
    found = named or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None or not Path(found).exists():
        pytest.fail(
            "no browser: install one (apt-get install chromium), or name its program in CHROMIUM",
            pytrace=False,
        )
    return found


@pytest.fixture(scope="session")
def service(servers_root: Path) -> Iterator[Settings]:
    """The demo service, with its history projected and live usage."""
    port = pick_free_port()
    data_dir = servers_root / "browser"
    given = {name: value for name, value in os.environ.items() if not name.endswith(("_URL", "_SERVERS"))}
    environment = {
        **given,
        "DATA_DIR": str(data_dir),
        "API_PORT": str(port),
        "SUPPORT_CONTACT": "support@9pic.example",
    }
    with subprocess.Popen(
        [sys.executable, "-m", "infra.cli", "up", "--demo", "--rate", "3"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            _wait_until_ready(f"http://127.0.0.1:{port}/readyz")
            yield Settings(data_dir=data_dir, api_port=port)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=90)


@pytest.fixture(scope="session")
def url(service: Settings) -> str:
    """The address of the service."""
    return f"http://{service.api_host}:{service.api_port}"


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    """A headless browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser, service: Settings, url: str) -> Iterator[Open]:
    """A function that signs a user in, in a new browser context, and opens a page."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def open_one(
        role: str, path: str = "/credits", organisation: str | None = ORGANISATION, **options: object
    ) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        of_one = organisation if role in ("admin", "member") else None
        page.goto(sign_in_link(service, url, role, of_one))
        if path != "/credits" or of_one is None:
            page.goto(url + path)
        return page

    yield open_one
    for context in contexts:
        context.close()
    # The console also reports a response of 403 or 404 that a test expects.
    assert [said for said in complaints if "Failed to load resource" not in said] == []


@pytest.fixture(scope="session", autouse=True)
def history(browser: Browser, service: Settings, url: str) -> None:
    """Wait until the demo's months are projected."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(sign_in_link(service, url, "member", ORGANISATION))
    deadline = time.monotonic() + HISTORY_WITHIN_S
    while "0" in (usages := page.locator(".month .usage").all_inner_texts()) or not usages:
        assert time.monotonic() < deadline, "the demo's history was not projected"
        time.sleep(0.3)
        page.reload()
    context.close()


def _wait_until_ready(address: str) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while True:
        try:
            with urllib.request.urlopen(address, timeout=2):  # noqa: S310 - loopback
                return
        except (urllib.error.URLError, OSError):
            assert time.monotonic() < deadline, "the service did not become ready"
            time.sleep(0.1)
