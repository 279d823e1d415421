"""Structs are ready to be decoded before threads start."""

from __future__ import annotations

import msgspec
import pytest

from infra import struct_types
from infra.struct_types import prepare_struct_types

Number = int


class LateStruct(msgspec.Struct):
    """Its annotation is a string, which msgspec looks up when it builds the type information."""

    value: Number


def test_type_information_is_built_before_the_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_struct_types()
    monkeypatch.delitem(globals(), "Number")
    assert msgspec.json.decode(b'{"value": 1}', type=LateStruct) == LateStruct(1)


def test_structs_of_the_service_can_all_be_built() -> None:
    import infra.service.api_server  # noqa: F401 - defines the structs of the API and of the gateways

    prepare_struct_types()
    assert not struct_types._is_generic(LateStruct)
