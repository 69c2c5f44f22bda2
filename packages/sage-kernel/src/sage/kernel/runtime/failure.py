"""Tells the story of a failure: which operator, which item, which line of the user's file."""

from __future__ import annotations

import traceback
from pathlib import Path

from .steps import StepFailed

__all__ = ["describe_failure"]

_OWN = str(Path(__file__).parent.parent.parent)


def describe_failure(reason: str, failure: BaseException) -> str:
    """One or two lines: what failed, what was raised, and where in the user's code.

    Example:
        >>> describe_failure("task 'a[0]' failed", ValueError("no"))
        "task 'a[0]' failed: ValueError: no"
    """
    raised = failure.error if isinstance(failure, StepFailed) else failure
    what = f"{failure}: " if isinstance(failure, StepFailed) else ""
    line = "".join(traceback.format_exception_only(raised)).strip()
    return f"{reason}: {what}{line}{_place(raised)}"


def _place(error: BaseException) -> str:
    """`(file:line, in function)` of the innermost frame that is not the framework's."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((_OWN, "<sage chain")) and not frame.filename.startswith("<frozen")
    ]
    return f" ({frames[-1].filename}:{frames[-1].lineno}, in {frames[-1].name})" if frames else ""
