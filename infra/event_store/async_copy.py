"""COPY and COMMIT sent in one go, and their outcome fetched later: meanwhile the caller works on.

psycopg's own COPY waits for the outcome where it ends, and a second thread that waits instead costs more
than it hides: both want the interpreter for every step. So this speaks to libpq's non-blocking functions:
https://www.postgresql.org/docs/current/libpq-async.html and libpq-copy.html
"""

from __future__ import annotations

from select import POLLIN, POLLOUT, poll
from typing import Final

from psycopg import errors
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGconn, PGresult

_CHUNK: Final = 1 << 18
"""Bytes handed to libpq at a time, which keeps its buffer small."""
SILENCE_MAX_S: Final = 30
"""How long a commit may take: more than any lock, which is held by then, and less than a stop may last."""
_FAILED: Final = (ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE)


def start_copy(connection: PGconn, statements: bytes, payload: bytes) -> None:
    """Send statements of which the first is a COPY from stdin, with its data, all of it.

    Raises:
        psycopg.Error: the server refused the COPY; `fetch_results` tells of what it refuses later.
    """
    send_statements(connection, statements)
    started = _next(connection)
    if started is None or started.status != ExecStatus.COPY_IN:
        raise _error(started, connection)
    for place in range(0, len(payload), _CHUNK):
        while connection.put_copy_data(payload[place : place + _CHUNK]) == 0:
            _wait(connection, POLLIN | POLLOUT)
        _flush(connection)
    while connection.put_copy_end() == 0:
        _wait(connection, POLLIN | POLLOUT)
    _flush(connection)


def send_statements(connection: PGconn, statements: bytes) -> None:
    """Send statements.

    Raises:
        psycopg.OperationalError: the server is lost.
    """
    connection.send_query(statements)
    _flush(connection)


def fetch_results(connection: PGconn) -> list[PGresult]:
    """Wait for what was started to end; return a result for each statement.

    Raises:
        psycopg.Error: a statement failed, and those after it were not run.
    """
    results = []
    failed = None
    while (result := _next(connection)) is not None:
        if result.status in _FAILED:
            failed = failed or result
        results.append(result)
    if failed is not None:
        raise _error(failed, connection)
    return results


def _next(connection: PGconn) -> PGresult | None:
    while connection.is_busy():
        _wait(connection, POLLIN)
    return connection.get_result()


def _flush(connection: PGconn) -> None:
    while connection.flush():
        _wait(connection, POLLIN | POLLOUT)


def _wait(connection: PGconn, events: int) -> None:
    """Wait until the socket is ready, and take in what came.

    Raises:
        psycopg.OperationalError: nothing came for `SILENCE_MAX_S`, or the server is lost.
    """
    poller = poll()
    poller.register(connection.socket, events)
    ready_now = poller.poll(SILENCE_MAX_S * 1_000)
    if not ready_now:
        raise errors.OperationalError(f"the server was silent for {SILENCE_MAX_S} s")
    for _, ready in ready_now:
        if ready & ~POLLOUT:
            connection.consume_input()


def _error(result: PGresult | None, connection: PGconn) -> Exception:
    if result is None or result.status not in _FAILED:
        return errors.ProgrammingError("the server did not begin the COPY")
    if connection.status != ConnStatus.OK:  # an error of the client's own, without a code
        return errors.OperationalError(result.get_error_message())
    return errors.error_from_result(result)
