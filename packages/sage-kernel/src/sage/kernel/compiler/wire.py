"""Pass 8: the edges between tasks, and how an item finds its replica."""

from __future__ import annotations

from dataclasses import replace

from sage.kernel.graph import BaseTransformation, PhysicalEdge, Routing, find_loops

from .fuse import needs_shuffle
from .plan import Plan

__all__ = ["wire"]

_WHY_ASKED = {
    Routing.BROADCAST: "each item to each of {} replicas, as asked",
    Routing.ROUND_ROBIN: "in turn to each of {} replicas, as asked",
}


def wire(plan: Plan) -> Plan:
    """One edge per producing replica and consuming operator."""
    edges: list[PhysicalEdge] = []
    lines: list[tuple[str, str]] = []
    heads = {chain.name for chain in plan.chains}
    feedback = {
        (future, upstream)
        for loop in find_loops(plan.graph)
        for future in loop.futures
        for upstream in plan.graph[future].inputs
        if upstream in loop.operators
    }
    for operator in plan.operators:
        if operator.name not in heads:
            continue
        replicas = plan.parallelism[operator.name]
        targets = tuple(f"{operator.name}[{index}]" for index in range(replicas))
        for input_index, upstream_name in enumerate(operator.inputs):
            upstream = plan.graph[upstream_name]
            routing, why = _routing(plan, upstream, operator, input_index)
            branch = operator.branch(input_index)
            producers = plan.parallelism[upstream_name]
            chain = plan.chain_of(upstream_name).name
            for index in range(producers):
                edges.append(
                    PhysicalEdge(
                        source=f"{chain}[{index}]",
                        targets=(targets[index],) if routing is Routing.FORWARD and replicas > 1 else targets,
                        routing=routing,
                        input_index=input_index,
                        keyed=operator.keyed_input,
                        branch=branch,
                        feedback=(operator.name, upstream_name) in feedback,
                    )
                )
            shown = upstream_name if branch is None else f"{upstream_name} (branch {branch!r})"
            if (operator.name, upstream_name) in feedback:
                why = "the loop closes here"
            lines.append((operator.name, f"{shown} -> {operator.name}: {routing}: {why}"))
    return replace(plan, edges=tuple(edges)).noted("wire", *lines)


def _routing(
    plan: Plan, upstream: BaseTransformation, operator: BaseTransformation, input_index: int
) -> tuple[Routing, str]:
    producers, consumers = plan.parallelism[upstream.name], plan.parallelism[operator.name]
    if consumers == 1:
        return Routing.FORWARD, "there is one consumer"
    asked = operator.routing(input_index)
    if asked is not None:
        return asked, _WHY_ASKED[asked].format(consumers)
    if needs_shuffle(plan, upstream, operator):
        return Routing.KEY_HASH, "all items of a key meet the same replica"
    if operator.keyed_input:
        return Routing.FORWARD, "keys are already where they belong"
    if producers == consumers:
        return Routing.FORWARD, f"replica i feeds replica i of {consumers}"
    return Routing.LEAST_LOADED, f"each item to the replica with the fewest waiting, of {consumers}"
