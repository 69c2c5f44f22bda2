"""Pass 2: do neighbours fit? Compares annotations where both sides have one; says nothing where one is
missing or open.
"""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from typing import Any

from sage.kernel.graph import BaseTransformation, OperatorKind, TypeMismatchError

from .plan import Plan

__all__ = ["check_types", "fits"]

_SAME = frozenset(
    {OperatorKind.FILTER, OperatorKind.KEY_BY, OperatorKind.REDUCE, OperatorKind.SPLIT, OperatorKind.ORDERED}
)
_NUMBERS: dict[type, tuple[type, ...]] = {float: (int,), complex: (int, float)}


def check_types(plan: Plan) -> Plan:
    """Compare what each operator puts out with what the next one takes.

    Raises:
        TypeMismatchError: they certainly do not fit.
    """
    outputs: dict[str, Any] = {}
    checked = 0
    for operator in plan.operators:
        if operator.kind is OperatorKind.FUTURE:
            # What comes back is known further down, and compared by `_check_feedback`.
            outputs[operator.name] = Any
            continue
        signatures = [_signature(operator, entry) for entry in _entries(operator)]
        gives = signatures[0][1] if len({str(gives) for _, gives in signatures}) == 1 else Any
        # What goes to a branch is not what the function returns.
        incoming = [
            outputs[name] if operator.branch(index) is None or plan.graph[name].kind is OperatorKind.SPLIT else Any
            for index, name in enumerate(operator.inputs)
        ]
        sides = operator.options.get("sides") or (0,) * len(incoming)
        for name, given, side in zip(operator.inputs, incoming, sides, strict=True):
            takes = signatures[side][0] if side < len(signatures) else Any
            if given is Any or takes is Any:
                continue
            checked += 1
            if not fits(given, takes):
                raise TypeMismatchError(
                    f"{operator.name!r} takes {_show(takes)}, but {name!r} gives {_show(given)} "
                    f"{operator.where}; "
                    f"{name!r} is declared at {plan.graph[name].location}"
                )
        if operator.kind in _SAME:
            outputs[operator.name] = incoming[0] if len(incoming) == 1 else Any
        elif operator.kind is OperatorKind.BATCH:
            known = len(incoming) == 1 and incoming[0] is not Any
            outputs[operator.name] = types.GenericAlias(list, (incoming[0],)) if known else list
        else:
            outputs[operator.name] = gives
    checked += _check_feedback(plan, outputs)
    edges = sum(len(operator.inputs) for operator in plan.operators)
    return plan.noted("types", ("", f"{checked} of {edges} edges have types on both ends, all fit"))


def _check_feedback(plan: Plan, outputs: dict[str, Any]) -> int:
    """Compare what comes back to a future with what those take who have its stream; how many pairs have both types."""
    checked = 0
    for future in plan.operators:
        if future.kind is not OperatorKind.FUTURE:
            continue
        for operator, index in plan.graph.consumers(future.name):
            sides = operator.options.get("sides")
            side = sides[index] if sides else 0
            entries = _entries(operator)
            takes = _signature(operator, entries[side])[0] if side < len(entries) else Any
            for number, name in enumerate(future.inputs):
                given = outputs[name] if future.branch(number) is None else Any
                if given is Any or takes is Any:
                    continue
                checked += 1
                if not fits(given, takes):
                    raise TypeMismatchError(
                        f"{operator.name!r} takes {_show(takes)}, but what comes back through the future "
                        f"{future.name!r} is {_show(given)}, from {name!r} {operator.where}; "
                        f"{name!r} is declared at {plan.graph[name].location}"
                    )
    return checked


def _entries(operator: BaseTransformation) -> tuple[Any, ...]:
    """The functions that get items: two of a comap, one for each stream."""
    entries: tuple[Any, ...] = operator.options.get("entries") or (operator.options.get("entry"),)
    return entries


def _signature(operator: BaseTransformation, entry: Any) -> tuple[Any, Any]:
    """(type of an item that goes in, type of an item that comes out); Any where unknown."""
    if entry is None or isinstance(entry, type):
        return Any, Any
    try:
        hints = typing.get_type_hints(entry)
        parameters = list(inspect.signature(entry).parameters.values())
    except (TypeError, ValueError, NameError, AttributeError):
        # A builtin without a signature, or an annotation that cannot be resolved here: nothing is known.
        return Any, Any
    if operator.options.get("is_method") and parameters:
        parameters = parameters[1:]
    # `add(accumulator, item)` of an aggregate takes the item second.
    position = 1 if operator.kind is OperatorKind.AGGREGATE else 0
    takes = hints.get(parameters[position].name, Any) if len(parameters) > position else Any
    gives = hints.get("return", Any)
    if operator.contract.io.batching is not None:
        return _closed(_item_type(takes)), _closed(_item_type(gives))
    if operator.kind in (OperatorKind.FLATMAP, OperatorKind.SOURCE):
        gives = _item_type(gives)
    elif operator.kind in (OperatorKind.AGGREGATE, OperatorKind.JOIN, OperatorKind.SINK):
        gives = Any
    return _closed(takes), _closed(gives)


def _item_type(container: Any) -> Any:
    origin, arguments = typing.get_origin(container), typing.get_args(container)
    if origin is tuple:
        return arguments[0] if len(arguments) == 2 and arguments[1] is Ellipsis else Any
    if (
        isinstance(origin, type)
        and issubclass(origin, (collections.abc.Iterable, collections.abc.AsyncIterable))
        and arguments
    ):
        return Any if issubclass(origin, collections.abc.Mapping) else arguments[0]
    return Any


def _closed(hint: Any) -> Any:
    """Any for everything that says nothing certain: type variables, Any, object, strings."""
    if hint is None:
        return type(None)
    if typing.get_origin(hint) is typing.Annotated:
        return _closed(typing.get_args(hint)[0])
    if isinstance(hint, (typing.TypeVar, str)) or hint in (Any, object):
        return Any
    return hint


def fits(given: Any, taken: Any) -> bool:
    """Whether a value of type `given` may be passed where `taken` is expected; False only when that is
    certain.

    Example:
        >>> fits(int, float), fits(str, int), fits(int | None, str), fits(list[int], collections.abc.Sequence)
        (True, False, False, True)
    """
    given, taken = _closed(given), _closed(taken)
    if given is Any or taken is Any:
        return True
    given_parts, taken_parts = _members(given), _members(taken)
    if len(given_parts) > 1 or len(taken_parts) > 1:
        return any(fits(one, other) for one in given_parts for other in taken_parts)
    given_class, taken_class = typing.get_origin(given) or given, typing.get_origin(taken) or taken
    if not isinstance(given_class, type) or not isinstance(taken_class, type):
        return True
    if getattr(taken_class, "_is_protocol", False):
        return True
    try:
        below = issubclass(given_class, taken_class) or issubclass(taken_class, given_class)
    except TypeError:
        return True
    if not (below or issubclass(given_class, _NUMBERS.get(taken_class, ()))):
        # Of two abstract classes that know nothing of each other, a value may well be both.
        return inspect.isabstract(given_class) and inspect.isabstract(taken_class)
    given_arguments, taken_arguments = typing.get_args(given), typing.get_args(taken)
    if given_class is taken_class and len(given_arguments) == len(taken_arguments) and Ellipsis not in given_arguments:
        return all(fits(one, other) for one, other in zip(given_arguments, taken_arguments, strict=True))
    return True


def _members(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _show(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")
