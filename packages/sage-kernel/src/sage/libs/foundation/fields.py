"""Operators that look at one field of an item: what a pipeline without any Python code needs most."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, Field, model_validator

from sage.kernel.operators import FilterFunction, KeyByFunction
from sage.libs.errors import FieldError

__all__ = ["FieldFilter", "FieldKey", "field_of"]

_MISSING: Any = object()
_TESTS = ("equals", "not_equals", "above", "at_least", "below", "at_most", "one_of", "contains", "exists")


def field_of(item: Any, path: str) -> Any:
    """What stands at a dotted path: keys of mappings, numbers of list items, attributes of records.

    Names that begin with `_` are no fields.

    Raises:
        FieldError: there is no such field.

    Example:
        >>> field_of({"user": {"ids": [7, 8]}}, "user.ids.1")
        8
        >>> field_of({"user": {"id": 7}}, "user.name")
        Traceback (most recent call last):
        ...
        sage.libs.errors.FieldError: the item has no field 'user.name': 'user' has the keys id
    """
    found = _lookup(item, path)
    if isinstance(found, FieldError):
        raise found
    return found


def _lookup(item: Any, path: str) -> Any:
    """The value, or the error to raise: a filter that asks whether a field exists wants no exception."""
    current, parts = item, path.split(".")
    for index, part in enumerate(parts):
        inner = _step(current, part)
        if inner is _MISSING:
            where = f"{'.'.join(parts[:index])!r}" if index else "it"
            return FieldError(f"the item has no field {path!r}: {where} {_described(current)}")
        current = inner
    return current


def _step(current: Any, part: str) -> Any:
    if isinstance(current, Mapping):
        return current.get(part, _MISSING)
    if isinstance(current, Sequence) and not isinstance(current, (str, bytes)) and part.isdecimal():
        return current[int(part)] if int(part) < len(current) else _MISSING
    # Records are read by attribute, but nothing private and no method: a pipeline file must not reach into objects.
    found = _MISSING if part.startswith("_") else getattr(current, part, _MISSING)
    return _MISSING if callable(found) else found


def _described(value: Any) -> str:
    if isinstance(value, Mapping):
        names = [str(key) for key in list(value)[:10]]
        return f"has the keys {', '.join(names)}" if names else "is an empty mapping"
    return f"is a {type(value).__name__}"


class _KeyConfig(BaseModel, extra="forbid", frozen=True):
    field: str = Field(min_length=1, examples=["user.id"])


class FieldKey(KeyByFunction[Any]):
    """The value of one field as the key.

    Config:
        field: dotted path: keys of mappings, numbers of list items, attributes of records.

    Raises:
        FieldError: from `execute`: the item has no such field.

    Example:
        >>> FieldKey({"field": "user.id"}).execute({"user": {"id": 7}})
        7
    """

    Config: ClassVar[type[BaseModel] | None] = _KeyConfig

    def execute(self, item: Any) -> Hashable:
        """The key of `item`."""
        key: Hashable = field_of(item, self.config.field)
        return key


class _FilterConfig(BaseModel, extra="forbid", frozen=True):
    field: str = Field(min_length=1, examples=["user.id"])
    equals: Any = Field(default=None, examples=[7])
    not_equals: Any = None
    above: float | str | None = None
    at_least: float | str | None = None
    below: float | str | None = None
    at_most: float | str | None = None
    one_of: list[Any] | None = None
    contains: Any = None
    exists: bool | None = None

    @model_validator(mode="after")
    def _some(self) -> _FilterConfig:
        if not self.model_fields_set.intersection(_TESTS):
            raise ValueError(f"give at least one test: {', '.join(_TESTS)}")
        return self


class FieldFilter(FilterFunction[Any]):
    """Keeps the items whose field passes all tests that are given.

    A missing field passes only `exists: false`; with any other test it is an error of the item, so that a misspelt
    name does not silently drop everything. Without `field` in an item on purpose, say `exists: true` as well: such
    items are then dropped.

    Config:
        field: dotted path: keys of mappings, numbers of list items, attributes of records.
        equals: the field must be this.
        not_equals: the field must not be this.
        above: the field must be larger.
        at_least: the field must be this or larger.
        below: the field must be smaller.
        at_most: the field must be this or smaller.
        one_of: the field must be one of these.
        contains: the field, a text or a list, must have this in it.
        exists: whether the field must be there.

    Raises:
        FieldError: from `execute`: the item has no such field.
        TypeError: from `execute`: the field cannot be compared with what is given.

    Example:
        >>> warm = FieldFilter({"field": "celsius", "at_least": 20, "below": 40})
        >>> [warm.execute({"celsius": degrees}) for degrees in (19.5, 20, 40)]
        [False, True, False]
    """

    Config: ClassVar[type[BaseModel] | None] = _FilterConfig

    def execute(self, item: Any) -> bool:
        """Whether to keep `item`."""
        config, given = self.config, self.config.model_fields_set
        value = _lookup(item, config.field)
        missing = isinstance(value, FieldError)
        if "exists" in given and config.exists is not None:
            if missing is config.exists:
                return False
            if missing:
                return True
        if missing:
            raise value
        return (
            ("equals" not in given or value == config.equals)
            and ("not_equals" not in given or value != config.not_equals)
            and (config.above is None or value > config.above)
            and (config.at_least is None or value >= config.at_least)
            and (config.below is None or value < config.below)
            and (config.at_most is None or value <= config.at_most)
            and (config.one_of is None or value in config.one_of)
            and ("contains" not in given or config.contains in value)
        )
