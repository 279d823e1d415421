"""Sends COPY and COMMIT together and fetches their results later. The caller works in the meantime.

psycopg's COPY blocks until the server has finished. A second thread for the wait would cost more than it
gains, because both threads compete for the interpreter lock. So this module uses libpq's non-blocking
functions: https://www.postgresql.org/docs/current/libpq-async.html and libpq-copy.html
"""

from __future__ import annotations

from select import POLLIN, POLLOUT, poll
from typing import Final

from psycopg import errors
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGconn, PGresult

_CHUNK: Final = 1 << 18
"""Bytes passed to libpq at a time. This keeps its buffer small."""
SILENCE_MAX_S: Final = 30
"""Longest time without a reply, in seconds. Less than the time that a process has to stop."""
_FAILED: Final = (ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE)


def start_copy(connection: PGconn, statements: bytes, payload: bytes) -> None:
    """Send statements and the whole data of a COPY. The first statement must be COPY FROM STDIN.

    Raises:
        psycopg.Error: the server refused the COPY. `fetch_results` raises the errors of later statements.
    """
    send_statements(connection, statements)
    started = _next(connection)
    if started is None or started.status != ExecStatus.COPY_IN:
        raise _error(started, connection)
    for offset in range(0, len(payload), _CHUNK):
        while connection.put_copy_data(payload[offset : offset + _CHUNK]) == 0:
            _wait(connection, POLLIN | POLLOUT)
        _flush(connection)
    while connection.put_copy_end() == 0:
        _wait(connection, POLLIN | POLLOUT)
    _flush(connection)


def send_statements(connection: PGconn, statements: bytes) -> None:
    """Send statements without waiting for their results.

    Raises:
        psycopg.OperationalError: the connection is lost.
    """
    connection.send_query(statements)
    _flush(connection)


def fetch_results(connection: PGconn) -> list[PGresult]:
    """Wait for the statements that were sent. Return a result for each of them.

    Raises:
        psycopg.Error: a statement failed. The server did not run the statements after it.
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
    """Wait until the socket is ready, and read the received data.

    Raises:
        psycopg.OperationalError: no data for `SILENCE_MAX_S` seconds, or the connection is lost.
    """
    poller = poll()
    poller.register(connection.socket, events)
    ready_now = poller.poll(SILENCE_MAX_S * 1_000)
    if not ready_now:
        raise errors.OperationalError(f"the server did not reply within {SILENCE_MAX_S} s")
    for _, ready in ready_now:
        if ready & ~POLLOUT:
            connection.consume_input()


def _error(result: PGresult | None, connection: PGconn) -> Exception:
    if result is None or result.status not in _FAILED:
        return errors.ProgrammingError("the server did not begin the COPY")
    if connection.status != ConnStatus.OK:  # a client-side error has no code
        return errors.OperationalError(result.get_error_message())
    return errors.error_from_result(result)
