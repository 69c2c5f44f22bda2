"""Random pipelines: pure specifications that hypothesis draws and shrinks, and how one is built with the DSL.

Every function is a pure function of its item (and of the operator's tag), so that the same specification can be
built once for the runtime and once for the reference. Where the order of items is not determined, only folds are
drawn whose emissions do not depend on it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
import zlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from drawn import Op, Order, Pipeline, describe, op_name
from executions import ExecutionKind
from hypothesis import strategies as st

from sage.kernel.api import (
    Batching,
    Contract,
    DataStream,
    ErrorPolicy,
    Execution,
    IOSpec,
    KeyedStream,
    LocalEnvironment,
    MapFunction,
)

__all__ = ["Op", "Order", "Pipeline", "build", "describe", "pipelines"]

ITEMS_MAX = 400


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


BRANCHES = {"split": ("a", "b", "rest"), "sided": ("", "side")}
"""The branches of what these kinds put out."""

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


def _append(values: list[Any], value: Any) -> list[Any]:
    values.append(value)
    return values


class _Failing:
    """Raises for some items, for ever or once each; shared by all replicas, so the calls of all of them count.

    What has been seen is kept in files where replicas are in processes of their own.
    """

    def __init__(self, op: Op, shared: Path | None) -> None:
        self._op = op
        self._shared = shared
        self._seen: dict[str, object] = {}

    def __call__(self, value: Any) -> None:
        op = self._op
        if not op.fails or _draw(value, op.tag + 1000, 5):
            return
        if op.fails == 2 and self._seen_before(repr(value)):
            return
        raise ValueError(f"no {value!r}")

    def _seen_before(self, text: str) -> bool:
        if self._shared is None:
            # One step of the interpreter: no lock is needed, which could not be sent to a process.
            mine = object()
            return self._seen.setdefault(text, mine) is not mine
        name = f"{self._op.kind}-{self._op.tag}-{hashlib.sha1(text.encode()).hexdigest()}"
        try:
            os.close(os.open(self._shared / name, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return True
        return False


# -- building -------------------------------------------------------------------------------------------------


def build(
    pipeline: Pipeline, env: LocalEnvironment, kind: ExecutionKind, taken: dict[str, list[Any]], *, sleep: bool = True
) -> None:
    """Declare the pipeline; sinks append to `taken` by their name.

    Args:
        kind: what its `awaits` operators become.
        sleep: False leaves out the waiting, for the reference.
    """
    streams: dict[tuple[int, str], DataStream] = {}
    for position, op in enumerate(pipeline.ops):
        name = op_name(position, op)
        if op.kind == "source":
            items: Any = list(op.items)
            streams[position, ""] = env.from_collection(items, parallelism=op.parallelism, name=name)
            continue
        stream, *others = (streams[end] for end in zip(op.inputs, op.branches, strict=True))
        if others and op.kind not in ("comap", "join", "interleave"):
            stream = stream.union(*others)
        if op.routing:
            stream = stream.broadcast() if op.routing == "broadcast" else stream.rebalance()
        made = _add(stream, others, op, name, kind, taken, sleep)
        streams |= {(position, branch): behind for branch, behind in made.items()}


def _operator(
    op: Op, failing: Callable[[Any], None], awaits: bool, sleep: bool
) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    """What makes an operator out of a function: it fails and sleeps as was drawn."""

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

    return operator


def _add(
    stream: DataStream,
    others: list[DataStream],
    op: Op,
    name: str,
    kind: ExecutionKind,
    taken: dict[str, list[Any]],
    sleep: bool,
) -> dict[str, DataStream]:
    """Declare an operator; the streams behind it by branch, "" being the main one."""
    failing = _Failing(op, kind.shared)
    errors = ErrorPolicy(retries=op.retries, delay_s=0.0005 if sleep else 0.0, jitter=0.5)
    awaits = op.awaits and kind.name != "thread"
    if in_process := kind.execution is Execution.PROCESS:
        # What a sink takes must come back to this process; folds, which never await, may go to theirs.
        awaits = op.kind != "sink" and (op.awaits or (op.kind in ("reduce", "aggregate") and op.tag % 2 == 1))
    lined = kind.lined and op.kind in ("map", "filter")
    contract = (
        kind.contract(concurrency=op.concurrency, queue_capacity=op.capacity, errors=errors)
        if awaits or lined
        else Contract(io=IOSpec(queue_capacity=op.capacity, errors=errors))
    )

    operator = _operator(op, failing, awaits and not in_process, sleep)
    common: dict[str, Any] = {"name": name, "parallelism": op.parallelism, "contract": contract}
    if lined:
        return {"": _line(stream, op, kind, common, sleep)}
    match op.kind:
        case "map":
            return {"": stream.map(operator(_map(op)), **common)}
        case "filter":
            return {"": stream.filter(operator(_filter(op)), **common)}
        case "flatmap":
            return {"": stream.flatmap(operator(_flatmap(op)), **common)}
        case "batch":
            return {"": _batch(stream, op, name)}
        case "batched":
            return {
                "": stream.map(
                    _batched(op, failing, awaits and kind.name == "async", sleep), **_batched_facts(op, common)
                )
            }
        case "key_by":
            return {"": stream.key_by(_key(op), name=name)}
        case "comap" | "join":
            return {"": _two_streams(stream, others[0], op, operator, common)}
        case "interleave":
            facts = {fact: given for fact, given in common.items() if fact != "parallelism"}
            return {"": stream.interleave(*others, ahead=1 + op.variant, **facts)}
        case "ordered":
            return {"": stream.ordered(max_ahead=(1, 2, 5, 50, 10_000)[op.variant], name=name)}
        case "distinct":
            return {"": stream.distinct(lambda value: (failing(value), repr(value))[1], **common)}
        case "split":
            return _split(stream, op, operator, common, awaits and kind.is_async)
        case "sided":
            sided = stream.map(_sided(op, failing, awaits and kind.is_async), **common)
            return {"": sided, "side": sided.side_output("side")}
        case "loop":
            return {"": _loop(stream, op, name, operator, common)}
        case "reduce":
            assert isinstance(stream, KeyedStream)
            function = _first if op.variant == 0 else _trail
            return {"": stream.reduce(function, emit=op.emit, **common)}
        case "aggregate":
            assert isinstance(stream, KeyedStream)
            return {"": _aggregate(stream, op, failing, common)}
    items = taken.setdefault(name, [])
    stream.sink(operator(items.append), **common, ordered=op.in_order)
    return {}


def _line(stream: DataStream, op: Op, kind: ExecutionKind, common: dict[str, Any], sleep: bool) -> DataStream:
    """The operator and one or two behind it, each in a process that passes on to the next."""
    given = common["contract"].io
    behind = replace(common["contract"], io=replace(given, queue_capacity=None))
    kinds = [op.kind, "filter" if op.tag % 2 else "map", "filter" if op.tag % 3 else "map"]
    for number, what in enumerate(kinds[: 2 + op.tag % 2]):
        mine = replace(op, tag=op.tag + 200 * number, variant=op.variant if not number else 4 - op.tag % 2 * 2)
        operator = _operator(mine, _Failing(mine, kind.shared), awaits=False, sleep=sleep)
        facts = common if not number else {**common, "name": f"{common['name']} {number}", "contract": behind}
        make = stream.map if what == "map" else stream.filter
        stream = make(operator((_map if what == "map" else _filter)(mine)), **facts)
    return stream


def _aggregate(stream: KeyedStream, op: Op, failing: Callable[[Any], None], common: dict[str, Any]) -> KeyedStream:
    def count(number: int, value: Any) -> int:
        failing(value)
        return number + 1

    def last(values: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
        failing(value)
        return (*values[-2:], value)

    def shown(values: list[Any]) -> str:
        failing(values)
        return repr(values)[-20:]

    if op.variant == 0:
        return stream.aggregate(0, count, emit=op.emit, **common)
    if op.variant == 2:
        return stream.aggregate(list, _append, result=shown, emit=op.emit, **common)
    return stream.aggregate(tuple, last, result=lambda values: values[::-1], emit=op.emit, **common)


def _two_streams(
    stream: DataStream, other: DataStream, op: Op, operator: Callable[..., Any], common: dict[str, Any]
) -> DataStream:
    if op.kind == "comap":
        second = _map(replace(op, tag=op.tag + 50, variant=op.variant + 1))
        return stream.connect(other).comap(operator(_map(op)), operator(second), **common)
    assert isinstance(stream, KeyedStream)
    kind = "left" if op.variant % 2 else "inner"
    return stream.join(other, _pair if op.variant else None, kind=kind, **common)


def _loop(stream: DataStream, op: Op, name: str, operator: Callable[..., Any], common: dict[str, Any]) -> DataStream:
    """Items go round one to three times, in a body of some operators; an item is (rounds to go, what it carries)."""
    env = stream._env
    assert isinstance(env, LocalEnvironment)
    again = env.from_future(f"{name} again")
    facts = {**common, "name": f"{name} step"}
    function, tag, shape = _map(replace(op, variant=op.tag)), op.tag, op.variant % 5
    step = operator(lambda item: (item[0] - 1, function(item[1])))
    body: DataStream = stream.map(lambda value: (1 + _draw(value, tag, 3), value), name=f"{name} in").union(again)
    match shape:
        case 1:  # items are lost on the way
            body = body.filter(lambda item: _draw(item, tag, 3) > 0, name=f"{name} some").map(step, **facts)
        case 2:  # items become more
            outputs = operator(lambda item: [(item[0] - 1, (n, item[1])) for n in range(_draw(item, tag, 3))])
            body = body.flatmap(outputs, **facts)
        case 3:  # by key
            keys = body.key_by(lambda item: ("k", repr(item[1])), name=f"{name} key")
            body = keys.map(step, **facts).distinct(repr, name=f"{name} new")
        case 4:  # two ways, of which one has a loop of its own
            parts = body.split({"a": lambda item: _draw(item, tag, 2) == 0}, name=f"{name} split")
            inner = env.from_future(f"{name} inner")
            begun = parts["rest"].map(lambda item: (0, item)).union(inner)
            longer = begun.map(lambda pair: (pair[0] + 1, pair[1]), name=f"{name} longer")
            inner.fill(longer.filter(lambda pair: pair[0] < 2), max_in_flight=1 + tag % 3)
            unwrapped = longer.filter(lambda pair: pair[0] >= 2).map(lambda pair: pair[1])
            body = parts["a"].union(unwrapped).map(step, **facts)
        case _:
            body = body.map(step, **facts)
    bound = 10**6 if shape == 2 else (1, 2, 7, 1000)[tag % 4]
    again.fill(body.filter(lambda item: item[0] > 0, name=f"{name} more"), max_in_flight=bound)
    return body.filter(lambda item: item[0] <= 0).map(lambda item: item[1], name=f"{name} out").union()


def _batch(stream: DataStream, op: Op, name: str) -> DataStream:
    """Lists, where it is determined which items share one; else what was in the lists."""
    size = 1 + op.tag % 5
    if not op.variant:
        return stream.batch(size, parallelism=op.parallelism, name=name)
    waits = [None, 0.0, 0.002, 30.0][op.variant % 4]
    lists = stream.batch(size, waits, parallelism=op.parallelism, name=name)
    return lists.flatmap(lambda some: some, parallelism=op.parallelism, name=f"{name} items")


def _batched(op: Op, failing: Callable[[Any], None], awaits: bool, sleep: bool) -> Callable[[list[Any]], Any]:
    function = _map(op)

    def each(values: list[Any]) -> list[Any]:
        for value in values:
            failing(value)
        return [function(value) for value in values]

    async def awaited(values: list[Any]) -> list[Any]:
        await asyncio.sleep(_draw(values, op.tag + 5, 3) * 0.0003 if op.sleeps and sleep else 0)
        return each(values)

    return awaited if awaits else each


def _batched_facts(op: Op, common: dict[str, Any]) -> dict[str, Any]:
    return {**common, "batch": Batching(size=1 + op.tag % 6, max_wait_s=[None, 0.0, 0.002][op.tag % 3])}


def _pair(left: Any, right: Any) -> Any:
    return ("pair", repr(left)[-10:], repr(right)[-10:])


def _split(
    stream: DataStream, op: Op, operator: Callable[..., Any], common: dict[str, Any], awaits: bool
) -> dict[str, DataStream]:
    tag = op.tag
    if awaits or op.variant % 2:
        chosen = operator(lambda value: ["a", "b", "c", None][_draw(value, tag, 4)])
        parts = stream.split(chosen, into=["a", "b"], **common)
    else:
        first = operator(lambda value: _draw(value, tag, 3) == 0)
        parts = stream.split({"a": first, "b": lambda value: _draw(value, tag, 3) == 1}, **common)
    return {name: parts[name] for name in BRANCHES["split"]}


def _sided(op: Op, failing: Callable[[Any], None], awaits: bool) -> type[MapFunction[Any, Any]]:
    """A map with side outputs: it puts them out before it raises."""

    def aside(value: Any) -> list[tuple[str, Any]]:
        return [("side", (number, value)) for number in range(_draw(value, op.tag, 3))]

    class Sided(MapFunction[Any, Any]):
        @staticmethod
        def meaning(value: Any) -> tuple[Any, list[tuple[str, Any]]]:
            failing(value)
            return _map(op)(value), aside(value)

        def execute(self, item: Any) -> Any:
            for branch, put in aside(item):
                self.ctx.side_output(branch, put)
            return self.meaning(item)[0]

    class AsyncSided(Sided):
        async def execute(self, item: Any) -> Any:
            await asyncio.sleep(0)
            return super().execute(item)

    return AsyncSided if awaits else Sided


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
    op: int
    branch: str
    size: int
    keyed: bool
    order: Order
    depth: int
    placed: bool = True
    """Where each item belongs in the order of its source is determined."""
    lists: bool = False
    """It has been through an operator that keeps items, behind which nothing can be put into order."""


@st.composite
def pipelines(draw: st.DrawFn, *, items_max: int = 60, steps_max: int = 9, failing: bool = True) -> Pipeline:
    """Pipelines of 1 to 3 sources, up to `steps_max` operators between, and a sink on every end."""
    ops: list[Op] = []
    streams: list[_Stream] = []
    for _ in range(draw(st.integers(1, 3))):
        items = tuple(draw(st.lists(VALUES, max_size=items_max)))
        parallelism = draw(st.sampled_from([1, 1, 2, 3]))
        ops.append(Op("source", items=items, parallelism=parallelism))
        streams.append(_Stream(len(ops) - 1, "", len(items), False, Order.ALL if parallelism == 1 else Order.NONE, 0))
    for _ in range(draw(st.integers(0, steps_max))):
        op, stream = _step(draw, streams, len(ops), failing)
        ops.append(op)
        streams += [replace(stream, branch=branch) for branch in BRANCHES.get(op.kind, ("",))]
    used = {end for op in ops for end in zip(op.inputs, op.branches, strict=True)}
    for stream in streams:
        # The branch "b" may go nowhere: its items are dropped then.
        if ((stream.op, stream.branch) not in used and stream.branch != "b") or draw(st.integers(0, 9)) == 9:
            sink = Op("sink", inputs=(stream.op,), branches=(stream.branch,), tag=len(ops))
            sink = _facts(draw, sink, failing, stream.keyed)
            if stream.placed and not stream.lists and draw(st.booleans()):
                sink = replace(sink, parallelism=1, in_order=True)
            ops.append(sink)
    return Pipeline(tuple(ops), fusion=draw(st.booleans()), queue_capacity=draw(CAPACITIES))


def _facts(draw: st.DrawFn, op: Op, failing: bool, keyed: bool) -> Op:
    fails = (
        draw(st.sampled_from([0, 0, 0, 1, 2]))
        if failing and op.kind not in ("key_by", "reduce", "join", "interleave", "ordered", "batch")
        else 0
    )
    # An item that shares its list with another one that fails is tried more often than it would be by itself; and the
    # reference goes through a loop more often than once.
    fails = min(fails, 1) if op.kind in ("batched", "loop") else fails
    retries = draw(st.integers(1 if fails == 2 else 0, 2)) if fails else 0
    plain = op.kind in ("reduce", "aggregate", "key_by", "join", "interleave", "distinct", "ordered", "batch")
    awaits = not plain and draw(st.booleans())
    single = op.kind in ("key_by", "interleave", "ordered") or (not keyed and _is_single(op))
    return Op(
        op.kind,
        op.inputs,
        op.branches,
        op.routing,
        tag=op.tag,
        variant=op.variant,
        emit=op.emit,
        parallelism=1 if single else draw(st.sampled_from([1, 1, 2, 3, 4])),
        capacity=None if op.kind in ("key_by", "ordered") else draw(st.one_of(st.none(), st.none(), CAPACITIES)),
        awaits=awaits,
        sleeps=draw(st.booleans()) and draw(st.booleans()),
        concurrency=draw(st.integers(1, 8)) if awaits else 1,
        fails=fails,
        retries=retries,
    )


def _is_single(op: Op) -> bool:
    """Whether there can be one replica only, where there are no keys."""
    return op.kind == "distinct" or (op.kind == "batch" and not op.variant)


def _step(draw: st.DrawFn, streams: list[_Stream], position: int, failing: bool) -> tuple[Op, _Stream]:
    open_ends = [stream for stream in streams if stream.depth < 7]
    # Mostly the newest stream goes on, so that long chains come about; now and then an old one gets one more
    # consumer.
    stream = open_ends[-1] if draw(st.integers(0, 2)) else draw(st.sampled_from(open_ends))
    taken, other = [stream], draw(st.sampled_from(open_ends))
    kind = ""
    if draw(st.integers(0, 2)) == 2 and stream.size + other.size <= ITEMS_MAX:
        taken.append(other)
        kind = draw(st.sampled_from(["", "comap", "join", "interleave"]))
        if kind == "join" and not (stream.keyed and other.keyed and stream.size * other.size <= ITEMS_MAX):
            kind = "comap"
        if kind == "comap" and stream.keyed is not other.keyed:
            kind = ""
        size = stream.size * max(1, other.size) if kind == "join" else stream.size + other.size
        keyed = stream.keyed and kind not in ("", "interleave")
        placed = stream.placed and other.placed and kind not in ("join", "interleave")
        lists = stream.lists or other.lists or kind == "interleave"
        stream = _Stream(position, "", size, keyed, Order.NONE, max(stream.depth, other.depth), placed, lists)
    if not kind and not stream.lists and draw(st.integers(0, 5)) == 5:
        kind = "ordered"
    kinds = ["map", "filter", "key_by", "split", "sided", "distinct", "batch", "batched"]
    if stream.size * 3 <= ITEMS_MAX:
        kinds.append("flatmap")
    if stream.size * 8 <= ITEMS_MAX:
        kinds.append("loop")
    if stream.keyed:
        kinds += ["reduce", "aggregate"] * 3
    kind = kind or draw(st.sampled_from(kinds))
    variant, emit = draw(st.integers(0, 4)), "each"
    if kind in ("reduce", "aggregate"):
        emit = draw(st.sampled_from(["each", "final"]))
        variant = 1 + variant % 2 if stream.order >= Order.KEY and variant else 0
        if kind == "reduce" and stream.order < Order.KEY:
            kind = "aggregate"
    if kind == "batch" and stream.order < (Order.KEY if stream.keyed else Order.ALL):
        variant = max(1, variant)
    routing = ""
    if (
        kind not in ("batch", "loop", "key_by", "comap", "join", "interleave", "distinct", "reduce", "aggregate")
        and kind != "ordered"
        and draw(st.integers(0, 3)) == 3
    ):
        routing = draw(st.sampled_from(["rebalance", "broadcast"] if stream.size * 4 <= ITEMS_MAX else ["rebalance"]))
        stream = replace(stream, keyed=False)
    inputs, branches = tuple(end.op for end in taken), tuple(end.branch for end in taken)
    drawn = Op(kind, inputs, branches, routing, tag=position, variant=variant, emit=emit)
    op = _facts(draw, drawn, failing, stream.keyed)
    return op, replace(_after(op, stream), op=position)


def _after(op: Op, stream: _Stream) -> _Stream:
    size = stream.size * 3 if op.kind in ("flatmap", "sided") else stream.size
    size *= op.parallelism if op.routing == "broadcast" else 1
    order = stream.order
    if op.kind == "loop":
        return _Stream(stream.op, "", stream.size * 8, False, Order.NONE, stream.depth + 1, placed=False, lists=True)
    needed = Order.KEY if stream.keyed else Order.ALL
    if order < needed and (op.kind == "distinct" or (op.kind in ("reduce", "aggregate") and op.emit == "each")):
        # Which item passes, or what has been folded by then, depends on who comes first.
        stream = replace(stream, placed=False)
    if op.kind == "batch" or (op.kind == "batched" and op.tag % 3 == 0):
        # The lists of the latter wait until they are full.
        stream = replace(stream, lists=True)
    if op.kind == "ordered":
        return replace(stream, order=Order.ALL if stream.placed else Order.NONE, depth=stream.depth + 1)
    if op.kind == "key_by":
        order = Order.KEY if order is Order.ALL else Order.NONE
        return replace(stream, size=size, keyed=True, order=order, depth=stream.depth + 1)
    if stream.keyed:
        # What is emitted at the end comes key by key; each key's own order stays.
        order = Order.KEY if order else Order.NONE
    elif op.parallelism > 1 or (op.awaits and op.concurrency > 1):
        order = Order.NONE
    return replace(stream, size=size, order=order, depth=stream.depth + 1)
