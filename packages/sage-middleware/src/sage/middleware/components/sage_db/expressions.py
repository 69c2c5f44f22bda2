"""Conditions on metadata: expressions of `field`, and the dicts that users of Chroma know."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from sage.common.errors import InvalidArgumentError
from sage.middleware._vdb import Filter

__all__ = ["Expression", "Field", "Where", "field", "to_filter"]

_DEPTH_MAX = 64
_NO_TRUTH = (
    "a condition on metadata has no truth value of its own: write & | ~ instead of and, or, not, with each comparison"
    " in parentheses, and field(...).between(low, high) instead of low < field(...) < high"
)
_COMPARISONS = {"$eq": "==", "$ne": "!=", "$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_OPERATORS = (*_COMPARISONS, "$in", "$nin", "$contains", "$not_contains")


class Expression:
    """A condition on metadata; `field` makes them, `&`, `|` and `~` combine them.

    A field that a document does not have fulfils no comparison but `!=`, `not_in` and what is negated.

    Raises:
        InvalidArgumentError: used with `and`, `or`, `not`, or as the condition of an `if`.

    Example:
        >>> (field("year") >= 2020) & ~field("lang").in_(["de", "fr"])
        (year >= 2020 and not lang in ['de', 'fr'])
        >>> field("year") >= 2020 and field("lang") == "en"
        Traceback (most recent call last):
            ...
        sage.common.errors.InvalidArgumentError: a condition on metadata has no truth value of its own: ...
    """

    __slots__ = ("filter",)
    # numpy's scalars leave `2020 & expression` to us.
    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]  # compared by content, and never a key

    def __init__(self, native: Filter) -> None:
        self.filter = native

    def __and__(self, other: Expression) -> Expression:
        return Expression(Filter.all_of([self.filter, _expression(other, "&").filter]))

    def __or__(self, other: Expression) -> Expression:
        return Expression(Filter.any_of([self.filter, _expression(other, "|").filter]))

    def __rand__(self, value: Any) -> _Bound:
        return _Bound(value, self, "&")

    def __ror__(self, value: Any) -> _Bound:
        return _Bound(value, self, "|")

    def __invert__(self) -> Expression:
        return Expression(Filter.negate(self.filter))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and self.filter == other.filter

    def __bool__(self) -> bool:
        raise InvalidArgumentError(_NO_TRUTH)

    def __repr__(self) -> str:
        return repr(self.filter)


class _Bound:
    """What Python makes of `2020 & (...)` in `field("year") >= 2020 & (...)`: & binds tighter than >=."""

    __slots__ = ("operator", "rest", "value")

    def __init__(self, value: Any, rest: Expression, operator: str) -> None:
        self.value, self.rest, self.operator = value, rest, operator

    def joined(self, first: Expression) -> Expression:
        return first & self.rest if self.operator == "&" else first | self.rest

    def __and__(self, other: Expression) -> _Bound:
        if self.operator == "|":
            raise InvalidArgumentError(_NO_TRUTH)
        return _Bound(self.value, self.rest & other, "&")

    def __or__(self, other: Expression) -> _Bound:
        raise InvalidArgumentError(_NO_TRUTH)

    def __bool__(self) -> bool:
        raise InvalidArgumentError(_NO_TRUTH)


def _expression(value: Any, operator: str) -> Expression:
    if isinstance(value, Expression):
        return value
    raise InvalidArgumentError(
        f"{operator} joins conditions on metadata, got {value!r}: put each comparison in parentheses,"
        f' like (field("year") >= 2020) {operator} (field("lang") == "en")'
    )


class Field:
    """A field of the metadata, to be compared; see `field`."""

    __slots__ = ("name",)
    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]  # == makes a condition

    def __init__(self, name: str) -> None:
        if not isinstance(name, str):
            raise InvalidArgumentError(f"a field is named by a str, got {name!r}")
        self.name = name

    def _compare(self, operator: str, value: Any) -> Expression:
        if isinstance(value, _Bound):
            return value.joined(self._leaf(operator, [value.value]))
        return self._leaf(operator, [value])

    def _leaf(self, operator: str, values: list[Any]) -> Expression:
        return Expression(Filter.leaf(operator, self.name, values))

    def __eq__(self, value: object) -> Expression:  # type: ignore[override]  # a condition, not a bool
        return self._compare("==", value)

    def __ne__(self, value: object) -> Expression:  # type: ignore[override]
        return self._compare("!=", value)

    def __lt__(self, value: Any) -> Expression:
        return self._compare("<", value)

    def __le__(self, value: Any) -> Expression:
        return self._compare("<=", value)

    def __gt__(self, value: Any) -> Expression:
        return self._compare(">", value)

    def __ge__(self, value: Any) -> Expression:
        return self._compare(">=", value)

    def __and__(self, other: Any) -> Expression:
        raise InvalidArgumentError(f"field({self.name!r}) is not compared with anything; {_NO_TRUTH}")

    __or__ = __rand__ = __ror__ = __and__

    def __invert__(self) -> Expression:
        raise InvalidArgumentError(f"field({self.name!r}) is not compared with anything; {_NO_TRUTH}")

    def __bool__(self) -> bool:
        raise InvalidArgumentError(_NO_TRUTH)

    def between(self, low: Any, high: Any) -> Expression:
        """From `low` to `high`, both included."""
        return self._leaf("between", [low, high])

    def in_(self, values: Iterable[Any]) -> Expression:
        """One of `values`."""
        return self._leaf("in", _listed(values, "in_"))

    def not_in(self, values: Iterable[Any]) -> Expression:
        """None of `values`, or no value at all."""
        return self._leaf("not in", _listed(values, "not_in"))

    def contains(self, text: str) -> Expression:
        """A list of strings that has `text`."""
        return self._leaf("contains", [text])

    def starts_with(self, text: str) -> Expression:
        """A string that begins with `text`."""
        return self._leaf("starts_with", [text])

    def exists(self) -> Expression:
        """Any value."""
        return self._leaf("exists", [])

    def __repr__(self) -> str:
        return f"field({self.name!r})"


Where: TypeAlias = Expression | Mapping[str, Any]


def field(name: str) -> Field:
    """The field `name` of the metadata, to be compared: `== != < <= > >=`, `between`, `in_`, `not_in`, `contains`,
    `starts_with`, `exists`.

    Values are int, float, bool, str, and datetime with a time zone. Whether the field exists and has this type is
    checked by the collection.

    Example:
        >>> field("year") >= 2020 & field("lang").in_(["en"])
        (year >= 2020 and lang in ['en'])
        >>> field("tags").contains("new") | ~field("price").exists()
        (tags contains 'new' or not price exists)
    """
    return Field(name)


def to_filter(where: Any) -> Filter | None:
    """The native filter of an `Expression` or of a dict of Chroma's kind; None for None.

    The dict has fields with a value or with `{"$gte": value}` (`$eq $ne $gt $gte $lt $lte $in $nin $contains
    $not_contains`), and `$and` and `$or` with a list of such dicts. Several keys are joined by "and".

    Raises:
        InvalidArgumentError: an unknown operator, or a value of the wrong shape.

    Example:
        >>> to_filter({"$or": [{"year": {"$gte": 2020, "$lt": 2024}}, {"lang": "en"}]})
        ((year >= 2020 and year < 2024) or lang == 'en')
    """
    if where is None:
        return None
    if isinstance(where, Expression):
        return where.filter
    if isinstance(where, Mapping):
        return _from_mapping(where, 0)
    if isinstance(where, bool):
        raise InvalidArgumentError(f"where must be a condition or a dict, got {where!r}: {_NO_TRUTH}")
    raise InvalidArgumentError(f"where must be a condition of field(...) or a dict, got {where!r}")


def _from_mapping(where: Mapping[str, Any], depth: int) -> Filter:
    if depth >= _DEPTH_MAX:
        raise InvalidArgumentError(f"where must not nest deeper than {_DEPTH_MAX} levels")
    if not where:
        raise InvalidArgumentError("where must have a condition, got {}; leave it out to take all documents")
    parts: list[Filter] = []
    for name, condition in where.items():
        if name in ("$and", "$or"):
            parts.append(_joined(name, condition, depth))
        elif isinstance(name, str) and name.startswith("$"):
            close = difflib.get_close_matches(name, ("$and", "$or"), n=1)
            hint = f"did you mean {close[0]!r}?" if close else "$and and $or join conditions"
            raise InvalidArgumentError(f"unknown operator {name!r} in where; {hint}")
        elif isinstance(condition, Mapping):
            parts.extend(_comparisons(name, condition))
        else:
            parts.append(Field(name)._leaf("==", [condition]).filter)
    return parts[0] if len(parts) == 1 else Filter.all_of(parts)


def _joined(name: str, conditions: Any, depth: int) -> Filter:
    if not isinstance(conditions, list | tuple) or not conditions:
        raise InvalidArgumentError(f"{name} must have a list of at least one condition, got {conditions!r}")
    parts: list[Filter] = []
    for each in conditions:
        if isinstance(each, Expression):
            parts.append(each.filter)
        elif isinstance(each, Mapping):
            parts.append(_from_mapping(each, depth + 1))
        else:
            raise InvalidArgumentError(f"{name} must have dicts in its list, got {each!r}")
    return Filter.all_of(parts) if name == "$and" else Filter.any_of(parts)


def _comparisons(name: str, condition: Mapping[str, Any]) -> list[Filter]:
    if not condition:
        raise InvalidArgumentError(f"the condition on {name!r} is empty; it has one of {', '.join(_OPERATORS)}")
    target = Field(name)
    found: list[Filter] = []
    for operator, value in condition.items():
        match operator:
            case "$in":
                found.append(target.in_(value).filter)
            case "$nin":
                found.append(target.not_in(value).filter)
            case "$contains":
                found.append(target.contains(value).filter)
            case "$not_contains":
                found.append((~target.contains(value)).filter)
            case _ if operator in _COMPARISONS:
                found.append(target._leaf(_COMPARISONS[operator], [value]).filter)
            case _:
                close = difflib.get_close_matches(str(operator), _OPERATORS, n=1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                raise InvalidArgumentError(
                    f"unknown operator {operator!r} on field {name!r}; {hint}known: {', '.join(_OPERATORS)}"
                )
    return found


def _listed(values: Any, name: str) -> list[Any]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InvalidArgumentError(f"{name} takes a list of values, got {values!r}")
    return list(values)
