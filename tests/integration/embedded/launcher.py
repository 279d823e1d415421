"""A program that starts an embedded server and exits when its standard input closes.

python launcher.py postgres|broker ROOT
"""

import sys
from pathlib import Path

from infra.embedded.broker import EmbeddedBroker
from infra.embedded.postgres import EmbeddedPostgres

if __name__ == "__main__":
    server = {"postgres": EmbeddedPostgres, "broker": EmbeddedBroker}[sys.argv[1]](Path(sys.argv[2]))
    print(server.start(), flush=True)  # noqa: T201 - read by the test
    sys.stdin.read()
