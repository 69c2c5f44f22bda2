"""From a plan and the logical graph to running parts: channels, operators of one replica, edges."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

from sage.kernel.graph import (
    BaseTransformation,
    Emit,
    Execution,
    ExecutionGraph,
    LogicalGraph,
    OperatorKind,
    PhysicalEdge,
    TaskNode,
)
from sage.kernel.operators import FunctionFactory, OperatorContext, SourceFunction
from sage.kernel.operators.context import ServiceCalls
from sage.kernel.operators.functions import Function
from sage.kernel.operators.process_code import PackedCode, ProcessOrder, pack_code
from sage.kernel.routing import create_router
from sage.kernel.telemetry import OperatorCounters, ReplicaCounters
from sage.platform import Backend, Channel, ChannelSpec

from .edges import OutputEdge
from .envelopes import in_envelopes
from .gather import create_gather
from .loop_map import LoopMap
from .place_books import PlacedEdge
from .place_map import PlaceMap
from .places import DatedState
from .side_edges import SideEdge, with_side_outputs
from .steps import KeyGuard, Step
from .task import JobSignals, TaskParts

__all__ = ["TaskFactory", "create_channels", "create_operator"]

_RUNS_AS = {
    OperatorKind.COMAP: OperatorKind.MAP,
    OperatorKind.JOIN: OperatorKind.FLATMAP,
    OperatorKind.INTERLEAVE: OperatorKind.FLATMAP,
    OperatorKind.SPLIT: OperatorKind.MAP,
    OperatorKind.FUTURE: OperatorKind.ORDERED,
}
"""What the chain makes of kinds that differ in how their items come and go, and not in how they are called."""


def create_channels(graph: ExecutionGraph, backend: Backend) -> dict[str, Channel[Any]]:
    """The inbox of each task that has one, by task id."""
    return {
        task.id: _create_channel(task, ChannelSpec(f"inbox of {task.id}", capacity=task.queue.capacity), backend)
        for task in graph.tasks
        if task.queue is not None
    }


def _create_channel(task: TaskNode, spec: ChannelSpec, backend: Backend) -> Channel[Any]:
    return backend.window_channel(spec) if task.execution is Execution.PROCESS else backend.channel(spec)


class TaskFactory:
    """Makes the parts of each task: its operators from their factories, its edges from the plan.

    Args:
        graph: the plan.
        logical: where the operators' factories are.
        channels: inbox by task id.
        backend: for its clock.
        offsets: by source name, one offset per replica to begin at; a source that is not named begins at the
            beginning.
        signals: what the job tells its tasks, for operators that look at it.
        services: what operators call by name.
        fail: has the job fail, for the reason given.

    Attributes:
        places: the `ordered()` operators and what leads to them.
        loops: the loops, and the tasks that lie in them.
    """

    def __init__(
        self,
        graph: ExecutionGraph,
        logical: LogicalGraph,
        channels: Mapping[str, Channel[Any]],
        backend: Backend,
        offsets: Mapping[str, list[Any]] | None = None,
        signals: JobSignals | None = None,
        services: ServiceCalls | None = None,
        fail: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._graph = graph
        self._logical = logical
        self._channels = channels
        self._now = backend.clock.monotonic_ns
        self._offsets = offsets or {}
        self._signals = signals or JobSignals()
        self._services = services
        self.places = PlaceMap(graph, logical)
        self.loops = LoopMap(graph, logical, self._signals, fail)
        self._closed: set[str] = set()
        self._packed: dict[tuple[str, ...], PackedCode] = {}

    def create(self, node: TaskNode) -> TaskParts:
        """The parts of one task.

        Raises:
            PipelineError: the user's constructor raised, or an instance cannot be copied for a replica.
        """
        counters = ReplicaCounters(node.chain)
        parts = TaskParts(node=node, counters=counters, inbox=self._channels.get(node.id))
        functions: list[tuple[str, Function, OperatorContext]] = []
        steps: list[Step] = []
        # The operators of a process are made there.
        for position, name in enumerate(() if node.execution is Execution.PROCESS else node.chain):
            operator = self._operator(name)
            made = create_operator(
                operator,
                node,
                counters.operators[position],
                self._graph.name,
                self._signals.stopping if operator.inputs else self._signals.source(name),
                partial(self._end_sources, name),
                now=self._now,
                services=self._services,
            )
            if isinstance(made, Step):
                steps.append(made)
                if made.function is not None:
                    functions.append((name, made.function, made.context))
            else:
                parts.source, context = made
                functions.append((name, parts.source, context))
                parts.source_options = operator.options
                parts.offset = self._offset(name, node)
        outgoing = self._graph.outgoing(node.id)
        parts.steps, parts.functions = steps, functions
        incoming = self._graph.incoming(node.id)
        parts.producers = len(incoming)
        if steps and steps[0].ended is not None:
            parts.sides = self._logical[node.chain[0]].options["sides"]
            parts.side_producers = Counter(parts.sides[edge.input_index] for edge in incoming)
        if self._tags(node.id):
            parts.tags = self._logical[node.chain[0]].options["sides"]
        parts.edges = [self._edge(edge, any(other.branch is not None for other in outgoing)) for edge in outgoing]
        parts.keys_in = self._logical[node.chain[0]].keyed_input
        parts.keys_out = any(edge.keyed for edge in outgoing)
        return parts

    def _edge(self, edge: PhysicalEdge, selects: bool) -> OutputEdge:
        router = create_router(edge.routing, len(edge.targets))
        channels = [self.loops.channel(edge, self._channels[target]) for target in edge.targets]
        receiver = self._logical[edge.targets[0].rpartition("[")[0]]
        sides = None if self._tags(edge.targets[0]) else receiver.options.get("sides")
        if not selects and sides is None and not self.places.covers(edge.source):
            return OutputEdge(edge.source, router, channels, edge.input_index, self._now)
        side = None if sides is None else sides[edge.input_index]
        placed = self.places.edge_facts(edge)
        if placed is not None:
            plain = (edge.source, router, channels, edge.input_index, self._now)
            return PlacedEdge(*plain, selects=selects, branch=edge.branch, side=side, **placed)
        return SideEdge(
            edge.source, router, channels, edge.input_index, self._now, selects=selects, branch=edge.branch, side=side
        )

    def _tags(self, task: str) -> bool:
        """Whether a task itself knows of which stream its packets are: a join may take all items of one at once."""
        node = self._graph.task(task)
        return node.execution is Execution.THREAD and self._logical[node.chain[0]].kind is OperatorKind.JOIN

    def _operator(self, name: str) -> BaseTransformation:
        """The operator; one with branches is told which of them somebody takes."""
        operator, branches = self._logical[name], self._logical.branches_of(name)
        added: dict[str, Any] = {"taken": branches} if branches else {}
        if self.places.dates(operator):
            added["dated"] = True
        return replace(operator, options={**operator.options, **added}) if added else operator

    def _end_sources(self, closed: str) -> None:
        """Operator `closed` lets no item pass any more: sources that feed nobody else end."""
        self._closed.add(closed)
        for name in self._logical.idle_sources(frozenset(self._closed)):
            self._signals.end_source(name)

    def _offset(self, name: str, node: TaskNode) -> Any:
        offsets = self._offsets.get(name)
        return None if offsets is None else offsets[node.replica_index]

    def orders(self, node: TaskNode) -> list[ProcessOrder]:
        """What the processes of a task have to do; mostly there is one.

        Raises:
            PipelineError: an operator cannot be sent to a process; the message names the attribute.
        """
        keyed = any(edge.keyed for edge in self._graph.outgoing(node.id))
        bounds = (0, *node.cuts, len(node.chain))
        return [self._order(node, first, last, keyed) for first, last in pairwise(bounds)]

    def _order(self, node: TaskNode, first: int, last: int, keyed: bool) -> ProcessOrder:
        names = node.chain[first:last]
        code = self._packed.get(names)
        if code is None:
            code = self._packed[names] = pack_code([self._operator(name) for name in names])
        return ProcessOrder(
            code=code,
            node=replace(node, chain=names, cuts=()),
            job=self._graph.name,
            keys_in=self._logical[names[0]].keyed_input,
            keys_out=keyed if last == len(node.chain) else self._logical[node.chain[last]].keyed_input,
            first=first,
            last=last,
            size=len(node.chain),
            calls=bool(self._logical.services),
            lists=self._logical[names[0]].contract.io.batching is not None,
        )


def create_operator(
    operator: BaseTransformation,
    node: TaskNode,
    counters: OperatorCounters,
    job: str,
    stopping: list[bool] | None = None,
    on_enough: Callable[[], None] | None = None,
    *,
    now: Callable[[], int] = time.monotonic_ns,
    services: ServiceCalls | None = None,
) -> Step | tuple[SourceFunction[Any], OperatorContext]:
    """One operator of one replica: a step, or a source and its context.

    Raises:
        PipelineError: the user's constructor raised, or an instance cannot be copied for a replica.
    """
    factory = operator.factory
    assert isinstance(factory, FunctionFactory)
    bound = factory.create(node.replica_index, node.parallelism)
    is_async = node.execution is Execution.ASYNC
    context = OperatorContext(
        operator.name,
        replica_index=node.replica_index,
        parallelism=node.parallelism,
        job=job,
        keyed=operator.keyed_input,
        concurrent=is_async,
        stopping=stopping,
        branches=operator.options.get("taken", frozenset()),
        on_enough=on_enough,
        services=services,
    )
    if isinstance(bound.function, SourceFunction):
        return bound.function, context
    kind, call = _RUNS_AS.get(operator.kind, operator.kind), bound.call
    if "requests" in operator.options:
        call = in_envelopes(operator, call, context, is_async=is_async)
    gather = create_gather(operator, call, now)
    if gather is not None:
        kind = OperatorKind.BATCH
    if operator.options.get("taken") and operator.kind not in (OperatorKind.SPLIT, OperatorKind.FUTURE):
        call = with_side_outputs(kind, operator.name, call, context, operator.contract.io.outputs_max, is_async)
        kind = OperatorKind.FLATMAP
    return Step(
        name=operator.name,
        kind=kind,
        call=call,
        function=bound.function,
        context=context,
        io=operator.contract.io,
        counters=counters,
        is_async=is_async,
        # The items of a list may have many keys.
        enter=context.enter if operator.keyed_input and bound.function is not None and gather is None else None,
        emit=operator.options.get("emit", Emit.EACH),
        create=bound.create,
        result=bound.result,
        builtin=bound.builtin,
        sided="sides" in operator.options,
        leftovers=bound.leftovers,
        last=bound.last,
        ended=bound.ended,
        # What has been put around the call has to see each item.
        together=bound.together if call is bound.call else None,
        gather=gather,
        state=DatedState() if operator.options.get("dated") else {},
        guard=KeyGuard(operator.name) if operator.kind is OperatorKind.KEY_BY else None,
    )
