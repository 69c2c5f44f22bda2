"""Operators by name: entry points of the group `sage.operators`, and import paths `module:Object`.

A distribution registers an operator in its pyproject.toml:

    [project.entry-points."sage.operators"]
    my_operator = "my_package.operators:MyOperator"

An entry point that cannot be imported is an entry with an error; it harms no other.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, Final

from sage.kernel.api import PipelineError
from sage.kernel.api.local_environment import PipelineCaptured, capture_submit
from sage.kernel.graph import OperatorKind
from sage.kernel.operators import (
    AggregateFunction,
    CoMapFunction,
    FilterFunction,
    FlatMapFunction,
    Function,
    KeyByFunction,
    MapFunction,
    ReduceFunction,
    SinkFunction,
    SourceFunction,
)

from .findings import hint

__all__ = ["GROUP", "OperatorRegistry", "RegisteredOperator", "import_object", "kind_of"]

GROUP: Final = "sage.operators"
_KINDS: Final[tuple[tuple[type[Function], OperatorKind], ...]] = (
    (SourceFunction, OperatorKind.SOURCE),
    (MapFunction, OperatorKind.MAP),
    (FlatMapFunction, OperatorKind.FLATMAP),
    (FilterFunction, OperatorKind.FILTER),
    (KeyByFunction, OperatorKind.KEY_BY),
    (ReduceFunction, OperatorKind.REDUCE),
    (AggregateFunction, OperatorKind.AGGREGATE),
    (CoMapFunction, OperatorKind.COMAP),
    (SinkFunction, OperatorKind.SINK),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredOperator:
    """One entry point.

    Attributes:
        name: what a pipeline file calls it.
        path: `module:Object` that it stands for.
        distribution: the distribution that registers it, "" where that is unknown.
        version: of that distribution.
        target: the class or function; None where it cannot be used.
        error: why it cannot be used; "" where it can.
    """

    name: str
    path: str
    distribution: str = ""
    version: str = ""
    target: Any = None
    error: str = ""

    @property
    def kind(self) -> OperatorKind | None:
        """What its class is for; None for a function, which may be used as several kinds, and for an error."""
        return kind_of(self.target)


def kind_of(target: Any) -> OperatorKind | None:
    """The kind of a function class; None for everything else.

    Example:
        >>> class Double(MapFunction[int, int]):
        ...     def execute(self, item):
        ...         return 2 * item
        >>> kind_of(Double).value, kind_of(len)
        ('map', None)
    """
    if isinstance(target, type):
        for base, kind in _KINDS:
            if issubclass(target, base):
                return kind
    return None


def import_object(path: str) -> Any:
    """What `module:Object` names; the object may have dots (`module:Class.method`).

    Importing a module runs its code: a pipeline file is as trusted as a Python file.

    Raises:
        PipelineError: the module cannot be imported, or has no such object.

    Example:
        >>> import_object("math:sqrt")(9.0)
        3.0
        >>> import_object("math:squrt")
        Traceback (most recent call last):
        ...
        sage.kernel.graph.errors.PipelineError: module 'math' has no 'squrt'; did you mean 'sqrt'?
    """
    name, _, attributes = path.partition(":")
    if (
        not name
        or not attributes
        or not all(part.isidentifier() for part in (*name.split("."), *attributes.split(".")))
    ):
        raise PipelineError(f"{path!r} is no import path: write module:Object")
    found: Any = _import(name)
    for attribute in attributes.split("."):
        if attribute not in dir(found):
            what = f"module {name!r}" if isinstance(found, ModuleType) else getattr(found, "__qualname__", repr(found))
            known = [known for known in dir(found) if not known.startswith("_")]
            raise PipelineError(f"{what} has no {attribute!r}{hint(attribute, known)}")
        found = getattr(found, attribute)
    return found


def _import(name: str) -> ModuleType:
    token = capture_submit.set(True)
    try:
        return importlib.import_module(name)
    except PipelineCaptured:
        raise PipelineError(
            f"module {name!r} runs a pipeline while it is imported: put its submit() behind `if __name__ == '__main__'`"
        ) from None
    except ModuleNotFoundError as error:
        if error.name == name or name.startswith(f"{error.name}."):
            raise PipelineError(
                f"there is no module {error.name!r}: it must be installed, or lie beside the pipeline file"
            ) from error
        raise PipelineError(f"module {name!r} cannot be imported: {error}") from error
    except (Exception, SystemExit) as error:  # a module's own code may raise anything
        raise PipelineError(f"module {name!r} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        capture_submit.reset(token)


class OperatorRegistry:
    """The operators that are installed.

    Args:
        points: instead of what is installed.

    Example:
        >>> point = EntryPoint(name="square_root", value="math:sqrt", group=GROUP)
        >>> registry = OperatorRegistry([point])
        >>> registry.names, registry.get("square_root").target(9.0)
        (('square_root',), 3.0)
    """

    def __init__(self, points: list[EntryPoint] | None = None) -> None:
        self._points = sorted(
            entry_points(group=GROUP) if points is None else points, key=lambda each: (each.name, each.value)
        )
        self._loaded: dict[tuple[str, str], RegisteredOperator] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """All names, sorted; nothing is imported for that."""
        return tuple(sorted({point.name for point in self._points}))

    def operators(self) -> tuple[RegisteredOperator, ...]:
        """All operators by name; imports all of them."""
        return tuple(self._load(point) for point in self._points)

    def get(self, name: str) -> RegisteredOperator:
        """The operator of this name.

        Raises:
            PipelineError: there is none, or two, or it cannot be imported.
        """
        points = [point for point in self._points if point.name == name]
        if not points:
            raise PipelineError(
                f"there is no operator {name!r}{hint(name, self.names)} (`sage operators` lists all; "
                "module:Object names any other)"
            )
        found = self._load(points[0])
        if found.error:
            raise PipelineError(f"operator {name!r} cannot be used: {found.error}")
        return found

    def resolve(self, reference: str) -> Any:
        """What a pipeline file means by a registered name or an import path.

        Raises:
            PipelineError: there is no such operator, or it cannot be imported.
        """
        return import_object(reference) if ":" in reference else self.get(reference).target

    def name_of(self, target: Any) -> str | None:
        """The name that a class or function is registered under, None where it is not."""
        return self._names_by_identity.get(id(target))

    @cached_property
    def _names_by_identity(self) -> Mapping[int, str]:
        # By identity: a target need not be hashable. The operators are kept, so that no id is used anew.
        return {id(found.target): found.name for found in reversed(self.operators()) if not found.error}

    def _load(self, point: EntryPoint) -> RegisteredOperator:
        key = (point.name, point.value)
        if key not in self._loaded:
            self._loaded[key] = self._make(point)
        return self._loaded[key]

    def _make(self, point: EntryPoint) -> RegisteredOperator:
        distribution = point.dist
        facts = {
            "name": point.name,
            "path": point.value,
            "distribution": "" if distribution is None else distribution.name,
            "version": "" if distribution is None else distribution.version,
        }
        twins = Counter(each.name for each in self._points)[point.name]
        if twins > 1:
            others = ", ".join(
                f"{each.value} of {each.dist.name if each.dist is not None else 'an unknown distribution'}"
                for each in self._points
                if each.name == point.name
            )
            return RegisteredOperator(**facts, error=f"the name is registered {twins} times: {others}")
        try:
            target = import_object(point.value)
        except PipelineError as error:
            return RegisteredOperator(**facts, error=str(error))
        if not callable(target):
            return RegisteredOperator(**facts, error=f"{point.value} is a {type(target).__name__}, no operator")
        if isinstance(target, type) and kind_of(target) is None:
            return RegisteredOperator(
                **facts, error=f"{point.value} is a class without a base of sage.kernel.operators, no operator"
            )
        return RegisteredOperator(**facts, target=target)
