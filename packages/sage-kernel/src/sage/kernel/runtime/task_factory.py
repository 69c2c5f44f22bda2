"""From a plan and the logical graph to running parts: channels, operators of one replica, edges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sage.kernel.graph import (
    BaseTransformation,
    Emit,
    Execution,
    ExecutionGraph,
    LogicalGraph,
    OperatorKind,
    TaskNode,
)
from sage.kernel.operators import AggregateSpec, FunctionFactory, OperatorContext, SourceFunction
from sage.kernel.operators.functions import Function
from sage.kernel.routing import create_router
from sage.kernel.telemetry import OperatorCounters, ReplicaCounters
from sage.platform import Backend, Channel, ChannelSpec

from .edges import OutputEdge
from .steps import KeyGuard, Step
from .task import TaskParts

__all__ = ["TaskFactory", "create_channels"]


def create_channels(graph: ExecutionGraph, backend: Backend) -> dict[str, Channel[Any]]:
    """The inbox of each task that has one, by task id."""
    return {
        task.id: backend.channel(ChannelSpec(f"inbox of {task.id}", capacity=task.queue.capacity))
        for task in graph.tasks
        if task.queue is not None
    }


class TaskFactory:
    """Makes the parts of each task: its operators from their factories, its edges from the plan.

    Args:
        graph: the plan.
        logical: where the operators' factories are.
        channels: inbox by task id.
        backend: for its clock.
        offsets: by source name, one offset per replica to begin at; a source that is not named begins at the
            beginning.
        stopping: a list that is not empty when the job has been told to stop.
    """

    def __init__(
        self,
        graph: ExecutionGraph,
        logical: LogicalGraph,
        channels: Mapping[str, Channel[Any]],
        backend: Backend,
        offsets: Mapping[str, list[Any]] | None = None,
        stopping: list[bool] | None = None,
    ) -> None:
        self._graph = graph
        self._logical = logical
        self._channels = channels
        self._now = backend.clock.monotonic_ns
        self._offsets = offsets or {}
        self._stopping = stopping

    def create(self, node: TaskNode) -> TaskParts:
        """The parts of one task.

        Raises:
            PipelineError: the user's constructor raised, or an instance cannot be copied for a replica.
        """
        counters = ReplicaCounters(node.chain)
        parts = TaskParts(node=node, counters=counters, inbox=self._channels.get(node.id))
        functions: list[tuple[str, Function, OperatorContext]] = []
        steps: list[Step] = []
        for position, name in enumerate(node.chain):
            operator = self._logical[name]
            made = self._create_operator(operator, node, counters.operators[position])
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
        parts.producers = len(self._graph.incoming(node.id))
        parts.edges = [
            OutputEdge(
                node.id,
                create_router(edge.routing, len(edge.targets)),
                [self._channels[target] for target in edge.targets],
                edge.input_index,
                self._now,
            )
            for edge in outgoing
        ]
        parts.keys_in = self._logical[node.chain[0]].keyed_input
        parts.keys_out = any(edge.keyed for edge in outgoing)
        return parts

    def _offset(self, name: str, node: TaskNode) -> Any:
        offsets = self._offsets.get(name)
        return None if offsets is None else offsets[node.replica_index]

    def _create_operator(
        self, operator: BaseTransformation, node: TaskNode, counters: OperatorCounters
    ) -> Step | tuple[SourceFunction[Any], OperatorContext]:
        factory = operator.factory
        assert isinstance(factory, FunctionFactory)
        bound = factory.create(node.replica_index, node.parallelism)
        is_async = node.execution is Execution.ASYNC
        context = OperatorContext(
            operator.name,
            replica_index=node.replica_index,
            parallelism=node.parallelism,
            job=self._graph.name,
            keyed=operator.keyed_input,
            concurrent=is_async,
            stopping=self._stopping,
        )
        if isinstance(bound.function, SourceFunction):
            return bound.function, context
        aggregate = factory.target if isinstance(factory.target, AggregateSpec) else None
        return Step(
            name=operator.name,
            kind=operator.kind,
            call=bound.call,
            function=bound.function,
            context=context,
            io=operator.contract.io,
            counters=counters,
            is_async=is_async,
            enter=context.enter if operator.keyed_input and bound.function is not None else None,
            emit=operator.options.get("emit", Emit.EACH),
            create=aggregate.create if aggregate else None,
            result=aggregate.result if aggregate else None,
            guard=KeyGuard(operator.name) if operator.kind is OperatorKind.KEY_BY else None,
        )
