"""Random pipelines: pure specifications that hypothesis draws and shrinks, and how one is built with the DSL.

Every function is a pure function of its item (and of the operator's tag), so that the same specification can be
built once for the runtime and once for the reference. Where the order of items is not determined, only folds are
drawn whose emissions do not depend on it.
"""

from __future__ import annotations

import asyncio
import threading
import time
import zlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from executions import ExecutionKind
from hypothesis import strategies as st

from sage.kernel.api import Contract, DataStream, ErrorPolicy, IOSpec, KeyedStream, LocalEnvironment

__all__ = ["Op", "Order", "Pipeline", "build", "describe", "pipelines"]

ITEMS_MAX = 400


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
        tag: makes its function differ from others.
        variant: which of the functions of its kind.
        awaits: on the async kind: an `async` operator; `sleeps`: with a real sleep.
        fails: 0 never; 1 for ever, for some items; 2 once per distinct item, then no more (given a retry).
    """

    kind: str
    inputs: tuple[int, ...] = ()
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
        inputs = " + ".join(_name(upstream, pipeline.ops[upstream]) for upstream in op.inputs)
        facts = [f"x{op.parallelism}"] if op.parallelism > 1 else []
        facts += [f"variant {op.variant} tag {op.tag}"] if op.inputs else [f"{len(op.items)} items {list(op.items)!r}"]
        facts += [f"async c={op.concurrency}{' sleeps' if op.sleeps else ''}"] if op.awaits else []
        facts += [f"queue {op.capacity}"] if op.capacity else []
        facts += [f"fails={op.fails} retries={op.retries}"] if op.fails else []
        facts += [f"emit {op.emit}"] if op.kind in ("reduce", "aggregate") else []
        facts += ["blocking"] if op.blocking else []
        lines.append(f"  {_name(position, op)} <- {inputs or '-'}: {', '.join(facts)}")
    return "\n".join(lines)


def _name(position: int, op: Op) -> str:
    return f"{op.kind}{position}"


# -- functions ------------------------------------------------------------------------------------------------


def _draw(value: Any, tag: int, modulus: int) -> int:
    """A number that depends on the item and the tag alone."""
    return zlib.crc32(f"{tag}:{value!r}".encode()) % modulus


def _map(op: Op) -> Callable[[Any], Any]:
    tag = op.tag
    return [
        lambda value: value,
        lambda value: (tag, value),
        lambda value: _draw(value, tag, 5) - 2,
        lambda value: None if _draw(value, tag, 2) else value,
        lambda value: "" if _draw(value, tag, 2) else 0,
    ][op.variant % 5]


def _filter(op: Op) -> Callable[[Any], Any]:
    tag = op.tag
    return [
        lambda value: _draw(value, tag, 2) == 0,
        lambda value: _draw(value, tag, 4),
        lambda value: "yes" if _draw(value, tag, 3) else "",
        lambda value: None,
        lambda value: [value],
    ][op.variant % 5]


def _flatmap(op: Op) -> Callable[[Any], Any]:
    tag = op.tag

    def outputs(value: Any) -> list[Any]:
        return [value if not number else (number, value) for number in range(_draw(value, tag, 4))]

    def generated(value: Any) -> Any:
        yield from outputs(value)

    return [outputs, generated, lambda value: tuple(outputs(value)), lambda value: [value], lambda value: []][
        op.variant % 5
    ]


KEYS: tuple[Hashable, ...] = (None, 0, "", -7, "a", (1, ("b", None)), 2.5, b"x", "ключ")


def _key(op: Op) -> Callable[[Any], Hashable]:
    tag, variant = op.tag, op.variant % 3
    return [
        lambda value: KEYS[_draw(value, tag, len(KEYS))],
        lambda value: KEYS[_draw(value, tag, 2)],
        lambda value: ("k", repr(value)),
    ][variant]


def _first(so_far: Any, value: Any) -> Any:
    return so_far


def _trail(so_far: Any, value: Any) -> Any:
    return ("r", repr(so_far)[-20:], value)


class _Failing:
    """Raises for some items, for ever or once each; shared by all replicas, so the calls of all of them count."""

    def __init__(self, op: Op) -> None:
        self._op = op
        self._lock = threading.Lock()
        self._seen: set[str] = set()

    def __call__(self, value: Any) -> None:
        op = self._op
        if not op.fails or _draw(value, op.tag + 1000, 5):
            return
        if op.fails == 2:
            with self._lock:
                if repr(value) in self._seen:
                    return
                self._seen.add(repr(value))
        raise ValueError(f"no {value!r}")


# -- building -------------------------------------------------------------------------------------------------


def build(
    pipeline: Pipeline, env: LocalEnvironment, kind: ExecutionKind, taken: dict[str, list[Any]], *, sleep: bool = True
) -> None:
    """Declare the pipeline; sinks append to `taken` by their name.

    Args:
        kind: what its `awaits` operators become.
        sleep: False leaves out the waiting, for the reference.
    """
    streams: list[DataStream] = []
    for position, op in enumerate(pipeline.ops):
        name = _name(position, op)
        if op.kind == "source":
            items: Any = list(op.items)
            streams.append(env.from_collection(items, parallelism=op.parallelism, name=name))
            continue
        stream = streams[op.inputs[0]]
        if len(op.inputs) > 1:
            stream = stream.union(*(streams[upstream] for upstream in op.inputs[1:]))
        streams.append(_add(stream, op, name, kind, taken, sleep))


def _add(
    stream: DataStream, op: Op, name: str, kind: ExecutionKind, taken: dict[str, list[Any]], sleep: bool
) -> DataStream:
    failing = _Failing(op)
    errors = ErrorPolicy(retries=op.retries, delay_s=0.0005 if sleep else 0.0, jitter=0.5)
    awaits = op.awaits and kind.name != "thread"
    contract = (
        kind.contract(concurrency=op.concurrency, queue_capacity=op.capacity, errors=errors)
        if awaits
        else Contract(io=IOSpec(queue_capacity=op.capacity, errors=errors))
    )

    def operator(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def guarded(value: Any) -> Any:
            failing(value)
            return function(value)

        if not awaits:
            if not (op.sleeps and sleep):
                return guarded

            def slow(value: Any) -> Any:
                if not _draw(value, op.tag + 5, 4):
                    time.sleep(0.0003)
                return guarded(value)

            return slow

        async def awaited(value: Any) -> Any:
            if op.sleeps and sleep:
                await asyncio.sleep(_draw(value, op.tag + 5, 4) * 0.0005)
            return guarded(value)

        return awaited

    common: dict[str, Any] = {"name": name, "parallelism": op.parallelism, "contract": contract}
    match op.kind:
        case "map":
            return stream.map(operator(_map(op)), **common)
        case "filter":
            return stream.filter(operator(_filter(op)), **common)
        case "flatmap":
            return stream.flatmap(operator(_flatmap(op)), **common)
        case "key_by":
            return stream.key_by(_key(op), name=name)
        case "reduce":
            assert isinstance(stream, KeyedStream)
            function = _first if op.variant == 0 else _trail
            return stream.reduce(function, emit=op.emit, **common)
        case "aggregate":
            assert isinstance(stream, KeyedStream)

            def count(number: int, value: Any) -> int:
                failing(value)
                return number + 1

            def last(values: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
                failing(value)
                return (*values[-2:], value)

            if op.variant == 0:
                return stream.aggregate(0, count, emit=op.emit, **common)
            return stream.aggregate(tuple, last, result=lambda values: values[::-1], emit=op.emit, **common)
    items = taken.setdefault(name, [])
    stream.sink(operator(items.append), **common)
    return stream


# -- drawing --------------------------------------------------------------------------------------------------

VALUES = st.one_of(
    st.sampled_from([None, 0, "", -1, False, (), "a"]),
    st.integers(-50, 50),
    st.text(alphabet="ab\x00é", max_size=3),
    st.tuples(st.integers(-3, 3), st.none()),
)
CAPACITIES = st.one_of(st.none(), st.integers(1, 8))


@dataclass(frozen=True)
class _Stream:
    size: int
    keyed: bool
    order: Order
    depth: int


@st.composite
def pipelines(draw: st.DrawFn, *, items_max: int = 60, steps_max: int = 9, failing: bool = True) -> Pipeline:
    """Pipelines of 1 to 3 sources, up to `steps_max` operators between, and a sink on every end."""
    ops: list[Op] = []
    streams: list[_Stream] = []
    for _ in range(draw(st.integers(1, 3))):
        items = tuple(draw(st.lists(VALUES, max_size=items_max)))
        parallelism = draw(st.sampled_from([1, 1, 2, 3]))
        ops.append(Op("source", items=items, parallelism=parallelism))
        streams.append(_Stream(len(items), False, Order.ALL if parallelism == 1 else Order.NONE, 0))
    for _ in range(draw(st.integers(0, steps_max))):
        op, stream = _step(draw, streams, failing)
        ops.append(op)
        streams.append(stream)
    used = {upstream for op in ops for upstream in op.inputs}
    for position in range(len(ops)):
        if position not in used or draw(st.integers(0, 9)) == 9:
            ops.append(_facts(draw, Op("sink", inputs=(position,), tag=len(ops)), failing))
    return Pipeline(tuple(ops), fusion=draw(st.booleans()), queue_capacity=draw(CAPACITIES))


def _facts(draw: st.DrawFn, op: Op, failing: bool) -> Op:
    fails = draw(st.sampled_from([0, 0, 0, 1, 2])) if failing and op.kind not in ("key_by", "reduce") else 0
    retries = draw(st.integers(1 if fails == 2 else 0, 2)) if fails else 0
    folds = op.kind in ("reduce", "aggregate")
    awaits = not folds and op.kind != "key_by" and draw(st.booleans())
    return Op(
        op.kind,
        op.inputs,
        tag=op.tag,
        variant=op.variant,
        emit=op.emit,
        parallelism=1 if op.kind == "key_by" else draw(st.sampled_from([1, 1, 2, 3, 4])),
        capacity=None if op.kind == "key_by" else draw(st.one_of(st.none(), st.none(), CAPACITIES)),
        awaits=awaits,
        sleeps=draw(st.booleans()) and draw(st.booleans()),
        concurrency=draw(st.integers(1, 8)) if awaits else 1,
        fails=fails,
        retries=retries,
    )


def _step(draw: st.DrawFn, streams: list[_Stream], failing: bool) -> tuple[Op, _Stream]:
    open_ends = [number for number, stream in enumerate(streams) if stream.depth < 7]
    # Mostly the newest stream goes on, so that long chains come about; now and then an old one gets one more
    # consumer.
    number = open_ends[-1] if draw(st.integers(0, 2)) else draw(st.sampled_from(open_ends))
    inputs, stream = (number,), streams[number]
    other = streams[draw(st.sampled_from(open_ends))]
    if draw(st.integers(0, 4)) == 4 and stream.size + other.size <= ITEMS_MAX:
        inputs = (number, streams.index(other))
        depth = max(stream.depth, other.depth)
        stream = _Stream(stream.size + other.size, False, Order.NONE, depth)
    kinds = ["map", "filter", "key_by"]
    if stream.size * 3 <= ITEMS_MAX:
        kinds.append("flatmap")
    if stream.keyed:
        kinds += ["reduce", "aggregate"] * 3
    kind = draw(st.sampled_from(kinds))
    variant, emit = draw(st.integers(0, 4)), "each"
    if kind in ("reduce", "aggregate"):
        emit = draw(st.sampled_from(["each", "final"]))
        variant = 1 if stream.order >= Order.KEY and variant else 0
        if kind == "reduce" and stream.order < Order.KEY:
            kind = "aggregate"
    op = _facts(draw, Op(kind, inputs, tag=len(streams), variant=variant, emit=emit), failing)
    return op, _after(op, stream)


def _after(op: Op, stream: _Stream) -> _Stream:
    size = stream.size * 3 if op.kind == "flatmap" else stream.size
    order = stream.order
    if op.kind == "key_by":
        return _Stream(size, True, Order.KEY if order is Order.ALL else Order.NONE, stream.depth + 1)
    if stream.keyed:
        # What is emitted at the end comes key by key; each key's own order stays.
        order = Order.KEY if order else Order.NONE
    elif op.parallelism > 1 or (op.awaits and op.concurrency > 1):
        order = Order.NONE
    return _Stream(size, stream.keyed, order, stream.depth + 1)
