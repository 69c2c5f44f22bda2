"""What hypothesis draws: a pipeline as pure data, and how a person reads it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

__all__ = ["Op", "Order", "Pipeline", "describe", "op_name"]


class Order(IntEnum):
    """How far the order of a stream's items is determined."""

    NONE = 0
    KEY = 1
    ALL = 2


@dataclass(frozen=True)
class Op:
    """One operator of a random pipeline.

    Attributes:
        inputs: positions of the operators it takes.
        branches: for each of them, which branch of its outputs; "" is the main stream.
        routing: "broadcast" or "rebalance" in front of it, or "".
        tag: makes its function differ from others.
        variant: which of the functions of its kind.
        awaits: on the async kind: an `async` operator; `sleeps`: with a real sleep.
        in_order: a sink that takes items in the order of their source.
        fails: 0 never; 1 for ever, for some items; 2 once per distinct item, then no more (given a retry).
    """

    kind: str
    inputs: tuple[int, ...] = ()
    branches: tuple[str, ...] = ()
    routing: str = ""
    items: tuple[Any, ...] = ()
    tag: int = 0
    variant: int = 0
    parallelism: int = 1
    capacity: int | None = None
    awaits: bool = False
    sleeps: bool = False
    concurrency: int = 1
    fails: int = 0
    retries: int = 0
    emit: str = "each"
    blocking: bool = False
    in_order: bool = False


@dataclass(frozen=True)
class Pipeline:
    """A random pipeline."""

    ops: tuple[Op, ...]
    fusion: bool = True
    queue_capacity: int | None = None

    def __repr__(self) -> str:
        return describe(self)


def describe(pipeline: Pipeline) -> str:
    """The pipeline as lines a person can read."""
    capacity = "default" if pipeline.queue_capacity is None else pipeline.queue_capacity
    lines = [f"Pipeline(fusion={pipeline.fusion}, queue_capacity={capacity})"]
    for position, op in enumerate(pipeline.ops):
        inputs = " + ".join(
            op_name(upstream, pipeline.ops[upstream]) + (f"[{branch}]" if branch else "")
            for upstream, branch in zip(op.inputs, op.branches, strict=True)
        )
        facts = [f"x{op.parallelism}"] if op.parallelism > 1 else []
        facts += [f"variant {op.variant} tag {op.tag}"] if op.inputs else [f"{len(op.items)} items {list(op.items)!r}"]
        facts += [f"async c={op.concurrency}{' sleeps' if op.sleeps else ''}"] if op.awaits else []
        facts += [f"queue {op.capacity}"] if op.capacity else []
        facts += [f"fails={op.fails} retries={op.retries}"] if op.fails else []
        facts += [f"emit {op.emit}"] if op.kind in ("reduce", "aggregate") else []
        facts += ["blocking"] if op.blocking else []
        facts += ["in order"] if op.in_order else []
        facts += [op.routing] if op.routing else []
        lines.append(f"  {op_name(position, op)} <- {inputs or '-'}: {', '.join(facts)}")
    return "\n".join(lines)


def op_name(position: int, op: Op) -> str:
    return f"{op.kind}{position}"
