"""A short measurement before a run: what an item costs each operator, on the first items of the real sources.

Operators are called here once more than in the run, so only those are that keep nothing between items as far as can be
seen: plain functions, and classes, which are made anew. Behind an operator that is not called there are no items to
measure the next one with.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import functools
import inspect
import threading
import time
import types
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

from sage.kernel.compiler import Measurement
from sage.kernel.graph import BaseTransformation, LogicalGraph, OperatorKind, StateKind
from sage.kernel.operators import (
    BadRecord,
    BoundOperator,
    Function,
    FunctionFactory,
    IterableSource,
    OperatorContext,
    OperatorSpec,
    SourceFunction,
)

from .lock_watch import LockWatch

__all__ = ["ITEMS_MAX", "OPERATOR_S", "TOTAL_S", "calibrate"]

ITEMS_MAX: Final = 64
"""Most items that an operator is called with."""
OPERATOR_S: Final = 0.2
"""Seconds for one operator; the item that is being worked on then is waited for."""
TOTAL_S: Final = 1.0
"""Seconds for all of them."""

_MEASURED = frozenset({OperatorKind.MAP, OperatorKind.FILTER, OperatorKind.FLATMAP})


class _NotMeasuredError(Exception):
    """Why an operator is left as declared."""


def calibrate(graph: LogicalGraph) -> dict[str, Measurement]:
    """Measure each operator, or say why not; one that raises is such a reason. The user's code runs on a thread of its
    own, as in a job.

    Example:
        >>> from sage.kernel.api import LocalEnvironment
        >>> env = LocalEnvironment("demo")
        >>> _ = env.from_collection([3, 1], name="numbers").map(abs).sink(print, name="end")
        >>> measured = calibrate(env.graph)
        >>> measured["abs"].items, measured["end"].reason
        (1, 'it is a sink, what it does outside would be done twice')
    """
    found: dict[str, Measurement] = {}
    context = contextvars.copy_context()
    # A daemon: whoever interrupts the measurement need not wait for an operator that hangs.
    thread = threading.Thread(
        target=context.run, args=(_Calibration(graph, found).run,), name="sage-calibration", daemon=True
    )
    thread.start()
    thread.join()
    return found


class _Calibration:
    def __init__(self, graph: LogicalGraph, found: dict[str, Measurement]) -> None:
        self._graph = graph
        self._found = found
        self._samples: dict[str, list[Any]] = {}
        self._end = time.perf_counter() + TOTAL_S

    def run(self) -> None:
        """Measure in the order of the stream; sources give the items."""
        for operator in self._graph.transformations:
            try:
                self._found[operator.name] = self._measure(operator)
            except _NotMeasuredError as reason:
                self._found[operator.name] = Measurement(reason=str(reason))
            except (Exception, SystemExit) as error:  # user code raises whatever it likes: the run will tell of it
                self._found[operator.name] = Measurement(reason=f"it raised {type(error).__name__}: {error}")

    def _measure(self, operator: BaseTransformation) -> Measurement:
        factory = operator.factory
        assert isinstance(factory, FunctionFactory)
        if operator.kind is OperatorKind.SOURCE:
            self._samples[operator.name] = _first_items(operator, factory, self._limit())
            raise _NotMeasuredError(
                f"it is a source, its first {len(self._samples[operator.name])} item(s) are the sample"
            )
        obstacle = _obstacle(operator, factory)
        if obstacle:
            raise _NotMeasuredError(obstacle)
        items = self._inputs(operator)
        context = OperatorContext(operator.name, job=self._graph.name, concurrent=factory.is_async)
        bound = factory.create(0, 1)
        sampler = _Sampler(operator, bound, self._limit())
        if bound.function is None:
            measured = sampler.run(items)
        else:
            bound.function.attach(context)
            try:
                bound.function.setup()
                try:
                    sampler.end = self._limit()
                    measured = sampler.run(items)
                finally:
                    bound.function.teardown()
            finally:
                bound.function.detach()
        self._samples[operator.name] = sampler.outputs
        return measured

    def _limit(self) -> float:
        now = time.perf_counter()
        if now >= self._end:
            raise _NotMeasuredError(f"the {TOTAL_S:g} s for measuring were used up before it")
        return min(self._end, now + OPERATOR_S)

    def _inputs(self, operator: BaseTransformation) -> list[Any]:
        items: list[Any] = []
        for index, name in enumerate(operator.inputs):
            if operator.branch(index) is not None:
                raise _NotMeasuredError(f"its items come from a branch of {name!r}, which is not called here")
            if name not in self._samples:
                raise _NotMeasuredError(f"{name!r} before it was not called, so there is no item for it")
            items += self._samples[name]
        if not items:
            raise _NotMeasuredError("none of the first items comes to it")
        return items[:ITEMS_MAX]


def _obstacle(operator: BaseTransformation, factory: FunctionFactory) -> str:
    """Why an operator must not be called on a sample, "" where it may."""
    target = factory.target
    if operator.kind is OperatorKind.SINK:
        return "it is a sink, what it does outside would be done twice"
    if operator.kind not in _MEASURED or isinstance(target, OperatorSpec):
        return f"it is a {operator.options.get('shape') or operator.kind}, which is more than a function of an item"
    if operator.keyed_input:
        return "its items have keys, by which it may keep state"
    if operator.contract.state.kind is StateKind.STATEFUL or operator.contract.state.keyed:
        return "it is stateful"
    if operator.contract.services:
        return "it calls services, which run only in a job"
    if operator.contract.io.batching is not None:
        return "it takes lists of items"
    if inspect.isasyncgenfunction(factory.entry):
        return "it is an async generator"
    while isinstance(target, functools.partial):
        target = target.func
    owner = getattr(target, "__self__", None)
    if isinstance(target, Function) or not (inspect.isroutine(target) or isinstance(target, type)):
        return "it is an instance, which may keep something: pass a class or a function to have it measured"
    if owner is not None and not isinstance(owner, (types.ModuleType, type)):
        return "it is a method of an instance, which may keep something"
    return ""


def _first_items(operator: BaseTransformation, factory: FunctionFactory, end: float) -> list[Any]:
    """Copies of the first items of a source that can be read twice; operators may change what they are given."""
    target = factory.target
    if isinstance(target, IterableSource):
        if isinstance(target.iterable, Iterator) or not isinstance(target.iterable, Collection):
            raise _NotMeasuredError(f"its {type(target.iterable).__name__} may give its items only once")
        return copy.deepcopy(list(islice(target.iterable, ITEMS_MAX)))
    if not factory.is_method:
        raise _NotMeasuredError("a generator function or an instance as a source may take its items from where they go")
    if operator.options.get("blocking", True) or factory.is_async:
        raise _NotMeasuredError("it may wait for something outside (blocking)")
    source = factory.create(0, 1).function
    assert isinstance(source, SourceFunction)
    source.attach(OperatorContext(operator.name))
    try:
        source.setup()
        try:
            return _read(source, end)
        finally:
            source.teardown()
    finally:
        source.detach()


def _read(source: SourceFunction[Any], end: float) -> list[Any]:
    items: list[Any] = []
    rows = iter(source.execute())
    try:
        for row in rows:
            if not isinstance(row, BadRecord):
                items.append(row[0] if source.timed else row)
            if len(items) == ITEMS_MAX or time.perf_counter() >= end:
                break
    finally:
        if isinstance(rows, types.GeneratorType):
            rows.close()
    return items


class _Sampler:
    """Calls one operator with the sample.

    Args:
        operator: it.
        bound: its code.
        end: when to stop, on the clock of `time.perf_counter`.

    Attributes:
        outputs: what it has put out, at most `ITEMS_MAX`.
    """

    def __init__(self, operator: BaseTransformation, bound: BoundOperator, end: float) -> None:
        self._operator = operator
        self._call = bound.call
        self.end = end
        self.outputs: list[Any] = []
        self._errors: list[Exception] = []

    def run(self, items: list[Any]) -> Measurement:
        """What an item takes; the first one, which may load and compile things, counts only when it is alone."""
        if self._operator.factory.is_async:
            with asyncio.Runner() as runner:
                return self._run(items, lambda some: runner.run(self._ask(some)))
        return self._run(items, self._work)

    def _run(self, items: list[Any], work: Callable[[list[Any]], list[Any]]) -> Measurement:
        wall_empty, cpu_empty = _reading_s()
        wall = cpu = 0.0
        timed = size = position = 0
        watch = LockWatch()
        with watch:
            while position < len(items) and (now := time.perf_counter()) < self.end:
                # Growing portions: reading the clocks costs more than calling a cheap function.
                per_item = wall / timed if timed else 0.0
                size = min(max(1, size * 2), 16, len(items) - position)
                size = max(1, min(size, int((self.end - now) / per_item))) if per_item else size
                portion = items[position : position + size]
                queued_before = _queued_s()
                wall_before, cpu_before = time.perf_counter(), time.thread_time()
                results = work(portion)
                cpu_used, wall_used = time.thread_time() - cpu_before, time.perf_counter() - wall_before
                wall_used = max(cpu_used, wall_used - (_queued_s() - queued_before))
                if position == 1:
                    wall, cpu, timed = 0.0, 0.0, 0
                wall += max(0.0, wall_used - wall_empty)
                cpu += max(0.0, cpu_used - cpu_empty)
                timed += size
                position += size
                self._keep(portion, results)
        if not timed:
            raise _NotMeasuredError("there was no time left for it")
        if len(self._errors) == position:
            raise self._errors[0]
        return Measurement(items=timed, wall_s=wall / timed, cpu_s=cpu / timed, releases_lock=watch.released(cpu))

    def _work(self, items: list[Any]) -> list[Any]:
        call, results = self._call, []
        for item in items:
            try:
                result = call(item)
                if self._operator.kind is OperatorKind.FLATMAP:
                    result = self._outputs_of(result)
            except Exception as error:  # the user's code: an item that fails here fails again in the run
                result = error
                self._errors.append(error)
            results.append(result)
        return results

    async def _ask(self, items: list[Any]) -> list[Any]:
        results: list[Any] = []
        for item in items:
            try:
                # A coroutine that never returns could not be left otherwise; on a thread nothing can be done.
                async with asyncio.timeout(TOTAL_S):
                    results.append(await self._call(item))
            except Exception as error:  # as above
                results.append(error)
                self._errors.append(error)
        return results

    def _outputs_of(self, result: Iterable[Any]) -> list[Any]:
        return list(islice(result, self._operator.contract.io.outputs_max))

    def _keep(self, items: list[Any], results: list[Any]) -> None:
        kind = self._operator.kind
        for item, result in zip(items, results, strict=True):
            if any(result is error for error in self._errors):
                continue
            if kind is OperatorKind.MAP:
                self.outputs.append(result)
            elif kind is OperatorKind.FILTER:
                self.outputs += [item] if result else []
            else:
                self.outputs += list(islice(result, ITEMS_MAX - len(self.outputs)))


def _queued_s() -> float:
    """Seconds that this thread has been ready and had no core: on a busy machine, computing must not look like waiting.
    0 where the system does not tell.
    """
    try:
        return int(Path("/proc/thread-self/schedstat").read_bytes().split()[1]) * 1e-9
    except (OSError, IndexError, ValueError):
        return 0.0


def _reading_s() -> tuple[float, float]:
    """What reading the clocks around nothing shows, in wall and processor seconds."""
    wall = cpu = 1.0
    for _ in range(10):
        wall_before, cpu_before = time.perf_counter(), time.thread_time()
        cpu = min(cpu, time.thread_time() - cpu_before)
        wall = min(wall, time.perf_counter() - wall_before)
    return wall, cpu
