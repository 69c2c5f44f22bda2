"""What somebody means who asks a stream or an environment for a method that it has not."""

from __future__ import annotations

import difflib
from typing import Final

from sage.kernel.graph import PipelineError

from .declare import user_location

__all__ = ["NoSuchMethodError", "no_such_method"]

_KEYED: Final = frozenset({"reduce", "aggregate", "count", "sum", "min", "max", "mean", "join"})
_ENDS: Final = frozenset({"submit", "run", "execute", "start", "wait", "compile"})
_STREAM: Final = _KEYED | {
    *("map", "flatmap", "filter", "key_by", "sink", "print", "collect", "union", "connect", "interleave", "batch"),
    *("split", "distinct", "limit", "ordered", "sample", "broadcast", "rebalance", "fill_future", "respond"),
}
_OTHER_NAMES: Final = {
    "flat_map": "flatmap",
    "apply": "map",
    "foreach": "sink",
    "for_each": "sink",
    "group_by": "key_by",
    "groupby": "key_by",
    "merge": "union",
    "concat": "union",
    "to_list": "collect",
    "take": "limit",
    "unique": "distinct",
    "sort": "ordered",
    "comap": "connect",
}


class NoSuchMethodError(PipelineError, AttributeError):
    """There is no such method here; the message says where there is, or what it is called."""


def no_such_method(owner: object, name: str, no_stream: str = "") -> AttributeError:
    """The error for an attribute that `owner` lacks.

    Args:
        owner: a stream, an environment, or several streams.
        name: of the attribute.
        no_stream: of what is no stream: how to get one.

    Example:
        >>> from sage.kernel.api import LocalEnvironment
        >>> LocalEnvironment("demo").from_collection([1]).reduce(max)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        sage.kernel.api.misnomers.NoSuchMethodError: 'DataStream' object has no attribute 'reduce': this stream has no \
keys, call key_by(...) before it (union, interleave, broadcast and rebalance forget the key) (...)
    """
    said = f"{type(owner).__name__!r} object has no attribute {name!r}"
    if name.startswith("_"):
        return AttributeError(said, name=name, obj=owner)
    hint = _other_hint(owner, name, no_stream) if no_stream else _stream_hint(owner, name)
    return NoSuchMethodError(f"{said}{hint} ({user_location()})", name=name, obj=owner)


def _stream_hint(owner: object, name: str) -> str:
    if name in _KEYED:
        return (
            ": this stream has no keys, call key_by(...) before it (union, interleave, broadcast and rebalance forget "
            "the key)"
        )
    if name in _ENDS:
        return f": end the stream with .sink(...) or .print(), and call {name}() of the environment"
    if name in _OTHER_NAMES:
        return f": it is called {_OTHER_NAMES[name]} here"
    return _close(owner, name)


def _other_hint(owner: object, name: str, no_stream: str) -> str:
    if name in _STREAM or name in _OTHER_NAMES:
        return f": {no_stream}"
    if name in _ENDS:
        return ": a pipeline is run by submit()"
    return _close(owner, name)


def _close(owner: object, name: str) -> str:
    known = [attribute for attribute in dir(type(owner)) if not attribute.startswith("_")]
    close = difflib.get_close_matches(name, known, n=1)
    return f": did you mean {close[0]!r}?" if close else ""
