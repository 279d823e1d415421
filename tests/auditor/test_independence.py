"""The auditor is useless if it shares a mistake with the product, so it shares no code with it."""

import ast
from pathlib import Path

PRODUCT = {"api", "benchmarks", "consumers", "domain", "infra", "projections"}
SPOILERS = ("test_", "conftest")


def test_it_shares_no_code_with_the_product() -> None:
    modules = [path for path in Path(__file__).parent.glob("*.py") if not path.name.startswith(SPOILERS)]
    assert modules
    for path in modules:
        imported = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
                assert not (node.module or "").startswith("tests.") or "auditor" in (node.module or "")
        assert not imported & PRODUCT, path
