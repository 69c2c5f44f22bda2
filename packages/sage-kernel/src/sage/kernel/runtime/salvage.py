"""What can be read of a message that as a whole cannot be unpickled: everything but the objects that are to blame."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

__all__ = ["reason_unreadable", "salvage"]


class _UnreadableError(Exception):
    """An `_Unreadable` was found inside a value."""


class _Unreadable:
    """Stands where an object could not be rebuilt; whatever would be done to that object is done to nothing."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def __call__(self, *args: Any, **named: Any) -> _Unreadable:
        return self

    def __reduce__(self) -> str:
        raise _UnreadableError(self._reason)


def _told(error: BaseException) -> _Unreadable:
    return _Unreadable(f"{type(error).__name__}: {error}")


_Load = Callable[[Any], None]


def _in_place(load: _Load) -> _Load:
    """For what works on the object on top of the stack: that object is what cannot be rebuilt."""

    def tolerant(self: Any) -> None:
        try:
            load(self)
        except (Exception, SystemExit) as error:  # code of the user's classes may raise anything
            broken, unreadable = self.stack[-1], _told(error)
            self.stack[-1] = unreadable
            for number in [number for number, kept in self.memo.items() if kept is broken]:
                self.memo[number] = unreadable

    return tolerant


def _on_top(load: _Load) -> _Load:
    """For what takes its parts from the stack and puts an object there."""

    def tolerant(self: Any) -> None:
        try:
            load(self)
        except (Exception, SystemExit) as error:  # code of the user's classes may raise anything
            self.append(_told(error))

    return tolerant


_CHANGING = (
    pickle.REDUCE,
    pickle.BUILD,
    pickle.APPEND,
    pickle.APPENDS,
    pickle.SETITEM,
    pickle.SETITEMS,
    pickle.ADDITEMS,
)
_MAKING = (pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.FROZENSET)


class _Salvager(pickle._Unpickler):
    """The unpickler of the standard library that is written in Python: its steps can be replaced one by one."""

    dispatch: ClassVar[dict[int, _Load]] = {
        **pickle._Unpickler.dispatch,
        **{code[0]: _in_place(pickle._Unpickler.dispatch[code[0]]) for code in _CHANGING},
        **{code[0]: _on_top(pickle._Unpickler.dispatch[code[0]]) for code in _MAKING},
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(module, name)
        except (Exception, SystemExit) as error:  # an import may raise anything
            return _told(error)


def salvage(pickled: bytes, buffers: Iterable[Any] = ()) -> Any:
    """Unpickle what can be unpickled; ask `reason_unreadable` which parts are not what they should be.

    Args:
        pickled: a pickle that `pickle.loads` refuses.
        buffers: its buffers, where it has some beside it.

    Example:
        >>> class Refuses:
        ...     def __reduce__(self):
        ...         return int, ("no number",)
        >>> good, bad = salvage(pickle.dumps(["fine", [Refuses()]]))
        >>> good, reason_unreadable(good)
        ('fine', '')
        >>> reason_unreadable(bad)
        "ValueError: invalid literal for int() with base 10: 'no number'"
    """
    return _Salvager(io.BytesIO(pickled), buffers=buffers).load()


def reason_unreadable(value: Any) -> str:
    """Why a part of a salvaged `value` could not be read, "" where all of it could."""
    try:
        pickle.dumps(value, 5)
    except _UnreadableError as error:
        return str(error)
    except Exception:  # it has been read; that it cannot be pickled again is no matter here
        return ""
    return ""
