"""The plan on its way from the logical to the physical graph; each pass fills in one more part of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from sage.common.errors import InvalidArgumentError
from sage.kernel.graph import BaseTransformation, Execution, LogicalGraph, Note, PhysicalEdge, TaskNode, segments_of

__all__ = ["Chain", "CompileOptions", "Measurement", "NodeCapacity", "Plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCapacity:
    """What a node offers to placement."""

    name: str = "local"
    cpus: float = 1.0
    gpus: float = 0.0
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What calling an operator on some items of its stream has shown.

    Attributes:
        items: items that were timed; 0 where it could not be measured.
        wall_s: seconds per item.
        cpu_s: processor seconds per item, of the thread that called it.
        releases_lock: other Python code could go on meanwhile although it computed: numpy or other native code.
        reason: why nothing was measured, "" where it was.

    Example:
        >>> Measurement(items=63, wall_s=4e-3, cpu_s=1e-3).cpu_share
        0.25
    """

    items: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    releases_lock: bool = False
    reason: str = ""

    @property
    def cpu_share(self) -> float:
        """Share of the time in which it computed, 0 to 1."""
        return min(1.0, self.cpu_s / self.wall_s) if self.wall_s else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileOptions:
    """What the caller decides over the heads of the passes.

    Attributes:
        parallelism: replicas by operator name; beats what the pipeline declares.
        fusion: whether neighbours may share a thread, an event loop or a process.
        queue_capacity: capacity of each inbox, None lets the compiler choose.
        node: the machine that the plan is for.
        measured: what was measured, by operator name.
        coarsen: whether processes and replicas that cost more than they bring are taken back, or refused where they
            were asked for; "warn" refuses nothing, False leaves all as it is declared.

    Raises:
        InvalidArgumentError: a parallelism or the queue capacity is below 1.
    """

    parallelism: Mapping[str, int] = field(default_factory=dict)
    fusion: bool = True
    queue_capacity: int | None = None
    node: NodeCapacity = field(default_factory=NodeCapacity)
    measured: Mapping[str, Measurement] = field(default_factory=dict)
    coarsen: bool | Literal["warn"] = True

    def __post_init__(self) -> None:
        for name, replicas in self.parallelism.items():
            if isinstance(replicas, bool) or not isinstance(replicas, int) or replicas < 1:
                raise InvalidArgumentError(
                    f"parallelism must be a whole number >= 1, got {replicas!r} (operator {name!r})"
                )
        capacity = self.queue_capacity
        if capacity is not None and (isinstance(capacity, bool) or not isinstance(capacity, int) or capacity < 1):
            raise InvalidArgumentError(f"queue_capacity must be a whole number >= 1, got {capacity!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Operators that will share a task, in order; its name is that of the first one.

    Attributes:
        cuts: positions of the operators with which a further process of the task begins.
    """

    operators: tuple[str, ...]
    cuts: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Name of the chain: of its first operator."""
        return self.operators[0]

    @property
    def segments(self) -> list[tuple[str, ...]]:
        """The operators that share a process, or a thread.

        Example:
            >>> Chain(operators=("a", "b", "c"), cuts=(2,)).segments
            [('a', 'b'), ('c',)]
        """
        return segments_of(self.operators, self.cuts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the passes have decided so far."""

    graph: LogicalGraph
    options: CompileOptions
    parallelism: Mapping[str, int] = field(default_factory=dict)
    execution: Mapping[str, Execution] = field(default_factory=dict)
    reordering: frozenset[str] = frozenset()
    chains: tuple[Chain, ...] = ()
    tasks: tuple[TaskNode, ...] = ()
    edges: tuple[PhysicalEdge, ...] = ()
    notes: tuple[Note, ...] = ()

    def noted(self, compiler_pass: str, *lines: tuple[str, str]) -> Plan:
        """The plan with further (subject, text) lines of a pass."""
        return replace(
            self,
            notes=self.notes + tuple(Note(compiler_pass=compiler_pass, subject=s, text=t) for s, t in lines),
        )

    @property
    def operators(self) -> tuple[BaseTransformation, ...]:
        """All operators in order."""
        return self.graph.transformations

    def chain_of(self, operator: str) -> Chain:
        """The chain that runs an operator."""
        return next(chain for chain in self.chains if operator in chain.operators)
