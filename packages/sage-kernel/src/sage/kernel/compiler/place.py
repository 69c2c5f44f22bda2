"""Pass 9: where each task runs. What fits nowhere is refused at once, with the reason."""

from __future__ import annotations

from dataclasses import replace

from sage.kernel.graph import UnschedulableError

from .plan import NodeCapacity, Plan

__all__ = ["place"]


def place(plan: Plan) -> Plan:
    """Put all tasks on the one node of a local run.

    Raises:
        UnschedulableError: a replica asks for more than the node has, or all of them together for more GPUs
            or memory than there are.
    """
    node = plan.options.node
    cpu = gpu = memory = 0.0
    for chain in plan.chains:
        replicas = plan.parallelism[chain.name]
        for name in chain.operators:
            operator = plan.graph[name]
            needs = operator.contract.resources
            for what, asked, there in (
                ("cpu", needs.cpu, node.cpus),
                ("gpu", needs.gpu, node.gpus),
                ("memory_bytes", needs.memory_bytes, node.memory_bytes),
            ):
                if asked > there:
                    raise UnschedulableError(
                        f"unschedulable: one replica asks for {what} {asked:g}, node {node.name!r} has "
                        f"{there:g} {operator.where}"
                    )
            cpu, gpu, memory = (
                cpu + replicas * needs.cpu,
                gpu + replicas * needs.gpu,
                memory + replicas * needs.memory_bytes,
            )
    _check_sum("gpu", gpu, node.gpus, node)
    _check_sum("memory_bytes", memory, node.memory_bytes, node)
    note = f"all {len(plan.tasks)} tasks on {node.name!r}"
    if cpu > node.cpus:
        note += f"; they ask for {cpu:g} cores together and there are {node.cpus:g}: cores are shared in time"
    tasks = tuple(replace(task, node=node.name) for task in plan.tasks)
    return replace(plan, tasks=tasks).noted("place", ("", note))


def _check_sum(what: str, asked: float, there: float, node: NodeCapacity) -> None:
    if asked > there:
        raise UnschedulableError(
            f"unschedulable: all replicas together ask for {what} {asked:g}, node {node.name!r} has "
            f"{there:g}; lower a parallelism or the "
            f"contracts' resources.{what}"
        )
