"""Tells the story of a failure: which operator, which item, which line of the user's file."""

from __future__ import annotations

import sys
import traceback
from types import TracebackType
from typing import Any

from sage.common.errors import SageError

from .steps import StepFailed

__all__ = ["RemoteTracebackError", "describe_failure", "foreign_place", "line_of", "preview"]


class RemoteTracebackError(Exception):
    """Stands as the cause of an error that was raised in a process; it prints as the traceback that it had there."""

    def __init__(self, text: str, place: str) -> None:
        super().__init__(text)
        self.place = place

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


def describe_failure(reason: str, failure: BaseException) -> str:
    """One or two lines: what failed, what was raised, and where in the user's code.

    Example:
        >>> describe_failure("task 'a[0]' failed", ValueError("no"))
        "task 'a[0]' failed: ValueError: no"
    """
    raised = failure.error if isinstance(failure, StepFailed) else failure
    what = f"{failure}: " if isinstance(failure, StepFailed) else ""
    # Our own errors are sentences; of others the type is half of the message.
    line = _text(raised) if isinstance(raised, SageError) else "".join(traceback.format_exception_only(raised)).strip()
    return f"{reason}: {what}{line}{_place(raised)}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # a user's error class may be broken itself
        return f"{type(error).__name__} whose __str__ raised {type(broken).__name__}"


def _place(error: BaseException) -> str:
    found = foreign_place(error)
    return f" ({found})" if found else ""


def foreign_place(error: BaseException) -> str:
    """`file:line, in function` of the innermost frame that is not the framework's, of the error or what caused it."""
    seen: BaseException | None = error
    while seen is not None:
        found = seen.place if isinstance(seen, RemoteTracebackError) else _innermost_foreign(seen.__traceback__)
        if found:
            return found
        seen = seen.__cause__
    return ""


def _innermost_foreign(trace: TracebackType | None) -> str | None:
    found = None
    while trace is not None:
        code = trace.tb_frame.f_code
        module = trace.tb_frame.f_globals.get("__name__", "")
        generated = code.co_filename.startswith("<")
        own = module.startswith("sage.") or module.partition(".")[0] in sys.stdlib_module_names
        if not generated and not (own and module != "__main__"):
            found = f"{code.co_filename}:{trace.tb_lineno}, in {code.co_name}"
        trace = trace.tb_next
    return found


def preview(value: Any) -> str:
    """An item as a text of at most 200 characters, for a message.

    Example:
        >>> preview("x" * 1000)[-5:]
        'xx...'
    """
    try:
        text = repr(value)
    except Exception as error:  # an item's own __repr__ must not stand in the place of the error that is told
        text = f"<{type(value).__name__} whose repr() raised {type(error).__name__}>"
    return text if len(text) <= 200 else text[:197] + "..."


def line_of(error: BaseException) -> str:
    """Type and text of an error on one line."""
    return "".join(traceback.format_exception_only(error)).strip()
