"""Loops: the operators between a future and what comes back to it.

A feedback edge is an input of a FUTURE; it is the only edge that may lead back to an operator that was declared
before. So the order of declaration is a topological order of all edges but these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .logical import BaseTransformation, LogicalGraph, OperatorKind
from .physical import Routing

__all__ = ["EXHAUSTED", "Loop", "find_loops"]

EXHAUSTED = "exhausted"
"""Branch of a future: items that have gone round as often as they may."""

_MULTIPLYING = frozenset({OperatorKind.FLATMAP, OperatorKind.JOIN})


@dataclass(frozen=True, slots=True)
class Loop:
    """Operators that lie on a common cycle. Loops that share operators, as nested ones do, are one.

    Attributes:
        futures: where items come back, in the order of declaration.
        operators: all operators that lie on the cycle, the futures among them.
        max_in_flight: items that may be let in at a time: the smallest bound of the futures.
        multiplies: an item may become several inside.
    """

    futures: tuple[str, ...]
    operators: frozenset[str]
    max_in_flight: int
    multiplies: bool

    @property
    def entry_limit(self) -> int:
        """Items from outside wait while so many are inside: where items multiply, half of the bound is left to them."""
        return max(1, self.max_in_flight // 2) if self.multiplies else self.max_in_flight


def find_loops(graph: LogicalGraph) -> tuple[Loop, ...]:
    """The loops of a pipeline whose futures are filled.

    Example:
        >>> find_loops(LogicalGraph("demo"))
        ()
    """
    futures = [operator for operator in graph.transformations if operator.kind is OperatorKind.FUTURE]
    if not futures:
        return ()
    behind: dict[str, list[str]] = {}
    for operator in graph.transformations:
        for upstream in operator.inputs:
            behind.setdefault(upstream, []).append(operator.name)
    loops: list[Loop] = []
    for future in futures:
        if any(future.name in loop.operators for loop in loops):
            continue
        after = _reached(future.name, lambda name: behind.get(name, ()))
        before = _reached(future.name, lambda name: graph[name].inputs if name in graph else ())
        common = after & before
        if future.name in common:
            loops.append(_loop(graph, common))
    return tuple(loops)


def _reached(start: str, follow: Callable[[str], Iterable[str]]) -> frozenset[str]:
    """What is reached from `start` by at least one step."""
    found: set[str] = set()
    waiting = list(follow(start))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += follow(name)
    return frozenset(found)


def _loop(graph: LogicalGraph, operators: frozenset[str]) -> Loop:
    inside = [operator for operator in graph.transformations if operator.name in operators]
    futures = [operator for operator in inside if operator.kind is OperatorKind.FUTURE]
    return Loop(
        futures=tuple(future.name for future in futures),
        operators=operators,
        max_in_flight=min(future.options["max_in_flight"] for future in futures),
        multiplies=any(_multiplies(graph, operator, operators) for operator in inside),
    )


def _multiplies(graph: LogicalGraph, operator: BaseTransformation, operators: frozenset[str]) -> bool:
    if operator.kind in _MULTIPLYING:
        return True
    if operator.kind not in (OperatorKind.SPLIT, OperatorKind.FUTURE) and graph.branches_of(operator.name):
        return True
    if any(operator.routing(index) is Routing.BROADCAST for index in range(len(operator.inputs))):
        return True
    taken = [other.branch(index) for other, index in graph.consumers(operator.name) if other.name in operators]
    return len(taken) > len(set(taken))
