"""`calibrate`: what is called on a sample, what is not, and what AUTO makes of the figures."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from sage.kernel.api import (
    Batching,
    Contract,
    Execution,
    FilterFunction,
    IOSpec,
    LocalEnvironment,
    MapFunction,
    PipelineError,
    SourceFunction,
    StateKind,
    StateSpec,
)
from sage.kernel.compiler import CompileOptions, Measurement, compile_graph
from sage.kernel.graph import ExecutionGraph
from sage.kernel.runtime.calibration import ITEMS_MAX, OPERATOR_S, TOTAL_S
from sage.kernel.runtime.lock_watch import LockWatch


def compute(item: int) -> int:
    return sum(number * number for number in range(3000)) * 0 + item


def wait(item: int) -> int:
    time.sleep(0.004)
    return item


def same(item: Any) -> Any:
    return item


async def ask(item: int) -> int:
    await asyncio.sleep(0.004)
    return item


def measured(declare: Callable[[Any], Any], items: Any = range(1000)) -> dict[str, Measurement]:
    env = LocalEnvironment("measured")
    declare(env.from_collection(items, name="numbers")).sink(same, name="end")
    return dict(env.calibrate())


def with_figures(env: LocalEnvironment, **figures: Measurement) -> ExecutionGraph:
    return compile_graph(env.graph, CompileOptions(measured=figures))


def note(graph: ExecutionGraph, compiler_pass: str, subject: str) -> str:
    (text,) = [found.text for found in graph.notes if (found.compiler_pass, found.subject) == (compiler_pass, subject)]
    return text


# -- what is measured


def test_computing_and_waiting_are_told_apart() -> None:
    found = measured(lambda s: s.map(compute).map(wait).map(ask))
    assert found["compute"].items == ITEMS_MAX - 1
    assert found["compute"].cpu_share >= 0.8
    assert found["compute"].cpu_s > 20e-6
    for name in ("wait", "ask"):
        assert found[name].wall_s >= 0.004
        assert found[name].cpu_share < 0.5
        assert 2 <= found[name].items < ITEMS_MAX - 1


def test_the_first_item_which_loads_things_does_not_count() -> None:
    class Lazy(MapFunction[int, int]):
        loaded = False

        def execute(self, item: int) -> int:
            if not self.loaded:
                time.sleep(0.15)
                self.loaded = True
            return item

    assert measured(lambda s: s.map(Lazy))["Lazy"].wall_s < 0.001
    assert measured(lambda s: s.map(Lazy), [1])["Lazy"].wall_s >= 0.15


def test_items_are_seen_once_in_order_and_at_most_so_many() -> None:
    seen: dict[str, list[int]] = {"first": [], "second": [], "third": []}

    def first(item: int) -> int:
        seen["first"].append(item)
        return -item

    def second(item: int) -> bool:
        seen["second"].append(item)
        return item % 2 == 0

    def third(item: int) -> Iterator[int]:
        seen["third"].append(item)
        yield from (item, item)

    last: list[int] = []

    def keep(item: int) -> None:
        last.append(item)

    found = measured(lambda s: s.map(first).filter(second).flatmap(third).map(keep, name="last"))
    assert seen["first"] == list(range(ITEMS_MAX))
    assert seen["second"] == [-n for n in range(ITEMS_MAX)]
    assert seen["third"] == [-n for n in range(0, ITEMS_MAX, 2)]
    assert last == [-n for n in range(0, ITEMS_MAX, 2) for _ in range(2)]
    assert found["last"].items == ITEMS_MAX - 1


def test_nothing_is_called_unless_asked() -> None:
    seen: list[int] = []

    def note_down(item: int) -> None:
        seen.append(item)

    env = LocalEnvironment("quiet")
    env.from_collection([1, 2]).map(note_down).sink(same)
    env.compile()
    assert seen == []
    env.configure(calibrate=True)
    env.compile()
    env.compile()
    assert seen == [1, 2]


def test_the_measurement_is_bounded_in_time() -> None:
    slow = 0.08

    def sleepy(item: int) -> int:
        time.sleep(slow)
        return item

    def declare(stream: Any) -> Any:
        for _ in range(8):
            stream = stream.map(sleepy)
        return stream

    begun = time.perf_counter()
    found = measured(declare)
    assert time.perf_counter() - begun < TOTAL_S + 2 * OPERATOR_S + slow
    assert found["sleepy"].items in (1, 2, 3)
    skipped = [each.reason for each in found.values() if not each.items]
    assert "the 1 s for measuring were used up before it" in skipped
    assert found["sleepy-8"].reason == "'sleepy-7' before it was not called, so there is no item for it"


def test_a_coroutine_that_never_returns_is_left_alone() -> None:
    async def never(item: int) -> int:
        await asyncio.Event().wait()
        return item

    found = measured(lambda s: s.map(never), [1])["never"]
    assert (found.items, found.reason) == (0, "it raised TimeoutError: ")


class Source(SourceFunction[int]):
    """Counts how often it is opened."""

    opened: ClassVar[list[str]] = []
    blocking = False

    def setup(self) -> None:
        self.opened.append("open")

    def execute(self) -> Iterator[int]:
        yield from range(1000)

    def teardown(self) -> None:
        self.opened.append("close")


class Waiting(Source):
    blocking = True


def numbers() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("source", "items", "reason"),
    [
        (Source, 3, ""),
        (Waiting, 0, "it may wait for something outside (blocking)"),
        (numbers, 0, "a generator function or an instance as a source may take its items from where they go"),
        (Source(), 0, "a generator function or an instance as a source may take its items from where they go"),
    ],
)
def test_only_sources_that_can_be_read_twice_give_a_sample(source: Any, items: int, reason: str) -> None:
    Source.opened.clear()
    env = LocalEnvironment("sources")
    env.from_source(source, name="numbers").map(same).sink(same, name="end")
    found = env.calibrate()
    if items:
        assert found["same"].items == ITEMS_MAX - 1
        assert found["numbers"].reason == "it is a source, its first 64 item(s) are the sample"
        assert Source.opened == ["open", "close"]
    else:
        assert found["numbers"].reason == reason
        assert found["same"].reason == "'numbers' before it was not called, so there is no item for it"
        assert Source.opened == []


def test_an_iterator_keeps_all_its_items_for_the_run() -> None:
    env = LocalEnvironment("iterator", {"calibrate": True})
    stream = env.from_collection(iter([1, 2, 3]), name="numbers").map(same)
    assert stream.collect() == [1, 2, 3]
    assert env.calibrate()["numbers"].reason == "its list_iterator may give its items only once"


def test_items_that_operators_change_are_whole_in_the_run() -> None:
    def grow(item: dict[str, int]) -> dict[str, int]:
        item["n"] += 1
        return item

    env = LocalEnvironment("mutable", {"calibrate": True})
    stream = env.from_collection([{"n": 0}, {"n": 10}]).map(grow)
    assert stream.collect() == [{"n": 1}, {"n": 11}]


class Counting(MapFunction[int, int]):
    """Keeps something, and says so."""

    contract: ClassVar[Contract] = Contract(state=StateSpec(kind=StateKind.STATEFUL))

    def execute(self, item: int) -> int:
        raise AssertionError("was called")


class Instance(FilterFunction[int]):
    """Would be called as the very object of the run."""

    def execute(self, item: int) -> bool:
        raise AssertionError("was called")

    def method(self, item: int) -> int:
        raise AssertionError("was called")

    def __call__(self, item: int) -> int:
        raise AssertionError("was called")


def forbidden(item: Any) -> Any:
    raise AssertionError("was called")


def forbidden_fold(so_far: Any, item: Any) -> Any:
    raise AssertionError("was called")


@pytest.mark.parametrize(
    ("declare", "reason"),
    [
        (lambda s: s.map(Counting, name="it"), "it is stateful"),
        (lambda s: s.filter(Instance(), name="it"), "it is an instance, which may keep something"),
        (lambda s: s.map(Instance().method, name="it"), "it is a method of an instance"),
        (lambda s: s.map(functools.partial(Instance().method), name="it"), "it is a method of an instance"),
        (lambda s: s.key_by(same, name="key").map(forbidden, name="it"), "its items have keys, by which it may keep"),
        (lambda s: s.key_by(same).reduce(forbidden_fold, name="it"), "it is a reduce, which is more than a function"),
        (lambda s: s.map(forbidden, name="it", contract=Contract(services=("s",))), "it calls services"),
        (lambda s: s.map(forbidden, name="it", batch=Batching(size=2)), "it takes lists of items"),
        (lambda s: s.limit(3, name="it"), "it is a limit, which is more than a function"),
        (lambda s: s.batch(3, name="it"), "it is a batch, which is more than a function"),
    ],
)
def test_what_may_keep_something_is_not_called(declare: Any, reason: str) -> None:
    env = LocalEnvironment("kept")
    env.register_service("s", same)
    declare(env.from_collection([1, 2, 3])).map(forbidden, name="behind").sink(forbidden, name="end")
    found = env.calibrate()
    assert found["it"].items == 0
    assert found["it"].reason.startswith(reason)
    assert found["behind"].items == 0
    assert found["end"].reason.startswith("it is a sink")
    text = note(env.compile(), "calibrate", "it")
    assert text.startswith(f"left as declared: {reason}")


def test_an_operator_that_raises_is_left_as_declared_and_one_that_raises_at_times_is_measured() -> None:
    def odd(item: int) -> int:
        if item % 2 == 0:
            raise ValueError(f"{item} is even")
        return item

    found = measured(lambda s: s.map(odd).map(same))
    assert found["odd"].items == ITEMS_MAX - 1
    assert found["same"].items == ITEMS_MAX // 2 - 1
    found = measured(lambda s: s.map(odd).map(same), [2, 4])
    assert found["odd"].reason == "it raised ValueError: 2 is even"
    assert found["same"].items == 0


def test_life_cycle_of_a_class_is_kept_also_when_it_raises() -> None:
    calls: list[str] = []

    class Opened(MapFunction[int, int]):
        def setup(self) -> None:
            calls.append(f"setup {self.ctx.name} on {threading.current_thread().name}")

        def execute(self, item: int) -> int:
            raise OSError("gone")

        def teardown(self) -> None:
            calls.append("teardown")

    assert measured(lambda s: s.map(Opened, name="it"))["it"].reason == "it raised OSError: gone"
    assert calls == ["setup it on sage-calibration", "teardown"]


def test_an_operator_that_wants_to_end_the_program_ends_nothing() -> None:
    def leave(item: int) -> int:
        raise SystemExit(3)

    found = measured(lambda s: s.map(same).map(leave))
    assert found["same"].items == ITEMS_MAX - 1
    assert found["leave"].reason == "it raised SystemExit: 3"
    assert found["end"].reason.startswith("it is a sink")


def test_it_works_in_a_running_event_loop() -> None:
    async def main() -> Measurement:
        return measured(lambda s: s.map(ask))["ask"]

    assert asyncio.run(main()).cpu_share < 0.5


def test_lock_is_seen_to_be_held_and_to_be_free() -> None:
    with LockWatch() as held:
        end = time.thread_time() + 0.1
        while time.thread_time() < end:
            sum(range(100))
    assert not held.released(0.1)
    with LockWatch() as free:
        time.sleep(0.3)  # releases the lock as long computations in native code do
    assert free.released(0.1)
    assert not free.released(0.001)


# -- what is made of it

COMPUTING = Measurement(items=63, wall_s=100e-6, cpu_s=99e-6)
CHEAP = Measurement(items=63, wall_s=0.1e-6, cpu_s=0.1e-6)


def declared(contract: Contract | None = None, function: Any = same) -> LocalEnvironment:
    env = LocalEnvironment("decided")
    env.from_collection([1, 2], name="numbers").map(function, name="it", contract=contract).sink(same, name="end")
    return env


def execution_of(graph: ExecutionGraph) -> Execution:
    return next(task.execution for task in graph.tasks if "it" in task.chain)


@pytest.mark.parametrize(
    ("figures", "expected", "why"),
    [
        (COMPUTING, Execution.PROCESS, "process: measured, it takes 100 us per item and computes 99% of that: pure-P"),
        (
            Measurement(items=5, wall_s=4e-3, cpu_s=1e-4),
            Execution.THREAD,
            "thread: measured, it takes 4e+03 us per item and computes 2% of that: it waits, so replicas on threads",
        ),
        (
            Measurement(items=63, wall_s=1e-4, cpu_s=1e-4, releases_lock=True),
            Execution.THREAD,
            "thread: measured, it takes 100 us per item and computes 100% of that, and releases the interpreter lock",
        ),
        (
            Measurement(items=63, wall_s=5e-6, cpu_s=5e-6),
            Execution.THREAD,
            "thread: measured, it takes 5 us per item and computes 100% of that",
        ),
        (Measurement(reason="it is stateful"), Execution.THREAD, "thread: it is a plain function"),
    ],
)
def test_auto_decides_by_the_figures(figures: Measurement, expected: Execution, why: str) -> None:
    graph = with_figures(declared(), it=figures)
    assert execution_of(graph) is expected
    assert note(graph, "execution", "it").startswith(why)


@pytest.mark.parametrize("asked", [Execution.THREAD, Execution.PROCESS])
@pytest.mark.parametrize("figures", [COMPUTING, Measurement(items=5, wall_s=4e-3, cpu_s=1e-4)])
def test_what_is_declared_is_never_overridden(asked: Execution, figures: Measurement) -> None:
    graph = with_figures(declared(Contract(execution=asked)), it=figures)
    assert execution_of(graph) is asked
    assert note(graph, "execution", "it") == f"{asked}: declared by the contract"


def test_a_coroutine_that_computes_stays_and_is_told_of() -> None:
    graph = with_figures(declared(function=ask), it=COMPUTING)
    assert execution_of(graph) is Execution.ASYNC
    assert note(graph, "execution", "it").endswith("that holds up the event loop, a plain function would get a process")


def test_a_function_that_cannot_be_sent_stays_on_a_thread() -> None:
    lock = threading.Lock()

    def locked(item: int) -> int:
        with lock:
            return item

    graph = with_figures(declared(function=locked), it=COMPUTING)
    assert execution_of(graph) is Execution.THREAD
    assert "it cannot be sent to a process" in note(graph, "execution", "it")


def test_a_measured_cost_is_not_refused_unless_it_is_clearly_too_small() -> None:
    env = declared(Contract(execution=Execution.PROCESS))
    with pytest.raises(PipelineError, match=r"'it' takes 0.1 us \(measured\) of work per item, .* takes 1 us"):
        with_figures(env, it=CHEAP)
    near = Measurement(items=63, wall_s=0.6e-6, cpu_s=0.6e-6)
    assert execution_of(with_figures(env, it=near)) is Execution.PROCESS


def test_what_the_contract_says_of_the_cost_beats_what_was_measured() -> None:
    env = declared(Contract(execution=Execution.PROCESS, io=IOSpec(item_cost_s=1e-3)))
    assert execution_of(with_figures(env, it=CHEAP)) is Execution.PROCESS


def test_noise_changes_the_reasons_and_not_the_plan() -> None:
    one = with_figures(declared(), it=COMPUTING)
    other = with_figures(declared(), it=Measurement(items=60, wall_s=140e-6, cpu_s=135e-6))
    assert one.tasks == other.tasks
    assert one.edges == other.edges
    assert one.diff(other) == ()


def test_a_plan_is_the_same_each_time_once_it_was_measured() -> None:
    env = LocalEnvironment("same", {"calibrate": True})
    env.from_collection(range(100)).map(compute).sink(same)
    assert env.compile() == env.compile()


def test_a_changed_config_is_measured_anew() -> None:
    class Factor(MapFunction[int, int]):
        made: ClassVar[list[Any]] = []

        def execute(self, item: int) -> int:
            self.made.append(self.config["factor"])
            return item

    env = LocalEnvironment("anew", {"calibrate": True})
    env.from_collection([1]).map(Factor, config={"factor": 2}, name="it").sink(same)
    env.compile()
    env.configure_operator("it", {"factor": 3})
    env.compile()
    assert Factor.made == [2, 3]


def test_a_calibrated_run_gives_what_the_plain_one_gives() -> None:
    results = []
    for calibrate in (False, True):
        env = LocalEnvironment("run", {"calibrate": calibrate})
        stream = env.from_collection(range(200)).map(compute).filter(lambda n: n % 2).map(lambda n: n + 1)
        results.append(sorted(stream.collect()))
    assert results[0] == results[1] == list(range(2, 201, 2))
