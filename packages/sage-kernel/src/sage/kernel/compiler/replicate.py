"""Pass 7: chains become tasks, one per replica, each with one bounded inbox."""

from __future__ import annotations

from dataclasses import replace

from sage.kernel.graph import Execution, OperatorKind, QueueDescriptor, TaskNode

from .execution import DEFAULT_CONCURRENCY
from .plan import Chain, Plan

__all__ = ["replicate"]

_ONE_REPLICA = 1024
_ONE_PROCESS = 3 * 1024
_MANY_REPLICAS = 64


def replicate(plan: Plan) -> Plan:
    """Make the tasks and size their queues."""
    tasks: list[TaskNode] = []
    lines: list[tuple[str, str]] = []
    for chain in plan.chains:
        head = plan.graph[chain.name]
        replicas, execution = plan.parallelism[head.name], plan.execution[head.name]
        concurrency = 1
        if execution is Execution.ASYNC and head.kind is not OperatorKind.KEY_BY:
            # Not for key_by: an item that gets its key first would overtake those of the same key before it.
            concurrency = head.contract.resources.concurrency or DEFAULT_CONCURRENCY
            if head.options.get("in_order"):
                concurrency = 1
        queue = _queue(plan, chain, replicas, concurrency) if head.inputs else None
        for index in range(replicas):
            tasks.append(
                TaskNode(
                    id=f"{chain.name}[{index}]",
                    chain=chain.operators,
                    replica_index=index,
                    parallelism=replicas,
                    execution=execution,
                    concurrency=concurrency,
                    queue=queue,
                    reorders=head.name in plan.reordering,
                    cuts=chain.cuts,
                )
            )
        if queue is not None:
            in_flight = f", {concurrency} in flight each" if concurrency > 1 else ""
            lines.append((chain.name, f"{replicas} task(s){in_flight}, queue of {queue.capacity} each: {queue.reason}"))
    return replace(plan, tasks=tuple(tasks)).noted("replicate", *lines)


def _queue(plan: Plan, chain: Chain, replicas: int, concurrency: int) -> QueueDescriptor:
    head = plan.graph[chain.name]
    if head.kind is OperatorKind.FUTURE:
        return QueueDescriptor(
            capacity=head.options["max_in_flight"],
            reason="max_in_flight of the loop, so that what comes back never waits",
        )
    asked = head.contract.io.queue_capacity
    if asked is not None:
        return QueueDescriptor(capacity=asked, reason="declared by the contract")
    if plan.options.queue_capacity is not None:
        return QueueDescriptor(capacity=plan.options.queue_capacity, reason="set for this run")
    if concurrency > 1 and replicas > 1:
        return QueueDescriptor(
            capacity=max(4 * concurrency, 4 * _MANY_REPLICAS),
            reason="four times what is in flight, so that no slot waits for its next item",
        )
    if replicas > 1 and not head.keyed_input:
        return QueueDescriptor(
            capacity=_MANY_REPLICAS, reason="short, so that items wait where any replica can still take them"
        )
    if plan.execution[head.name] is Execution.PROCESS:
        return QueueDescriptor(
            capacity=_ONE_PROCESS,
            reason="room for two batches under way and one to come, so that the process need not wait for rows",
        )
    return QueueDescriptor(
        capacity=_ONE_REPLICA,
        reason="long, so that hand-overs are rare under load: its items have nowhere else to go",
    )
