"""The logical graph: what the user declared. Transformations joined by streams; no replicas, no queues yet.

Invariants: names are unique; each input names a transformation that was declared before, except the inputs of a FUTURE,
which are the feedback edges (so each cycle has one); sources have no input, all others have at least one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol

from .contracts import Contract
from .errors import PipelineError
from .physical import Routing

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
    COMAP = "comap"
    JOIN = "join"
    INTERLEAVE = "interleave"
    SPLIT = "split"
    ORDERED = "ordered"
    FUTURE = "future"
    BATCH = "batch"
    SINK = "sink"


class Emit(StrEnum):
    """When `reduce` and `aggregate` emit: after each item, or once per key at the end of the stream."""

    EACH = "each"
    FINAL = "final"


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """Where in the user's file an operator was declared; `column` is 0 where only the line is known (Python)."""

    file: str
    line: int
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.column else f"{self.file}:{self.line}"


class OperatorFactory(Protocol):
    """Makes the operator of one replica; what the logical graph knows of user code."""

    @property
    def description(self) -> str:
        """`module:qualified_name` of the user's code, for plans and messages."""

    @property
    def is_async(self) -> bool:
        """Whether the user's code is a coroutine function."""

    @property
    def why_single(self) -> str:
        """Why there can be one replica only, "" where there can be several."""


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
            sources; `sides` of comap, join and interleave: for each input, which of their streams it is;
            `single`: why there can be one replica only; `max_ahead` of ordered; `max_in_flight`, `max_rounds`
            and `filled_at` of future; `in_order` of a sink: one item at a time).
        branches: for each input, which branch of that operator it is, None for its main outputs; empty where all are.
        routings: for each input, how the user wants items to find their replica, None to let the compiler choose;
            empty where it may choose for all.
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
    branches: tuple[str | None, ...] = ()
    routings: tuple[Routing | None, ...] = ()

    def branch(self, input_index: int) -> str | None:
        """Which branch of its upstream operator an input is, None for its main outputs."""
        return self.branches[input_index] if self.branches else None

    def routing(self, input_index: int) -> Routing | None:
        """How items of an input have to find their replica, None where the compiler may choose."""
        return self.routings[input_index] if self.routings else None

    @property
    def where(self) -> str:
        """`(operator 'name', file:line)` for messages."""
        return f"(operator {self.name!r}, {self.location})" if self.location else f"(operator {self.name!r})"


class LogicalGraph:
    """The declared pipeline.

    Attributes:
        services: by name, what operators may call.

    Example:
        >>> graph = LogicalGraph("demo")
        >>> graph.transformations
        ()
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.services: dict[str, Any] = {}
        self._by_name: dict[str, BaseTransformation] = {}
        self._branches: dict[str, set[str]] = {}

    @property
    def transformations(self) -> tuple[BaseTransformation, ...]:
        """All operators in the order of declaration, a topological order of all edges but the inputs of futures."""
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

    def branches_of(self, name: str) -> frozenset[str]:
        """The branches of `name` that somebody takes."""
        return frozenset(self._branches.get(name, ()))

    def idle_sources(self, closed: Collection[str]) -> tuple[str, ...]:
        """The sources of which no item can reach a sink any more, if the operators `closed` let none pass."""
        alive: set[str] = set()
        found = -1
        while len(alive) > found:  # once, and again where items come back to an operator that stands before
            found = len(alive)
            for operator in reversed(self.transformations):
                if operator.name not in closed and (operator.kind is OperatorKind.SINK or operator.name in alive):
                    alive.add(operator.name)
                    alive.update(operator.inputs)
        return tuple(
            operator.name
            for operator in self.transformations
            if operator.kind is OperatorKind.SOURCE and operator.name not in alive
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
        for upstream in transformation.inputs if transformation.kind is not OperatorKind.FUTURE else ():
            if upstream not in self._by_name:
                raise PipelineError(
                    f"unknown input {upstream!r} {transformation.where}: an operator takes what was declared before "
                    f"it; items come back only through a future (env.from_future(), future.fill())"
                )
        self._by_name[transformation.name] = transformation
        self._note_branches(transformation)

    def _note_branches(self, transformation: BaseTransformation) -> None:
        for upstream, branch in zip(transformation.inputs, transformation.branches, strict=False):
            if branch is not None:
                self._branches.setdefault(upstream, set()).add(branch)

    def fill(
        self, name: str, inputs: tuple[str, ...], branches: tuple[str | None, ...], options: Mapping[str, Any]
    ) -> None:
        """Say what comes back to a future: its feedback edges.

        Args:
            name: of the future.
            inputs: names of the operators whose outputs come back.
            branches: for each of them, which branch; empty where all are main outputs.
            options: added to those of the future.

        Raises:
            PipelineError: it is no future, or it has been filled, or an input is unknown.
        """
        future = self._by_name[name]
        if future.kind is not OperatorKind.FUTURE or future.inputs:
            raise PipelineError(f"a future is filled once {future.where}")
        for upstream in inputs:
            if upstream not in self._by_name:
                raise PipelineError(f"unknown input {upstream!r} {future.where}")
        filled = replace(future, inputs=inputs, branches=branches, options={**future.options, **options})
        self._by_name[name] = filled
        self._note_branches(filled)

    def replace(self, transformation: BaseTransformation) -> None:
        """Put another form of an operator that is there already (same name, same inputs) into its place."""
        old = self._by_name[transformation.name]
        if old.inputs != transformation.inputs:
            raise PipelineError(
                f"a replacement must keep the inputs {old.inputs!r}, got {transformation.inputs!r} {old.where}"
            )
        self._by_name[transformation.name] = transformation
