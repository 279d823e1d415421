"""README, CONTRIBUTING, CHANGELOG and all documents in `docs/`: their text and code blocks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
DOCUMENTS: Final = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

_BLOCK: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)


def name_of(document: Path) -> str:
    """Return the path of a document from the repository's root."""
    return document.relative_to(ROOT).as_posix()


def blocks(document: Path, language: str) -> list[str]:
    """Return the code blocks of a language, in order."""
    return [code for found, code in _BLOCK.findall(document.read_text(encoding="utf-8")) if found == language]


def prose(document: Path) -> str:
    """Return the text of a document without its code blocks."""
    return _BLOCK.sub("", document.read_text(encoding="utf-8"))
