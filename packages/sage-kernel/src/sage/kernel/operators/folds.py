"""The folds that `KeyedStream` offers ready-made: count, sum, min, max, mean."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final

from sage.kernel.graph import PipelineError

from .factory import AggregateSpec

__all__ = ["BUILTIN_FOLDS", "builtin_aggregate", "same"]

Get = Callable[[Any], Any]

BUILTIN_FOLDS: Final = ("count", "sum", "min", "max", "mean")
"""Names of the ready-made folds."""


def _add_one(count: int, item: Any) -> int:
    return count + 1


def _add(total: Any, item: Any) -> Any:
    return total + item


# The accumulator of min and max is () before the first value and (value,) behind it: None is a value like any other.


def _smaller(so_far: tuple[Any, ...], item: Any) -> tuple[Any, ...]:
    return so_far if so_far and not item < so_far[0] else (item,)


def _larger(so_far: tuple[Any, ...], item: Any) -> tuple[Any, ...]:
    return so_far if so_far and not item > so_far[0] else (item,)


def _add_to_mean(so_far: tuple[Any, int], item: Any) -> tuple[Any, int]:
    return so_far[0] + item, so_far[1] + 1


def _no_mean() -> tuple[Any, int]:
    return 0, 0


def _first(so_far: tuple[Any, ...]) -> Any:
    return so_far[0]


def _mean(so_far: tuple[Any, int]) -> Any:
    return so_far[0] / so_far[1]


_SPECS: dict[str, AggregateSpec] = {
    "count": AggregateSpec(int, _add_one, None, builtin="count", ready_made=("count", None)),
    "sum": AggregateSpec(int, _add, None, builtin="sum", ready_made=("sum", None)),
    "min": AggregateSpec(tuple, _smaller, _first, builtin="min", ready_made=("min", None)),
    "max": AggregateSpec(tuple, _larger, _first, builtin="max", ready_made=("max", None)),
    "mean": AggregateSpec(_no_mean, _add_to_mean, _mean, builtin="mean", ready_made=("mean", None)),
}


def same(value: Any) -> Any:
    """The value itself; `partial(same, value)` makes an accumulator that begins with an immutable value."""
    return value


def builtin_aggregate(name: str, field: Any = None) -> AggregateSpec:
    """The ready-made fold `name` over the item itself, or over a part of it.

    Args:
        name: one of `BUILTIN_FOLDS`.
        field: None for the item itself, a text or a whole number for `item[field]`, or a function of the item.

    Raises:
        PipelineError: there is no such fold, or `field` is none of these.

    Example:
        >>> largest = builtin_aggregate("max", "price")
        >>> largest.result(largest.add(largest.create(), {"price": 3}))
        3
    """
    if name not in _SPECS:
        raise PipelineError(f"there is no ready-made fold {name!r}; there are: {', '.join(BUILTIN_FOLDS)}")
    spec = _SPECS[name]
    if field is None or name == "count":
        return spec
    get, fold = _getter(name, field), spec.add

    def add(so_far: Any, item: Any) -> Any:
        return fold(so_far, get(item))

    return AggregateSpec(spec.create, add, spec.result, ready_made=(name, field))


def _getter(name: str, field: Any) -> Get:
    if callable(field):
        getter: Get = field
        return getter
    if isinstance(field, (str, int)) and not isinstance(field, bool):
        return operator.itemgetter(field)
    raise PipelineError(f"{name} takes a field name, a position or a function of the item, got {field!r}")
