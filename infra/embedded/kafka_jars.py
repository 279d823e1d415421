"""Downloads the jars of Apache Kafka with Maven from kafka-pom.xml, and caches them."""

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from infra.embedded.errors import EmbeddedServerError, MissingToolError
from infra.embedded.files import exclusive

_POM = Path(__file__).with_name("kafka-pom.xml")
_DOWNLOAD_SECONDS = 600.0


def require(program: str) -> str:
    """Return the path of a required program. Raises MissingToolError if it is not installed."""
    path = shutil.which(program)
    if path is None:
        raise MissingToolError(
            f"Apache Kafka needs Java 17 and Maven, and `{program}` is missing: install a Java 17 "
            "runtime and Maven (Debian: apt install openjdk-17-jre-headless maven; macOS: brew install "
            "openjdk@17 maven), or use the embedded broker, which needs neither"
        )
    return path


def kafka_jars(cache: Path) -> Path:
    """Return the folder with all jars of the pom. Download them on first use and after a change of the pom.

    Raises:
        MissingToolError: Maven is missing.
        EmbeddedServerError: the download fails.
    """
    cache = cache.resolve()
    folder = cache / f"kafka-{hashlib.sha256(_POM.read_bytes()).hexdigest()[:12]}"
    cache.mkdir(parents=True, exist_ok=True)
    with exclusive(cache / "download.lock", timeout_seconds=_DOWNLOAD_SECONDS):
        if not folder.exists():
            _download(folder)
    return folder


def _download(folder: Path) -> None:
    maven = require("mvn")
    with tempfile.TemporaryDirectory(prefix="download-", dir=folder.parent) as scratch:
        pom, jars = Path(scratch, "pom.xml"), Path(scratch, "jars")
        shutil.copy(_POM, pom)
        command: list[str | Path] = [
            maven,
            "--batch-mode",
            "--quiet",
            "--file",
            pom,
            "dependency:copy-dependencies",
        ]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={jars}"]
        try:
            done = subprocess.run(
                command, check=False, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise EmbeddedServerError(f"Maven took more than {_DOWNLOAD_SECONDS:.0f} s") from error
        if done.returncode != 0:
            raise EmbeddedServerError(
                f"Maven could not download Apache Kafka:\n{(done.stdout + done.stderr)[-2000:]}"
            )
        jars.rename(folder)
