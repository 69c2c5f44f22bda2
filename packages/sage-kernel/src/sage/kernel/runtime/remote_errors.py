"""Errors on their way from a process to its parent, and the errors that only processes have."""

from __future__ import annotations

import pickle
import traceback
from dataclasses import dataclass

from sage.common.errors import SageError

from .failure import RemoteTracebackError, foreign_place

__all__ = ["PortableError", "ProcessDiedError", "RemoteError", "TransportError", "portable_error"]


class ProcessDiedError(SageError):
    """The process of an operator has ended while it worked."""


class TransportError(SageError):
    """An item cannot be sent to a process, or an output cannot be sent back."""


class RemoteError(SageError):
    """An error of a process whose class cannot be rebuilt here; its message begins with the name of that class."""


@dataclass(frozen=True, slots=True)
class PortableError:
    """An error in a form that always travels.

    Attributes:
        pickled: the exception, None where it cannot be rebuilt from a pickle.
        text: its class and message.
        trace: its traceback as text.
        place: the line of the user's file, or "".
    """

    pickled: bytes | None
    text: str
    trace: str
    place: str

    def restore(self) -> BaseException:
        """The exception; its cause tells the traceback that it had in the process."""
        error: BaseException | None = None
        if self.pickled is not None:
            try:
                error = pickle.loads(self.pickled)
            except (Exception, SystemExit):  # a class of the user's may refuse in any way; its text says enough
                error = None
        if error is None:
            error = RemoteError(self.text)
        error.__cause__ = RemoteTracebackError(self.trace, self.place)
        return error


def portable_error(error: BaseException) -> PortableError:
    """Make an error ready to travel.

    Example:
        >>> str(portable_error(ValueError("no")).restore())
        'no'
        >>> class Odd(Exception):
        ...     def __init__(self, a, b): super().__init__("odd")
        >>> type(portable_error(Odd(1, 2)).restore()).__name__, str(portable_error(Odd(1, 2)).restore())[-8:]
        ('RemoteError', 'Odd: odd')
    """
    pickled: bytes | None
    try:
        pickled = pickle.dumps(error, 5)
        pickle.loads(pickled)
    except (Exception, SystemExit):  # whatever the user's class raises: then its text has to do
        pickled = None
    lines = traceback.format_exception(error)
    text = "".join(traceback.format_exception_only(error)).strip()
    return PortableError(
        pickled, text.rpartition("<locals>.")[2] if pickled is None else text, "".join(lines), foreign_place(error)
    )
