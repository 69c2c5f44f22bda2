"""The passes in their order."""

from __future__ import annotations

from collections.abc import Callable

from sage.kernel.graph import ExecutionGraph, LogicalGraph

from .coarsen import coarsen
from .costs import refuse, tell_measured
from .execution import choose_execution
from .fuse import fuse
from .loops import check_loops
from .ordering import plan_order
from .parallelism import choose_parallelism
from .place import place
from .plan import CompileOptions, Plan
from .replicate import replicate
from .types import check_types
from .validate import validate
from .wire import wire

__all__ = ["PASSES", "compile_graph"]

PASSES: tuple[Callable[[Plan], Plan], ...] = (
    check_loops,
    validate,
    check_types,
    choose_parallelism,
    tell_measured,
    choose_execution,
    coarsen,
    plan_order,
    fuse,
    refuse,
    replicate,
    wire,
    place,
)


def compile_graph(graph: LogicalGraph, options: CompileOptions | None = None) -> ExecutionGraph:
    """Compile a logical graph. Pure: the same graph and options give an equal plan.

    Raises:
        PipelineError: the pipeline is wrong; the message names operator, file and line.
    """
    plan = Plan(graph=graph, options=options or CompileOptions())
    for compiler_pass in PASSES:
        plan = compiler_pass(plan)
    return ExecutionGraph(name=graph.name, tasks=plan.tasks, edges=plan.edges, notes=plan.notes)
