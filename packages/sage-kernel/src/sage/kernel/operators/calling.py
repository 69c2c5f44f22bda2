"""Whether the runtime can call a function as it will: seen when the pipeline is built, and not item by item."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Final

from sage.kernel.graph import OperatorKind, PipelineError

__all__ = ["ARGUMENTS", "changes_only", "check_call", "hint_for"]

ARGUMENTS: Final[dict[OperatorKind, tuple[str, ...]]] = {
    OperatorKind.SOURCE: (),
    OperatorKind.REDUCE: ("what has been folded so far", "the item"),
    OperatorKind.JOIN: ("the left item", "the right item"),
}
"""What the function of an operator is called with, where that is not the item alone."""

_CHANGE_ONLY: Final[dict[Any, str]] = {
    list.append: "list.append",
    list.extend: "list.extend",
    set.add: "set.add",
    set.update: "set.update",
    dict.update: "dict.update",
}


def check_call(function: Callable[..., Any], arguments: tuple[str, ...], who: str, where: str, unbound: bool) -> None:
    """Refuse a function that cannot take these arguments by position. What tells nothing of its parameters, such as
    some built-in functions, passes.

    Args:
        function: the user's.
        arguments: what each of them is, for the message.
        who: whose function it is.
        where: operator and line.
        unbound: it is a method of a class, and so takes `self` before them.

    Raises:
        PipelineError: a call could only raise.
    """
    try:
        # What a decorator has put around a function is called, whatever the function inside looks like.
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*([None] * (len(arguments) + unbound)))
    except TypeError:
        number = ("no argument", "one argument, ", "two arguments, ")[len(arguments)]
        raise PipelineError(
            f"{who} calls its function with {number}{' and '.join(arguments)}, which {_shown(function)}{signature} "
            f"cannot take{_why(function, arguments, signature)} {where}"
        ) from None


def changes_only(function: Any) -> str:
    """The name of a method that changes its first argument and returns None, "" for any other function."""
    try:
        return _CHANGE_ONLY.get(function, "")
    except TypeError:  # not hashable
        return ""


def hint_for(target: Any) -> str:
    """What somebody may have meant who passes no function."""
    if isinstance(target, str):
        return f": to take a field of the item write lambda item: item[{target!r}]"
    method = next((name for name in ("execute", "execute1", "add") if callable(getattr(target, name, None))), None)
    if method is not None and not isinstance(target, (set, frozenset)):
        return f": it has an {method}() and is no function, derive {type(target).__name__} from a function base"
    return ": pass the function itself, not what a call of it returns"


def _shown(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return str(name).rpartition("<locals>.")[2]


def _why(function: Any, arguments: tuple[str, ...], signature: inspect.Signature) -> str:
    if isinstance(function, type):
        return ": a class is called as a function, to make it an operator derive it from a function base"
    required = [each for each in signature.parameters.values() if each.default is each.empty]
    if arguments == ("the item",) and len(required) > 1:
        return ": an item that is a tuple comes whole, and what does not change belongs into a functools.partial"
    return ""
