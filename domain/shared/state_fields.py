"""Fields of an aggregate's state, each declared once: fork, snapshot and restore follow from the declaration.

A state is a dataclass with slots. The metadata of a field say what a default cannot: how the field is copied
for a fork, and how it is kept in a snapshot.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, get_type_hints

import msgspec

StateT = TypeVar("StateT")
Convert = Callable[[Any], Any]
_OPTIONS: Final = "kept"


class FieldOptions(msgspec.Struct, frozen=True):
    """What is declared about one field.

    `copy` None: a fork shares the value. `derived`: no snapshot has the field, other fields give it.
    `optional`: older snapshots lack it. `stored_as` is its type in a snapshot where that is another one;
    `dump` and `load` convert the value.
    """

    copy: Convert | None = None
    derived: bool = False
    optional: bool = False
    stored_as: Any = None
    dump: Convert | None = None
    load: Convert | None = None


def field_metadata(**options: Any) -> dict[str, FieldOptions]:
    """Return the metadata of a field, see `FieldOptions`."""
    return {_OPTIONS: FieldOptions(**options)}


def field_options(state_type: type[Any]) -> Mapping[str, FieldOptions]:
    """Return what is declared about each field of a state, in the order of declaration."""
    return {
        field.name: field.metadata.get(_OPTIONS, FieldOptions()) for field in dataclasses.fields(state_type)
    }


def compile_fork(state_type: type[Any], shared: tuple[str, ...]) -> Callable[[StateT], StateT]:
    """Return the function that copies a state, and the attributes in `shared` which are not declared fields.

    It is compiled, as a dataclass' `__init__` is: a loop over the fields takes four times as long, and the
    usage path forks every organisation of every batch.
    """
    copies = {name: each.copy for name, each in field_options(state_type).items()}
    lines = ["def fork(state):", " fork = new(type(state))"]
    for name in (*shared, *copies):
        value = f"state.{name}"
        copy = copies.get(name)
        if copy is dict.copy:  # nearly always empty, and a literal costs less than a call
            value = f"{value}.copy() if {value} else {{}}"
        elif copy is not None:
            value = f"copy_{name}({value})"
        lines.append(f" fork.{name} = {value}")
    namespace: dict[str, Any] = {"new": object.__new__}
    namespace.update({f"copy_{name}": copy for name, copy in copies.items()})
    exec("\n".join([*lines, " fork._pending = []", " return fork"]), namespace)  # noqa: S102
    fork: Callable[[StateT], StateT] = namespace["fork"]
    return fork


class SnapshotLayout:
    """The fields of a state that a snapshot has, in the order of declaration."""

    def __init__(self, state_type: type[Any]) -> None:
        self._fields = {name: each for name, each in field_options(state_type).items() if not each.derived}
        self._types = get_type_hints(state_type)
        self._defaults = {field.name: field.default for field in dataclasses.fields(state_type)}

    def snapshot_type(self, name: str, base: type[msgspec.Struct]) -> type[Any]:
        """Return the stored type: an array of the base's fields and these."""
        fields: list[Any] = []
        for field, options in self._fields.items():
            stored_as = options.stored_as or self._types[field]
            if not options.optional:
                fields.append((field, stored_as))
            elif options.dump is None:
                fields.append((field, stored_as, self._defaults[field]))
            else:
                fields.append((field, stored_as, msgspec.field(default_factory=list)))
        return msgspec.defstruct(name, fields, bases=(base,), module=base.__module__)

    def dump(self, state: Any) -> list[Any]:
        """Return the stored values of a state."""
        values = []
        for field, options in self._fields.items():
            value = getattr(state, field)
            values.append(value if options.dump is None else options.dump(value))
        return values

    def load(self, state: Any, snapshot: Any) -> None:
        """Set the fields of a state from its snapshot."""
        for field, options in self._fields.items():
            value = getattr(snapshot, field)
            setattr(state, field, value if options.load is None else options.load(value))
