"""A part of the service imports only what it needs, because each part uses its own memory."""

from __future__ import annotations

import json
import subprocess
import sys

OF_THE_API_ALONE = ("fastapi", "jinja2", "fpdf", "api.app")


def test_only_the_api_imports_a_web_server() -> None:
    loaded = f"[name for name in {OF_THE_API_ALONE} if name in sys.modules]"
    code = f"import infra.cli.main, json, sys; print(json.dumps({loaded}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout) == []
