"""A store that calls a hook around every step, so that a test can act between two steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Hook = Callable[[str], None]
"""Called with `before METHOD` and `after METHOD`."""


class CallInterceptor:
    """Wraps a store or a transaction, and calls a hook around each of its methods."""

    def __init__(self, inner: Any, hook: Hook) -> None:
        self.inner = inner
        self.hook = hook

    def __getattr__(self, name: str) -> Any:
        member = getattr(self.inner, name)
        if not callable(member):
            return member

        def call(*args: Any, **kwargs: Any) -> Any:
            self.hook(f"before {name}")
            result = member(*args, **kwargs)
            self.hook(f"after {name}")
            return CallInterceptor(result, self.hook) if name == "begin" else result

        return call


def call_once(step: str, action: Callable[[], object]) -> Hook:
    """Return a hook that acts once, at the first occurrence of a step."""
    due = [action]

    def hook(at: str) -> None:
        if at == step and due:
            due.pop()()

    return hook
