"""What may be wrong with what an operator returned."""

from __future__ import annotations

import inspect
from typing import Any

from sage.common.errors import SageError

__all__ = ["ItemError", "UnawaitedError", "check_output"]


class ItemError(SageError):
    """What an operator returned for an item cannot be used."""


class UnawaitedError(ItemError):
    """A plain function returned a coroutine, which nobody awaits."""


def check_output(name: str, result: Any) -> None:
    """Refuse a coroutine where a value was expected.

    Raises:
        UnawaitedError: `result` was never awaited.
    """
    if inspect.iscoroutine(result):
        result.close()
        raise UnawaitedError(
            f"operator {name!r} returned a coroutine that nobody awaits: declare it with `async def`, or "
            f"give it "
            "contract=Contract(execution=Execution.ASYNC)"
        )
