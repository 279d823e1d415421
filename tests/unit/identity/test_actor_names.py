"""Display names of actors."""

from __future__ import annotations

import pytest

from domain.identity.people import ActorNames


@pytest.mark.parametrize(
    ("user_id", "shown"),
    [("u-1", "Asha Rao"), ("u-2", "erased person"), ("u-3", "u-3"), (None, "System")],
)
def test_a_name_replaces_an_id(user_id: str | None, shown: str) -> None:
    assert ActorNames({"u-1": "Asha Rao", "u-2": None}).of(user_id) == shown
