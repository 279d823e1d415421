"""A part of the service holds what it needs: memory counts once for each of them."""

from __future__ import annotations

import json
import subprocess
import sys

OF_THE_API_ALONE = ("fastapi", "jinja2", "fpdf", "api.app")


def test_no_part_but_the_api_loads_a_web_server() -> None:
    loaded = f"[name for name in {OF_THE_API_ALONE} if name in sys.modules]"
    code = f"import infra.cli.main, json, sys; print(json.dumps({loaded}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout) == []
