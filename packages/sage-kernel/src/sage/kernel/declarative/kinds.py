"""The keys of a pipeline file that say what an operator is, and the arguments that each of them takes."""

from __future__ import annotations

from typing import Final

__all__ = [
    "ARGUMENTS",
    "EMITTING",
    "FOLDS",
    "KINDS",
    "OPERATOR_KEYS",
    "PARTS",
    "REQUIRED",
    "SEVERAL_STREAMS",
    "SHORT_FORMS",
    "SINKS",
    "SOURCES",
    "WITHOUT_CONFIG",
    "WITHOUT_CONTRACT",
    "WITHOUT_PARALLELISM",
]

FOLDS: Final = ("count", "sum", "min", "max", "mean")

ARGUMENTS: Final[dict[str, dict[str, str]]] = {
    "limit": {"items": "number"},
    "batch": {"size": "number", "max_wait_s": "number"},
    "sample": {"fraction": "number", "every": "number", "seed": "number"},
    "distinct": {"key": "key", "max_keys": "number"},
    "ordered": {"max_ahead": "number"},
    "interleave": {"ahead": "number"},
    "split": {"by": "branches", "into": "names"},
    "join": {"function": "function", "kind": "text", "within": "numbers", "time": "times", "lateness_s": "number"},
    "future": {},
    "fill": {"future": "text", "max_in_flight": "number", "max_rounds": "number"},
    "requests": {},
    "respond": {},
}
"""Operators that the library itself makes, with their arguments and the form of each; the value of the key may be the
first argument alone.
"""
PARTS: Final[dict[str, dict[str, str]]] = {
    "aggregate": {"create": "create", "add": "function", "result": "function"},
    "comap": {"map1": "function", "map2": "function"},
    **{fold: {"function": "function"} for fold in FOLDS if fold != "count"},
}
"""Kinds whose value may be a mapping of parts instead of the name of an operator or a field."""
REQUIRED: Final[dict[str, tuple[str, ...]]] = {
    "limit": ("items",),
    "batch": ("size",),
    "split": ("by",),
    "fill": ("future",),
    "aggregate": ("create", "add"),
    "comap": ("map1", "map2"),
    **{fold: ("function",) for fold in FOLDS if fold != "count"},
}
"""Arguments and parts without which there is no such operator."""

KINDS: Final = (
    "source", "collection", "future", "requests",
    "map", "flatmap", "filter", "key_by", "split", "comap", "join", "interleave",
    "reduce", "aggregate", *FOLDS,
    "limit", "batch", "sample", "distinct", "ordered",
    "fill", "sink", "print", "respond",
)  # fmt: skip
"""Each operator has exactly one of these keys; its value says which operator it is. A `map` may have `batch` too,
and a `sink` `ordered`."""

OPERATOR_KEYS: Final = ("name", "input", "config", "parallelism", "contract", "emit")
SHORT_FORMS: Final = {"key_by": "field_key", "filter": "field_filter"}
"""Kinds whose value may be the config of a registered operator: `key_by: {field: user.id}`."""

SOURCES: Final = ("source", "collection", "future", "requests")
SINKS: Final = ("sink", "print", "respond", "fill")
SEVERAL_STREAMS: Final = ("comap", "join", "interleave")
"""Kinds whose inputs are not one stream: `comap` and `join` have two, `interleave` at least two."""
EMITTING: Final = ("reduce", "aggregate", *FOLDS)
WITHOUT_CONFIG: Final = ("collection", "print", *FOLDS, *ARGUMENTS)
WITHOUT_CONTRACT: Final = ("ordered", "future", "requests", "respond", "fill")
WITHOUT_PARALLELISM: Final = ("ordered", "interleave", "future", "requests", "respond", "fill")
