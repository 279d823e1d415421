"""Documents agree with the repository: links, paths, settings, commands, diagrams and Python in them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import pytest

from infra.settings import Settings
from tests.documents import DOCUMENTS, ROOT, blocks, name_of, prose

LINE_MAX: Final = 120
LINES_OF_README_MAX: Final = 130
FOLDERS: Final = ("api", "benchmarks", "consumers", "docs", "domain", "infra", "projections", "tests")
STAND_INS: Final = ("CONTEXT", "LAYER", "NNNN")
"""Words of CONTRIBUTING that stand for a name of the reader's."""
HISTORY: Final = "CHANGELOG.md"
"""It may name what is gone."""
GENERATED: Final = {"benchmarks/results.json"}
INTERNAL_SETTINGS: Final = {"EMBEDDED_ISSUER_KEYS"}
"""`up` sets these for its own processes."""
HIDDEN_COMMANDS: Final = {"tend"}
DIAGRAMS: Final = ("flowchart", "sequenceDiagram", "stateDiagram-v2", "erDiagram")

_LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE: Final = re.compile(r"`([^`\n]+)`")
_HEADING: Final = re.compile(r"^#+ (.*)$", re.M)
_PATH: Final = re.compile(rf"(?:{'|'.join(FOLDERS)})/[\w./-]*")
_SETTING: Final = re.compile(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)`")
_COMMAND: Final = re.compile(r"\bcreditledger ([a-z]+(?:-[a-z]+)*)")

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)


def anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub generates for the headings of a document."""
    headings = _HEADING.findall(prose(document))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@every_document
def test_every_link_has_a_target(document: Path) -> None:
    broken = []
    for target in _LINK.findall(prose(document)):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = unquote(target).partition("#")
        file = (document.parent / path).resolve() if path else document
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


@every_document
def test_paths_that_are_named_exist(document: Path) -> None:
    if document.name == HISTORY:
        return
    named = {
        path for code in _CODE.findall(prose(document)) if (path := code.strip()) and _PATH.fullmatch(path)
    }
    named |= {path for block in blocks(document, "mermaid") for path in _PATH.findall(block) if "." in path}
    missing = [path for path in sorted(named - GENERATED) if not (ROOT / path).exists()]
    assert [path for path in missing if not any(word in path for word in STAND_INS)] == []


@every_document
def test_lines_are_short_enough_to_read(document: Path) -> None:
    lines = [line for line in prose(document).splitlines() if not line.startswith("|")]
    assert [line for line in lines if len(line) > LINE_MAX] == []


@every_document
def test_diagrams_have_a_known_type_and_balanced_brackets(document: Path) -> None:
    for block in blocks(document, "mermaid"):
        assert block.split()[0] in DIAGRAMS
        for opening, closing in ("[]", "()", "{}"):
            # Arrows of an entity diagram, such as ||--o{, contain a brace.
            text = re.sub(r"[|}][|o]--[|o][{|]", "", block)
            assert text.count(opening) == text.count(closing), block
        assert block.count("subgraph ") == len(re.findall(r"^\s+end$", block, re.M)) - len(
            re.findall(r"^\s+(?:alt|opt|loop) ", block, re.M)
        )


@every_document
def test_python_in_documents_is_python(document: Path) -> None:
    for block in blocks(document, "python"):
        ast.parse(block)


@every_document
def test_every_document_can_be_reached_from_readme(document: Path) -> None:
    reached: set[Path] = set()
    to_read = [ROOT / "README.md"]
    while to_read:
        current = to_read.pop()
        if current in reached or current.suffix != ".md":
            continue
        reached.add(current)
        to_read += [
            (current.parent / target.partition("#")[0]).resolve()
            for target in _LINK.findall(prose(current))
            if "://" not in target and not target.startswith("#")
        ]
    assert document in reached


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= LINES_OF_README_MAX


def test_settings_match_those_of_the_service() -> None:
    described = set(_SETTING.findall((ROOT / "docs" / "settings.md").read_text(encoding="utf-8")))
    known = {name.upper() for name in Settings.model_fields} - INTERNAL_SETTINGS
    assert known - described == set()
    assert {name for name in described - known if "_" in name} <= {"SASL_PLAINTEXT", "SASL_SSL"}


@pytest.fixture(scope="module")
def commands() -> set[str]:
    """The commands that the program's help lists."""
    shown = subprocess.run(
        [sys.executable, "-m", "infra.cli", "--help"], capture_output=True, text=True, check=True, timeout=60
    )
    return set(re.findall(r"^    ([a-z]+(?:-[a-z]+)*)", shown.stdout, re.M))


@every_document
def test_commands_match_those_of_the_program(document: Path, commands: set[str]) -> None:
    named = {
        name
        for code in [*_CODE.findall(prose(document)), *blocks(document, "sh")]
        for name in _COMMAND.findall(code)
    }
    assert named - commands - HIDDEN_COMMANDS == set()
