"""Which streams an operator of a file takes: `input: name`, a branch, a union, one entry for each of two streams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from .document import KeyPath, PipelineDocument
from .findings import hint

__all__ = ["ROUTINGS", "InputStream", "StreamRef", "read_inputs"]

ROUTINGS: Final = ("broadcast", "rebalance")
_KEYS: Final = ("from", "branch", "routing")


@dataclass(frozen=True, slots=True)
class StreamRef:
    """One stream of an operator above.

    Attributes:
        operator: its name; None for the operator right above.
        branch: a branch of a split or a side output; None for the main stream.
        routing: one of `ROUTINGS`, or None.
        path: where the file says so.

    Example:
        >>> StreamRef.parse("parts/odd", ())
        StreamRef(operator='parts', branch='odd', routing=None, path=())
    """

    operator: str | None
    branch: str | None = None
    routing: str | None = None
    path: KeyPath = ()

    @classmethod
    def parse(cls, text: str, path: KeyPath) -> StreamRef:
        """`operator` or `operator/branch`; the name of an operator has no slash in it."""
        operator, slash, branch = text.partition("/")
        return cls(operator, branch if slash else None, None, path)


@dataclass(frozen=True, slots=True)
class InputStream:
    """One stream that goes into an operator.

    Attributes:
        refs: what it is made of.
        is_union: they are joined, and their keys forgotten; else there is one.
    """

    refs: tuple[StreamRef, ...]
    is_union: bool = False


def read_inputs(
    document: PipelineDocument, path: KeyPath, given: Any, *, several: bool
) -> tuple[InputStream, ...] | None:
    """The streams that `input` says; None where it is wrong, which is reported.

    Args:
        document: the file.
        path: where `input` stands.
        given: its value.
        several: each entry of a list is a stream by itself, and not a part of one union.
    """
    if not several:
        stream = _stream(document, path, given)
        return None if stream is None else (stream,)
    if not isinstance(given, list):
        document.report(path, f"input must be a list with an entry for each stream, got {given!r}")
        return None
    streams = [_stream(document, (*path, index), each) for index, each in enumerate(given)]
    found = tuple(stream for stream in streams if stream is not None)
    return found if len(found) == len(streams) else None


def _stream(document: PipelineDocument, path: KeyPath, given: Any) -> InputStream | None:
    if not isinstance(given, list):
        ref = _ref(document, path, given)
        return None if ref is None else InputStream((ref,))
    refs = [_ref(document, (*path, index), each) for index, each in enumerate(given)]
    if not refs:
        document.report(path, "input is the name of an operator or a list of names, got an empty list")
    found = tuple(ref for ref in refs if ref is not None)
    return InputStream(found, is_union=True) if found and len(found) == len(refs) else None


def _ref(document: PipelineDocument, path: KeyPath, given: Any) -> StreamRef | None:
    if isinstance(given, str):
        return StreamRef.parse(given, path)
    if not isinstance(given, dict):
        document.report(path, f"input is the name of an operator or a list of names, got {given!r}")
        return None
    fine = True
    for key, value in given.items():
        if key not in _KEYS:
            document.report((*path, key), f"unknown key {key!r}{hint(key, _KEYS)}")
        elif not isinstance(value, str) or not value:
            document.report((*path, key), f"{key} must be text, got {value!r}")
        elif key == "routing" and value not in ROUTINGS:
            document.report((*path, key), f"routing must be 'broadcast' or 'rebalance', got {value!r}")
        else:
            continue
        fine = False
    if not fine:
        return None
    operator, branch = given.get("from"), given.get("branch")
    if operator is not None and branch is None:
        operator, slash, rest = operator.partition("/")
        branch = rest if slash else None
    return StreamRef(operator, branch, given.get("routing"), path)
