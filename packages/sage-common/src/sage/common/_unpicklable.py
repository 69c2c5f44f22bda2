"""Find out which part of an object cannot be pickled."""

from __future__ import annotations

import copyreg
import pickle
import types
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle  # type: ignore[import-untyped]

__all__ = ["explain_unpicklable"]

_TRIALS_MAX = 2_000
_DEPTH_MAX = 50


def explain_unpicklable(obj: object, *, code: bool = False) -> str:
    """Say which part of `obj` cannot be pickled; empty when all of it can.

    Args:
        obj: What was to be pickled.
        code: Whether by cloudpickle (which takes lambdas) rather than by pickle.

    >>> import threading
    >>> class Client:
    ...     def __init__(self): self._lock = threading.Lock()
    >>> class Operator:
    ...     def __init__(self): self.client = Client()
    >>> explain_unpicklable(Operator(), code=True)
    "cannot pickle 'lock' at .client._lock of Operator"
    """
    search = _Search(cloudpickle.dumps if code else pickle.dumps)
    reason = search.failure(obj)
    if reason is None:
        return ""
    path, culprit, reason = search.descend(obj, reason)
    place = f" at {path} of {_name_of_object(obj)}" if path else ""
    # Python's own message mostly says no more than the type.
    detail = "" if isinstance(reason, TypeError) and "cannot pickle" in str(reason) else f": {reason}"
    return f"cannot pickle {_describe(culprit)}{place}{detail}"


class _Search:
    """Walks towards the innermost part that fails, trying parts one by one."""

    def __init__(self, dumps: Callable[..., bytes]) -> None:
        self._dumps = dumps
        self._trials = 0
        self._on_path: set[int] = set()

    def failure(self, obj: object) -> Exception | None:
        """Return why `obj` cannot be pickled, or None if it can."""
        self._trials += 1
        try:
            self._dumps(obj, protocol=5)
        except Exception as error:  # a __reduce__ or __getstate__ of the user's may raise anything
            return error
        return None

    def descend(self, obj: object, reason: Exception) -> tuple[str, object, Exception]:
        """Return path, culprit and reason of the innermost failing part of `obj`."""
        path = ""
        while len(self._on_path) < _DEPTH_MAX:
            self._on_path.add(id(obj))
            found = self._failing_part(obj)
            if found is None:
                break
            label, obj, reason = found
            path += label
        return path, obj, reason

    def _failing_part(self, obj: object) -> tuple[str, object, Exception] | None:
        for label, part in _parts(obj):
            if self._trials >= _TRIALS_MAX:
                return None
            if id(part) in self._on_path:
                continue
            reason = self.failure(part)
            if reason is not None:
                return label, part, reason
        return None


def _parts(obj: object) -> Iterator[tuple[str, object]]:
    """Yield what pickling `obj` would have to pickle, with the text that leads there."""
    if isinstance(obj, dict):
        for key, value in obj.items():
            yield f"[{_short(key)}]", value
            yield f".key({_short(key)})", key
    elif isinstance(obj, list | tuple):
        for index, value in enumerate(obj):
            yield f"[{index}]", value
    elif isinstance(obj, set | frozenset):
        for value in obj:
            yield f".item({_short(value)})", value
    elif isinstance(obj, types.FunctionType):
        yield from _function_parts(obj)
    elif isinstance(obj, types.MethodType):
        yield ".__self__", obj.__self__
    elif not isinstance(obj, type | types.ModuleType):
        yield from _state_parts(obj)


def _function_parts(function: types.FunctionType) -> Iterator[tuple[str, object]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f".{name}", cell.cell_contents
        except ValueError:  # the cell is still empty: nothing to pickle
            continue
    for name in function.__code__.co_names:
        if name in function.__globals__:
            yield f".{name}", function.__globals__[name]
    for index, default in enumerate(function.__defaults__ or ()):
        yield f".default({index})", default


def _state_parts(obj: object) -> Iterator[tuple[str, object]]:
    reduce: Any = copyreg.dispatch_table.get(type(obj))
    try:
        reduced = reduce(obj) if reduce is not None else obj.__reduce_ex__(5)
    except Exception:  # the object itself refuses (or its own code fails): it is the culprit, not a part of it
        return
    if isinstance(reduced, str):
        return
    _, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
    # A copyreg reconstructor is called with classes, which are pickled by name.
    for index, argument in enumerate(arguments or ()):
        yield f".argument({index})", argument
    states = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
    for part in states:
        if isinstance(part, dict):
            for name, value in part.items():
                yield f".{name}", value
        elif part is not None:
            yield ".state", part
    for index, value in enumerate(items or ()):
        yield f"[{index}]", value
    for key, value in pairs or ():
        yield f"[{_short(key)}]", value


def _short(value: object) -> str:
    if isinstance(value, str | int | float | bool | bytes | type(None)):
        text = repr(value)
        return text if len(text) <= 40 else text[:37] + "..."
    return type(value).__name__


def _describe(culprit: object) -> str:
    if isinstance(culprit, types.FunctionType):
        kind = "lambda" if culprit.__name__ == "<lambda>" else f"function '{culprit.__qualname__}'"
        return f"{kind} (only functions at the top of an importable module can be)"
    if isinstance(culprit, type):
        return f"class '{culprit.__qualname__}' (only classes at the top of an importable module can be)"
    return f"'{type(culprit).__name__}'"


def _name_of_object(obj: object) -> str:
    if isinstance(obj, types.FunctionType | type):
        return obj.__qualname__
    return type(obj).__name__
