"""The database and broker of `up`: the configured servers, or embedded ones that it supervises."""

from __future__ import annotations

import os
import secrets
import stat
from hashlib import blake2b
from pathlib import Path
from typing import Final

from psycopg.conninfo import conninfo_to_dict

from infra.embedded.broker import EmbeddedBroker
from infra.embedded.gateway_sandbox.keys import KeyFolder
from infra.embedded.issuer import EmbeddedIssuer
from infra.embedded.postgres import EmbeddedPostgres
from infra.embedded.server import EmbeddedServer
from infra.migrations.migrate import migrate
from infra.service.process import check_broker, check_database
from infra.settings import Settings

SERVICE_LOGIN: Final = "creditledger_app"
SYSTEM_DATA: Final = Path("/var/lib/creditledger")


class Servers:
    """PostgreSQL and Kafka of one `up`. `environment` holds their addresses as settings for the parts."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.data_dir = reachable_data_dir(settings.data_dir.resolve())
        self._embedded: list[EmbeddedServer] = []
        self.environment: dict[str, str] = {}
        self.descriptions: list[str] = []
        self.sandbox_port: int | None = None
        """Port for the sandbox gateway; None if a real gateway is configured."""

    def check_configured(self) -> None:
        """Check that the configured servers answer.

        Raises:
            ServiceUnreachable: a server does not answer.
        """
        settings = self._settings
        if settings.database_url is not None:
            check_database("DATABASE_URL", settings.database_url.get_secret_value())
            if settings.migration_database_url is not None:
                check_database("MIGRATION_DATABASE_URL", settings.migration_database_url.get_secret_value())
        if settings.kafka_bootstrap_servers is not None:
            check_broker(settings)

    def start(self) -> None:
        """Start the servers that are not configured, and migrate the database.

        Raises:
            EmbeddedServerError: an embedded server does not start.
        """
        self._start_issuer()
        self._start_database()
        self._start_broker()
        self._prepare_sandbox()

    def supervise(self) -> None:
        """Restart embedded servers that exited."""
        for server in self._embedded:
            server.ensure_running()

    def stop(self) -> None:
        """Stop the embedded servers: the broker first, the database last."""
        for server in reversed(self._embedded):
            server.stop()

    @property
    def database_url(self) -> str:
        """Database URL for the service's role."""
        return self.environment["DATABASE_URL"]

    @property
    def bootstrap_servers(self) -> str:
        """Address of the broker."""
        return self.environment["KAFKA_BOOTSTRAP_SERVERS"]

    def _start_issuer(self) -> None:
        given = self._settings.oidc_issuer
        if given is not None:
            self.descriptions.append(f"token issuer {given}")
            return
        keys = EmbeddedIssuer(self.data_dir).start()
        self.environment["EMBEDDED_ISSUER_KEYS"] = str(keys)
        self.descriptions.append("embedded token issuer, for local use only: see `creditledger token --help`")

    def _start_database(self) -> None:
        given = self._settings.database_url
        if given is not None:
            owner_url = self._settings.owner_database_url or given.get_secret_value()
            migrate(owner_url)
            self.environment["DATABASE_URL"] = given.get_secret_value()
            self.environment["MIGRATION_DATABASE_URL"] = owner_url
            self.descriptions.append("PostgreSQL of DATABASE_URL")
            return
        server = EmbeddedPostgres(self.data_dir / "postgres")
        self._embedded.append(server)
        owner_url = server.start()
        password = _stored_secret(self.data_dir / "service-password")
        migrate(owner_url, service_login=(SERVICE_LOGIN, password))
        database = conninfo_to_dict(owner_url)["dbname"]
        self.environment["DATABASE_URL"] = (
            f"postgresql://{SERVICE_LOGIN}:{password}@127.0.0.1:{server.port}/{database}"
        )
        self.environment["MIGRATION_DATABASE_URL"] = owner_url
        self.descriptions.append(f"embedded PostgreSQL on port {server.port}, data in {server.root}")

    def _start_broker(self) -> None:
        given = self._settings.kafka_bootstrap_servers
        if given is not None:
            self.environment["KAFKA_BOOTSTRAP_SERVERS"] = given
            self.descriptions.append(f"Kafka at {given}")
            return
        server = EmbeddedBroker(self.data_dir / "broker")
        self._embedded.append(server)
        self.environment["KAFKA_BOOTSTRAP_SERVERS"] = server.start()
        self.descriptions.append(f"embedded Kafka broker at {server.address}, in memory, for local use only")

    def _prepare_sandbox(self) -> None:
        if self._settings.names_gateway:
            self.descriptions.append("payment gateways of RAZORPAY_KEY_ID or PAYGLOCAL_MERCHANT_ID")
            return
        folder = KeyFolder(self.data_dir)
        self.sandbox_port = folder.port()
        url = f"http://127.0.0.1:{self.sandbox_port}"
        self.environment |= folder.settings(url)
        self.descriptions.append(f"sandbox payment gateway at {url}, for local use only: no money moves")


def reachable_data_dir(data_dir: Path) -> Path:
    """Return the directory. If root runs `up` and `nobody` cannot enter it, return one under /var/lib.

    PostgreSQL refuses to run as root. So root starts the servers as the user `nobody`, who cannot enter
    private directories such as /root.
    """
    existing = next(folder for folder in (data_dir, *data_dir.parents) if folder.exists())
    if os.geteuid() != 0 or all(
        folder.stat().st_mode & stat.S_IXOTH for folder in (existing, *existing.parents)
    ):
        return data_dir
    return SYSTEM_DATA / blake2b(bytes(data_dir), digest_size=6).hexdigest()


def _stored_secret(path: Path) -> str:
    """Return the secret in a file that only the current user can read. Create it on first use."""
    try:
        return path.read_text()
    except FileNotFoundError:
        secret = secrets.token_urlsafe(24)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secret)
        return secret
