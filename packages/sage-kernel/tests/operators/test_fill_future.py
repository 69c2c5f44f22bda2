"""`from_future` and `fill`: loops that end when nothing is inside any more, with a bound on what is."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from environments import environment, finished, letters
from executions import KINDS, ExecutionKind
from test_semantics import check_against, expect, run, switching  # noqa: F401  # a fixture

from sage.kernel.api import (
    Batching,
    DataStream,
    ErrorPolicy,
    JobFailedError,
    JobState,
    LocalEnvironment,
    MapFunction,
    OnError,
)
from sage.kernel.api.replay import DeadLetterRetry
from sage.kernel.graph import find_loops

CAPACITIES = [None, 1, 3]
BOUNDS = [1, 2, 1000]


def collatz(pair: tuple[int, int]) -> tuple[int, int]:
    """One step of the sequence; the second number counts the steps."""
    n, steps = pair
    return (n // 2 if n % 2 == 0 else 3 * n + 1), steps + 1


def steps_of(n: int) -> int:
    steps = 0
    while n > 1 or not steps:
        n, steps = collatz((n, steps))
    return steps


def down(pair: tuple[Any, int]) -> tuple[Any, int]:
    return pair[0], pair[1] - 1


def looped(
    env: LocalEnvironment,
    items: Any,
    body: Callable[[DataStream], DataStream],
    bound: int = 1000,
) -> DataStream:
    """Pairs `(item, rounds)` go round until `body` has counted their rounds down; the stream of those that are done."""
    again = env.from_future("again")
    behind = body(env.from_collection(items, name="items").union(again))
    again.fill(behind.filter(lambda pair: pair[1] > 0, name="more"), max_in_flight=bound)
    return behind.filter(lambda pair: pair[1] <= 0, name="done")


# -- nothing lost, nothing twice --------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", CAPACITIES)
@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("parallelism", [1, 3])
def test_each_item_leaves_once_after_its_own_rounds(
    execution: ExecutionKind, tmp_path: Path, capacity: int | None, bound: int, parallelism: int
) -> None:
    env = environment(tmp_path, queue_capacity=capacity)
    facts: dict[str, Any] = {"parallelism": parallelism, "contract": execution.contract(concurrency=3)}
    step = execution.operator(collatz)
    again = env.from_future("again")
    stepped = env.from_collection([(n, 0) for n in range(1, 25)]).union(again).map(step, **facts)
    again.fill(stepped.filter(lambda pair: pair[0] > 1), max_in_flight=bound)
    assert sorted(stepped.filter(lambda pair: pair[0] == 1).collect()) == sorted((1, steps_of(n)) for n in range(1, 25))


def test_an_item_that_fails_in_the_loop_leaves_it_as_a_dead_letter(execution: ExecutionKind, tmp_path: Path) -> None:
    def step(pair: tuple[int, int]) -> tuple[int, int]:
        if pair == (3, 1):
            raise ValueError("not this one")
        return down(pair)

    env = environment(tmp_path)
    facts = {"contract": execution.contract(errors=ErrorPolicy(retries=1, delay_s=0.001)), "name": "step"}
    out: list[Any] = []
    looped(env, [(n, 2) for n in range(6)], lambda s: s.map(execution.operator(step), **facts)).sink(out.append)
    result = finished(env)
    assert sorted(out) == [(n, 0) for n in (0, 1, 2, 4, 5)]
    assert [(letter.operator, letter.item, letter.attempts) for letter in letters(tmp_path)] == [("step", "(3, 1)", 2)]
    assert result.dead_letters == 1


def test_a_retried_letter_goes_round_as_it_would_have(tmp_path: Path) -> None:
    broken = [True]

    def step(pair: tuple[int, int]) -> tuple[int, int]:
        if broken and pair[0] == 3:
            raise ValueError("not yet")
        return down(pair)

    env = environment(tmp_path)
    out: list[Any] = []
    looped(env, [(n, 3) for n in range(5)], lambda s: s.map(step, name="step")).sink(out.append)
    assert finished(env).dead_letters == 1
    broken.clear()
    with DeadLetterRetry(env) as retry:
        outcome = retry.commit(retry.submit().wait(10))
    assert (outcome.retried, outcome.failed_again) == (1, 0)
    assert sorted(out) == [(n, 0) for n in range(5)]


def die_at_one(pair: tuple[int, int]) -> tuple[int, int]:
    """Ends its process for one item, in its second round."""
    if pair == (3, 1):
        os._exit(3)
    return down(pair)


def test_an_item_that_kills_its_process_in_the_loop_is_set_aside_once(tmp_path: Path) -> None:
    kind = KINDS["process"]
    env = environment(tmp_path)
    out: list[Any] = []
    facts: dict[str, Any] = {"contract": kind.contract(), "parallelism": 2, "name": "step"}
    looped(env, [(n, 2) for n in range(8)], lambda s: s.map(die_at_one, **facts), 3).sink(out.append)
    result = finished(env)
    assert sorted(out) == [(n, 0) for n in range(8) if n != 3]
    assert [(letter.operator, letter.item) for letter in letters(tmp_path)] == [("step", "(3, 1)")]
    assert result.dead_letters == 1


def test_several_entrances_of_which_one_is_broadcast(execution: ExecutionKind, tmp_path: Path) -> None:
    """Each copy of a broadcast item is inside by itself."""
    env = environment(tmp_path, queue_capacity=1)
    again = env.from_future()
    rules = env.from_collection([("rule", 2)]).broadcast()
    items = env.from_collection([("item", 3)] * 7, parallelism=2)
    late = env.from_collection([("late", 1)] * 5)
    stepped = items.union(again, rules, late)
    stepped = stepped.map(execution.operator(down), parallelism=3, contract=execution.contract())
    again.fill(stepped.filter(lambda pair: pair[1] > 0), max_in_flight=2)
    done = stepped.filter(lambda pair: pair[1] <= 0).collect()
    assert Counter(name for name, _ in done) == Counter(rule=3, item=7, late=5)


def test_ordered_in_front_of_a_loop(execution: ExecutionKind, tmp_path: Path) -> None:
    """The same source also feeds a stream that stays in order, beside the loop."""
    env = environment(tmp_path, queue_capacity=2)
    shuffled = env.from_collection(range(40)).map(
        execution.operator(lambda n: n), parallelism=3, contract=execution.contract()
    )
    beside: list[Any] = []
    shuffled.sink(beside.append, ordered=True)
    again = env.from_future()
    stepped = shuffled.ordered().map(lambda n: (n, 3)).union(again).map(down)
    again.fill(stepped.filter(lambda pair: pair[1] > 0), max_in_flight=4)
    out: list[Any] = []
    stepped.filter(lambda pair: pair[1] <= 0).sink(out.append)
    finished(env)
    assert beside == list(range(40))
    assert sorted(out) == [(n, 0) for n in range(40)]


def test_keyed_folds_see_each_round(execution: ExecutionKind, tmp_path: Path) -> None:
    """The count of a key goes on over the rounds."""
    env = environment(tmp_path, queue_capacity=2)
    again = env.from_future()
    pairs = env.from_collection([("a", 1), ("b", 2), ("a", 3)]).union(again)
    stepped = pairs.map(execution.operator(down), contract=execution.contract())
    counted: list[Any] = []
    stepped.key_by(lambda pair: pair[0]).count(emit="final").sink(counted.append)
    again.fill(stepped.filter(lambda pair: pair[1] > 0))
    out: list[Any] = []
    stepped.filter(lambda pair: pair[1] <= 0).sink(out.append)
    finished(env)
    assert sorted(counted) == [("a", 4), ("b", 2)]
    assert sorted(out) == [("a", 0), ("a", 0), ("b", 0)]


def test_folds_inside_the_loop(tmp_path: Path) -> None:
    """A fold that emits for each item, on the way round."""
    env = environment(tmp_path)
    again = env.from_future()
    numbers = env.from_collection(["x", "y"]).union(again.map(lambda pair: pair[0]))
    counted = numbers.key_by(lambda name: name).count(parallelism=2)
    again.fill(counted.filter(lambda pair: pair[1] < 5))
    assert sorted(counted.filter(lambda pair: pair[1] == 5).collect()) == [("x", 5), ("y", 5)]


def test_fan_out_inside_the_loop(execution: ExecutionKind, tmp_path: Path) -> None:
    """Two ways inside, which meet again at the future; a full loop does not take the doubled rows for an overflow."""
    env = environment(tmp_path, queue_capacity=1)
    again = env.from_future()
    start = env.from_collection([(n, 4) for n in range(30)]).union(again)
    facts: dict[str, Any] = {"contract": execution.contract()}
    even = start.filter(lambda pair: pair[1] % 2 == 0).map(execution.operator(down), **facts)
    odd = start.filter(lambda pair: pair[1] % 2 == 1).map(execution.operator(down), **facts)
    both = even.union(odd)
    again.fill(both.filter(lambda pair: pair[1] > 0), max_in_flight=2)
    assert sorted(both.filter(lambda pair: pair[1] <= 0).collect()) == [(n, 0) for n in range(30)]


def test_side_outputs_and_broadcast_inside_the_loop(tmp_path: Path) -> None:
    class Step(MapFunction[Any, Any]):
        def execute(self, item: Any) -> Any:
            if item[1] == 2:
                self.ctx.side_output("seen", item[0])
            return down(item)

    env = environment(tmp_path)
    again = env.from_future()
    stepped = env.from_collection([(n, 3) for n in range(5)]).union(again).map(Step)
    again.fill(stepped.filter(lambda pair: pair[1] > 0).union(), max_in_flight=10)
    seen: list[Any] = []
    stepped.side_output("seen").sink(seen.append)
    doubled = stepped.filter(lambda pair: pair[1] <= 0).broadcast().map(lambda pair: pair[0], parallelism=2)
    out: list[Any] = []
    doubled.sink(out.append)
    finished(env)
    assert sorted(seen) == [0, 1, 2, 3, 4]
    assert sorted(out) == sorted([0, 1, 2, 3, 4] * 2)


def test_a_side_output_may_be_what_comes_back(tmp_path: Path) -> None:
    class Step(MapFunction[Any, Any]):
        def execute(self, item: Any) -> Any:
            if item[1] > 1:
                self.ctx.side_output("again", down(item))
            return item

    env = environment(tmp_path)
    again = env.from_future()
    stepped = env.from_collection([("a", 3), ("b", 1)]).union(again).map(Step)
    again.fill(stepped.side_output("again"))
    assert sorted(stepped.collect()) == [("a", 1), ("a", 2), ("a", 3), ("b", 1)]


@pytest.mark.parametrize("kind", ["thread", "async"])
@pytest.mark.parametrize("bound", [1, 5, 1000])
def test_batched_functions_inside_the_loop(tmp_path: Path, kind: str, bound: int) -> None:
    """Rows in a list that is not full are inside: the loop does not end before the list goes."""

    def plain(pairs: list[Any]) -> list[Any]:
        return [down(pair) for pair in pairs]

    async def awaited(pairs: list[Any]) -> list[Any]:
        await asyncio.sleep(0.0005)
        return plain(pairs)

    env = environment(tmp_path)
    step = plain if kind == "thread" else awaited
    batch = Batching(size=4, max_wait_s=0.002)
    done = looped(env, [(n, 3) for n in range(11)], lambda s: s.map(step, batch=batch, parallelism=2), bound)
    assert sorted(done.collect()) == [(n, 0) for n in range(11)]


def test_lists_inside_the_loop(tmp_path: Path) -> None:
    env = environment(tmp_path)
    done = looped(
        env, [(n, 3) for n in range(11)], lambda s: s.batch(4, 0.002).flatmap(lambda some: [down(one) for one in some])
    )
    assert sorted(done.collect()) == [(n, 0) for n in range(11)]


def test_join_and_connect_inside_the_loop(tmp_path: Path) -> None:
    """The second stream enters the loop by itself."""
    env = environment(tmp_path)
    again = env.from_future()
    names = env.from_collection([(0, "zero"), (1, "one")]).key_by(lambda pair: pair[0])
    counts = env.from_collection([(0, 2), (1, 1)]).union(again).key_by(lambda pair: pair[0])
    joined = counts.join(names, lambda count, name: (count[0], count[1] - 1, name[1]))
    again.fill(joined.filter(lambda row: row[1] > 0).map(lambda row: row[:2]))
    assert sorted(joined.filter(lambda row: row[1] == 0).collect()) == [(0, 0, "zero"), (1, 0, "one")]


# -- the end ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("items", [[], [("a", 1)]])
def test_a_loop_without_items_or_rounds_ends(execution: ExecutionKind, tmp_path: Path, items: list[Any]) -> None:
    env = environment(tmp_path)
    step = execution.operator(down)
    done = looped(env, items, lambda s: s.map(step, contract=execution.contract()))
    assert done.collect() == [(name, 0) for name, _ in items]


def test_the_end_is_counted_and_not_timed(tmp_path: Path) -> None:
    """An item that is slow in the loop is waited for; the source has ended long before."""
    env = environment(tmp_path)

    def slow(pair: tuple[str, int]) -> tuple[str, int]:
        time.sleep(0.15)
        return down(pair)

    assert looped(env, [("a", 3)], lambda s: s.map(slow)).collect() == [("a", 0)]


def test_the_end_waits_for_a_source_that_is_quiet(tmp_path: Path) -> None:
    def items() -> Iterator[tuple[str, int]]:
        yield "a", 2
        time.sleep(0.2)
        yield "b", 2

    env = environment(tmp_path)
    again = env.from_future()
    stepped = env.from_source(items).union(again).map(down)
    again.fill(stepped.filter(lambda pair: pair[1] > 0))
    assert stepped.filter(lambda pair: pair[1] <= 0).collect() == [("a", 0), ("b", 0)]


def test_what_is_emitted_at_the_end_leaves_or_becomes_a_dead_letter(tmp_path: Path) -> None:
    """A fold with emit="final" inside the loop emits once; what it sends back finds the loop ended."""
    env = environment(tmp_path)
    again = env.from_future("again")
    names = env.from_collection(["x", "y", "y"]).union(again.map(lambda pair: pair[0]))
    totals = names.key_by(lambda name: name, name="key").count(emit="final")
    again.fill(totals.filter(lambda pair: pair[1] < 2))
    out: list[Any] = []
    totals.filter(lambda pair: pair[1] >= 2).sink(out.append)
    result = finished(env)
    assert out == [("y", 2)]
    (letter,) = letters(tmp_path)
    assert (letter.operator, letter.item, letter.attempts) == ("again", "('x', 1)", 1)
    assert "after the loop had ended" in letter.error
    assert result.dead_letters == 1


def test_a_letter_of_the_future_enters_the_loop_there(tmp_path: Path) -> None:
    """What came back too late is given to the future again, and comes too late again."""
    env = environment(tmp_path)
    again = env.from_future("again")
    names = env.from_collection(["x"]).union(again.map(lambda pair: pair[0]))
    totals = names.key_by(lambda name: name).count(emit="final")
    again.fill(totals.filter(lambda pair: pair[1] < 2))
    totals.filter(lambda pair: pair[1] >= 2).sink(lambda pair: None)
    assert finished(env).dead_letters == 1
    with DeadLetterRetry(env, empty_state=True) as retry:
        outcome = retry.commit(retry.submit().wait(10))
    assert (outcome.retried, outcome.failed_again) == (1, 1)


def test_a_stop_works_off_what_is_inside(execution: ExecutionKind, tmp_path: Path) -> None:
    env = environment(tmp_path)
    out: list[Any] = []
    step = execution.operator(down, sleep_s=0.001)
    facts = {"contract": execution.contract(concurrency=4)}
    again = env.from_future()
    numbers = ((n, 3) for n in itertools.count())
    stepped = env.from_collection(numbers, name="numbers").union(again).map(step, **facts)
    again.fill(stepped.filter(lambda pair: pair[1] > 0), max_in_flight=20)
    stepped.filter(lambda pair: pair[1] <= 0).sink(out.append)
    job = env.submit(wait=False)
    while not out:
        time.sleep(0.005)
    job.stop(20)
    result = job.wait(20)
    assert result.state is JobState.STOPPED
    (offset,) = result.offsets["numbers"]
    assert sorted(out) == [(n, 0) for n in range(offset)]


def test_a_loop_that_never_lets_an_item_out_ends_with_the_grace_period(tmp_path: Path) -> None:
    env = environment(tmp_path)
    out: list[Any] = []
    looped(env, [("a", 1)], lambda s: s.map(lambda pair: pair)).sink(out.append)
    job = env.submit(wait=False)
    time.sleep(0.05)
    job.stop(0.2)
    result = job.wait(10)
    assert result.state is JobState.ABORTED
    assert "grace period" in result.reason
    assert out == []


def test_an_abort_releases_who_waits_at_the_entrance(execution: ExecutionKind, tmp_path: Path) -> None:
    env = environment(tmp_path)
    out: list[Any] = []
    step = execution.operator(lambda pair: pair)
    before = execution.operator(lambda pair: pair)
    again = env.from_future()
    endless = env.from_collection(("x", n) for n in itertools.count())
    stepped = endless.map(before, contract=execution.contract()).union(again).map(step, contract=execution.contract())
    again.fill(stepped, max_in_flight=3)
    stepped.filter(lambda pair: False).sink(out.append)
    job = env.submit(wait=False)
    time.sleep(0.2)
    begun = time.monotonic()
    job.abort("enough")
    result = job.wait(10)
    assert result.state is JobState.ABORTED
    assert "given up" not in result.reason
    assert time.monotonic() - begun < 4


def test_the_watchdog_says_what_the_future_waits_for(tmp_path: Path) -> None:
    gate = threading.Event()

    def hang(pair: tuple[str, int]) -> tuple[str, int]:
        gate.wait(20)
        return down(pair)

    env = environment(tmp_path, watchdog_s=0.5, abort_grace_s=0.2)
    looped(env, [("a", 1)], lambda s: s.map(hang, name="hang")).sink(lambda pair: None)
    try:
        with pytest.raises(JobFailedError, match=r"again\[0\]: waiting for items to come back, 1 row\(s\) are inside"):
            env.submit()
    finally:
        gate.set()


def test_fail_inside_the_loop_fails_the_job(execution: ExecutionKind, tmp_path: Path) -> None:
    def step(pair: tuple[int, int]) -> tuple[int, int]:
        if pair == (7, 1):
            raise ValueError("never")
        return down(pair)

    env = environment(tmp_path)
    contract = execution.contract(errors=ErrorPolicy(on_error=OnError.FAIL))
    looped(env, [(n, 2) for n in range(50)], lambda s: s.map(execution.operator(step), contract=contract)).print()
    with pytest.raises(JobFailedError, match="never"):
        env.submit()


def test_limit_behind_a_loop_ends_the_source(tmp_path: Path) -> None:
    env = environment(tmp_path)
    out: list[Any] = []
    numbers = ((n, 2) for n in itertools.count())
    looped(env, numbers, lambda s: s.map(down), 50).limit(10).sink(out.append)
    assert finished(env).state is JobState.FINISHED
    assert len(out) == 10


def test_a_source_that_only_leads_back_is_not_idle(tmp_path: Path) -> None:
    """Its items reach the sink only by way of the future, which was declared before it."""
    env = environment(tmp_path)
    again = env.from_future()
    started = env.from_collection([("s", 2)]).union(again).map(down)
    late = env.from_collection([("l", n) for n in range(1, 40)])
    again.fill(started.filter(lambda pair: pair[1] > 0).union(late), max_in_flight=5)
    out: list[Any] = []
    started.filter(lambda pair: pair[1] <= 0).sink(out.append)
    env.from_collection(range(100)).limit(1).sink(lambda item: None)
    finished(env)
    assert Counter(out) == Counter({("s", 0): 1, ("l", 0): 39})


# -- the bound --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [1, 4, 30])
def test_no_more_than_the_bound_are_inside(execution_here: ExecutionKind, tmp_path: Path, bound: int) -> None:
    lock = threading.Lock()
    inside: set[int] = set()
    most = [0]

    def enter(n: int) -> tuple[int, int]:
        return n, 4

    def step(pair: tuple[int, int]) -> tuple[int, int]:
        with lock:
            inside.add(pair[0])
            most[0] = max(most[0], len(inside))
            if pair[1] == 1:
                inside.discard(pair[0])
        return down(pair)

    env = environment(tmp_path)
    again = env.from_future("again")
    stepped = env.from_collection(range(300)).map(enter).union(again)
    stepped = stepped.map(execution_here.operator(step, 0.0002), contract=execution_here.contract(concurrency=50))
    again.fill(stepped.filter(lambda pair: pair[1] > 0), max_in_flight=bound)
    out: list[Any] = []
    stepped.filter(lambda pair: pair[1] <= 0).sink(out.append)
    result = finished(env)
    assert sorted(out) == [(n, 0) for n in range(300)]
    assert most[0] <= bound
    future = next(replica for replica in result.metrics.replicas if replica.task == "again[0]")
    assert future.queue_depth_max <= bound


def test_a_full_loop_stalls_its_source(tmp_path: Path) -> None:
    made = [0]
    gate = threading.Event()

    def numbers() -> Iterator[tuple[int, int]]:
        for n in range(5000):
            made[0] += 1
            yield n, 1

    def step(pair: tuple[int, int]) -> tuple[int, int]:
        gate.wait(10)
        return down(pair)

    env = environment(tmp_path, queue_capacity=100)
    again = env.from_future()
    stepped = env.from_source(numbers).union(again).map(step)
    again.fill(stepped.filter(lambda pair: pair[1] > 0), max_in_flight=10)
    out: list[Any] = []
    stepped.filter(lambda pair: pair[1] <= 0).sink(out.append)
    job = env.submit(wait=False)
    time.sleep(0.3)
    assert made[0] <= 12  # those inside, and the one that waits in the hands of the source
    gate.set()
    job.wait(20)
    assert len(out) == 5000


def test_a_body_that_multiplies_without_end_fails_with_a_clear_message(
    execution: ExecutionKind, tmp_path: Path
) -> None:
    env = environment(tmp_path, queue_capacity=1)
    again = env.from_future("again")
    double = execution.operator(lambda n: [n, n])
    doubled = env.from_collection([1]).union(again).flatmap(double, contract=execution.contract())
    again.fill(doubled, max_in_flight=100)
    doubled.filter(lambda n: n < 0).print()
    with pytest.raises(
        JobFailedError, match=r"max_in_flight=100 items.*flatmap.*larger max_in_flight.*test_fill_future"
    ):
        env.submit()


def test_a_body_that_multiplies_and_ends_needs_only_room(execution: ExecutionKind, tmp_path: Path) -> None:
    """A tree of depth 6: half of the bound is left to what items become."""
    env = environment(tmp_path, queue_capacity=2)
    again = env.from_future()
    children = execution.operator(lambda pair: [(f"{pair[0]}{side}", pair[1] - 1) for side in "lr"])
    grown = env.from_collection([(f"{n}", 6) for n in range(20)]).union(again)
    grown = grown.flatmap(children, contract=execution.contract(), parallelism=2)
    again.fill(grown.filter(lambda pair: pair[1] > 0), max_in_flight=20 * 64)
    out = grown.filter(lambda pair: pair[1] <= 0).collect()
    assert len(set(out)) == len(out) == 20 * 64


def test_several_loops_and_nested_ones(execution: ExecutionKind, tmp_path: Path) -> None:
    env = environment(tmp_path, queue_capacity=1)
    outer, inner = env.from_future("outer"), env.from_future("inner")
    facts: dict[str, Any] = {"contract": execution.contract()}
    # (item, rounds outside, rounds inside)
    begun = env.from_collection([(n, 2, 0) for n in range(10)]).union(outer).map(lambda row: (row[0], row[1], 3))
    within = begun.union(inner).map(execution.operator(lambda row: (row[0], row[1], row[2] - 1)), **facts)
    inner.fill(within.filter(lambda row: row[2] > 0), max_in_flight=2)
    out = within.filter(lambda row: row[2] <= 0).map(lambda row: (row[0], row[1] - 1, 0), name="closes")
    outer.fill(out.filter(lambda row: row[1] > 0), max_in_flight=3)
    first = out.filter(lambda row: row[1] <= 0).map(lambda row: (row[0], 2))
    again = env.from_future("again")
    second = first.union(again).map(down)
    again.fill(second.filter(lambda pair: pair[1] > 0))
    done = second.filter(lambda pair: pair[1] <= 0)
    assert sorted(done.collect()) == [(n, 0) for n in range(10)]
    loops_found = find_loops(env.graph)
    assert [(loop.futures, loop.max_in_flight) for loop in loops_found] == [(("outer", "inner"), 2), (("again",), 1000)]
