"""Type information of msgspec's structs, built before threads start.

msgspec builds the type information of a struct when it first decodes one. If two threads are the first at
the same time, the process can crash with a segmentation fault (seen with msgspec 0.22 on Python 3.11). So
processes with several threads build all of it first.
"""

from __future__ import annotations

from contextlib import suppress

import msgspec


def prepare_struct_types() -> None:
    """Build the type information of every struct that is defined by now. It takes some milliseconds."""
    pending: list[type[msgspec.Struct]] = [msgspec.Struct]
    while pending:
        struct_type = pending.pop()
        pending += struct_type.__subclasses__()
        if struct_type is not msgspec.Struct and not _is_generic(struct_type):
            with suppress(TypeError):  # it has a field that JSON cannot describe, so nobody decodes it
                msgspec.json.Decoder(struct_type)


def _is_generic(struct_type: type[msgspec.Struct]) -> bool:
    return bool(getattr(struct_type, "__parameters__", ()))
