"""The logical graph: what the user declared. Transformations joined by streams; no replicas, no queues yet.

Invariants: names are unique; each input names a transformation that was declared before (so there is no cycle);
sources have no input, all others have at least one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from .contracts import Contract
from .errors import PipelineError

__all__ = ["BaseTransformation", "Emit", "LogicalGraph", "OperatorFactory", "OperatorKind", "SourceLocation"]


class OperatorKind(StrEnum):
    """What an operator does with the stream."""

    SOURCE = "source"
    MAP = "map"
    FLATMAP = "flatmap"
    FILTER = "filter"
    KEY_BY = "key_by"
    REDUCE = "reduce"
    AGGREGATE = "aggregate"
    SINK = "sink"


class Emit(StrEnum):
    """When `reduce` and `aggregate` emit: after each item, or once per key at the end of the stream."""

    EACH = "each"
    FINAL = "final"


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """Where in the user's code an operator was declared."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class OperatorFactory(Protocol):
    """Makes the operator of one replica; what the logical graph knows of user code."""

    @property
    def description(self) -> str:
        """`module:qualified_name` of the user's code, for plans and messages."""

    @property
    def is_async(self) -> bool:
        """Whether the user's code is a coroutine function."""

    @property
    def is_replicable(self) -> bool:
        """Whether several replicas can be made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseTransformation:
    """One declared operator.

    Attributes:
        name: unique in the pipeline.
        kind: what it does with the stream.
        factory: makes its replicas.
        contract: what it needs, keeps and promises.
        inputs: names of the transformations whose outputs it takes, in order; the same one may stand there
            twice.
        parallelism: replicas asked for, None lets the compiler choose.
        keyed_input: its items come with a key, and all items of a key meet the same replica.
        location: where it was declared.
        options: what only its kind has (`emit` of reduce and aggregate; `bounded`, `blocking`, `timed` of
            sources).
    """

    name: str
    kind: OperatorKind
    factory: OperatorFactory
    contract: Contract = field(default_factory=Contract)
    inputs: tuple[str, ...] = ()
    parallelism: int | None = None
    keyed_input: bool = False
    location: SourceLocation | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """`(operator 'name', file:line)` for messages."""
        return f"(operator {self.name!r}, {self.location})" if self.location else f"(operator {self.name!r})"


class LogicalGraph:
    """The declared pipeline.

    Example:
        >>> graph = LogicalGraph("demo")
        >>> graph.transformations
        ()
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._by_name: dict[str, BaseTransformation] = {}

    @property
    def transformations(self) -> tuple[BaseTransformation, ...]:
        """All operators in the order of declaration, which is a topological order."""
        return tuple(self._by_name.values())

    def __getitem__(self, name: str) -> BaseTransformation:
        return self._by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def consumers(self, name: str) -> tuple[tuple[BaseTransformation, int], ...]:
        """Who takes the outputs of `name`: operator and input index, once for each time it is an input."""
        return tuple(
            (other, index)
            for other in self._by_name.values()
            for index, upstream in enumerate(other.inputs)
            if upstream == name
        )

    def add(self, transformation: BaseTransformation) -> None:
        """Add an operator.

        Raises:
            PipelineError: the name is taken, or an input is unknown.
        """
        taken = self._by_name.get(transformation.name)
        if taken is not None:
            raise PipelineError(
                f"operator names must be unique, got {transformation.name!r} twice {transformation.where}; "
                f"the first is {taken.where}"
            )
        for upstream in transformation.inputs:
            if upstream not in self._by_name:
                raise PipelineError(f"unknown input {upstream!r} {transformation.where}")
        self._by_name[transformation.name] = transformation

    def replace(self, transformation: BaseTransformation) -> None:
        """Put another form of an operator that is there already (same name, same inputs) into its place."""
        old = self._by_name[transformation.name]
        if old.inputs != transformation.inputs:
            raise PipelineError(
                f"a replacement must keep the inputs {old.inputs!r}, got {transformation.inputs!r} {old.where}"
            )
        self._by_name[transformation.name] = transformation
