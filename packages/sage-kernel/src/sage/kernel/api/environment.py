"""What a stream needs of the environment it was declared in; each environment, local or remote, offers it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from sage.kernel.graph import LogicalGraph
from sage.kernel.runtime import JobHandle

__all__ = ["Environment"]


@runtime_checkable
class Environment(Protocol):
    """Declares a pipeline and runs it."""

    name: str
    graph: LogicalGraph

    def subgraph(self, ends: Iterable[str]) -> LogicalGraph:
        """A new graph of these operators and all that lead to them."""

    def run_graph(
        self,
        graph: LogicalGraph,
        offsets: Mapping[str, list[Any]] | None = None,
        *,
        answers: frozenset[str] | None = None,
    ) -> JobHandle:
        """Compile and start a graph of this environment; returns at once. `answers` names the operators that lead to
        the answer, where it answers requests.
        """

    def submit(self, wait: bool = True, *, offsets: Mapping[str, list[Any]] | None = None) -> JobHandle:
        """Compile the pipeline and run it."""
