"""`ordered()`: the order of the source, whatever replicas, slots and branches did; bounded, and it never waits for what
will not come.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from environments import environment, finished, letters
from executions import ExecutionKind
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.kernel.api import (
    Contract,
    DataStream,
    ErrorPolicy,
    Execution,
    IOSpec,
    JobFailedError,
    JobState,
    LocalEnvironment,
    PipelineError,
    Resources,
    SourceFunction,
)
from sage.kernel.compiler import CompileOptions, compile_graph, render_text
from sage.kernel.packet import Packet
from sage.kernel.runtime.places import END, OrderLostError, Resequencer, SequenceTracker, placed
from sage.kernel.runtime.task import JobSignals

PROCESS = Contract(execution=Execution.PROCESS)


def until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    give_up = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.005)
    return True


def uneven(item: Any) -> Any:
    """Takes its time, now more, now less."""
    time.sleep(random.random() * 0.002)
    return item


async def uneven_async(item: Any) -> Any:
    """The same on an event loop."""
    await asyncio.sleep(random.random() * 0.004)
    return item


def waited_max(env: LocalEnvironment, name: str = "ordered") -> float:
    """Run it; the most rows that waited for their turn."""
    metrics = finished(env).metrics
    found = next(operator for operator in metrics.operators if operator.operator == name)
    return found.counters["waited_max"]


# -- order ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", [True, False])
@pytest.mark.parametrize(("capacity", "max_ahead"), [(None, 10_000), (1, 1), (2, 7)])
def test_replicas_and_slots_do_not_show(
    execution: ExecutionKind, fusion: bool, capacity: int | None, max_ahead: int
) -> None:
    env = LocalEnvironment("order", {"fusion": fusion, "queue_capacity": capacity, "watchdog_s": 10})
    slow = uneven_async if execution.name == "async" else uneven
    stream = env.from_collection(range(200)).map(slow, parallelism=3, contract=execution.contract(concurrency=5))
    assert stream.ordered(max_ahead=max_ahead).collect() == list(range(200))


def test_what_an_item_gives_stays_together_and_in_order(execution: ExecutionKind) -> None:
    env = LocalEnvironment("many", {"watchdog_s": 10})

    def spread(n: int) -> list[tuple[int, int]]:
        return [(n, part) for part in range(n % 4)]

    items = env.from_collection(range(100)).map(uneven, parallelism=3)
    parts = items.flatmap(execution.operator(spread), parallelism=2, contract=execution.contract())
    twice = parts.flatmap(lambda part: [part, part], parallelism=3).filter(lambda part: part[0] % 3, parallelism=2)
    assert twice.ordered().collect() == [
        part for n in range(100) if n % 3 for part in spread(n) for part in (part, part)
    ]


def test_branches_meet_again_the_first_stream_first(execution: ExecutionKind) -> None:
    """Fork-join with filters over queues that hold one item: nothing waits for what was dropped."""
    env = LocalEnvironment("join", {"queue_capacity": 1, "watchdog_s": 10})
    items = env.from_collection(range(150))
    contract = execution.contract(concurrency=3)
    odd = items.filter(lambda n: n % 2).map(execution.operator(uneven), parallelism=2, contract=contract)
    fifth = items.map(uneven_async).filter(lambda n: n % 5 == 0, parallelism=2).map(lambda n: -n)
    none = items.filter(lambda n: False, parallelism=3)
    expected = [out for n in range(150) for out in ([n] if n % 2 else []) + ([-n] if n % 5 == 0 else [])]
    assert odd.union(fifth, none).ordered(max_ahead=3).collect() == expected


def test_sources_and_their_replicas_alternate() -> None:
    env = LocalEnvironment("sources", {"watchdog_s": 10})
    one = env.from_collection(["a0", "a1", "a2", "a3", "a4"], parallelism=2)
    other = env.from_collection(["b0", "b1"]).map(uneven)
    assert one.union(other).ordered(max_ahead=1).collect() == ["a0", "a1", "b0", "a2", "a3", "b1", "a4"]


def test_what_comes_at_the_end_follows_the_first_items_of_the_keys(execution: ExecutionKind) -> None:
    env = LocalEnvironment("end", {"watchdog_s": 10})
    words = [f"w{n % 23}" for n in range(200)]
    stream = env.from_collection(words)
    contract = execution.contract(concurrency=4)

    def count(number: int, word: str) -> int:
        return number + 1

    by_word = stream.map(uneven, parallelism=3).key_by(lambda word: word)
    counts = by_word.aggregate(0, count, emit="final", parallelism=4, contract=contract)
    both = counts.map(uneven, parallelism=2).union(stream.filter(lambda word: word == "w7"))
    expected = ["w7"] * words.count("w7") + [(f"w{n}", words.count(f"w{n}")) for n in range(23)]
    assert both.ordered().collect() == expected


def test_one_behind_another_and_beside_another() -> None:
    env = LocalEnvironment("two", {"queue_capacity": 2, "watchdog_s": 10})
    first: list[int] = []
    second: list[int] = []
    items = env.from_collection(range(120)).map(uneven, parallelism=3)
    items.ordered(max_ahead=4).map(uneven, parallelism=2).ordered(max_ahead=9).sink(first.append)
    items.filter(lambda n: n % 3, parallelism=2).ordered(max_ahead=2).sink(second.append)
    finished(env)
    assert first == list(range(120))
    assert second == [n for n in range(120) if n % 3]


def test_keys_stay_and_copies_stand_together() -> None:
    env = LocalEnvironment("keys", {"watchdog_s": 10})
    numbers = env.from_collection(range(40))
    counted = numbers.map(uneven, parallelism=3).ordered().key_by(lambda n: n % 2).ordered()
    assert counted.count(parallelism=2).ordered().collect() == [(n % 2, n // 2 + 1) for n in range(40)]
    copies = numbers.broadcast().map(uneven, parallelism=3).ordered().collect()
    assert copies == [n for n in range(40) for _ in range(3)]


def test_a_sink_takes_items_in_order(execution: ExecutionKind) -> None:
    env = LocalEnvironment("sink", {"watchdog_s": 10})
    begun: list[int] = []
    ended: list[int] = []

    async def waits(n: int) -> None:
        begun.append(n)
        await asyncio.sleep(random.random() * 0.002)
        ended.append(n)

    def takes(n: int) -> None:
        begun.append(n)
        ended.append(n)

    sink = waits if execution.name == "async" else takes
    stream = env.from_collection(range(60)).map(
        execution.operator(uneven), parallelism=2, contract=execution.contract()
    )
    stream.sink(sink, ordered=True)
    finished(env)
    assert begun == ended == list(range(60))


# -- what never comes -----------------------------------------------------------------------------------------


def test_dead_letters_leave_no_gap(execution: ExecutionKind, tmp_path: Path) -> None:
    env = environment(tmp_path, queue_capacity=1)

    def picky(n: int) -> int:
        if n % 7 == 0:
            raise ValueError(n)
        return n

    errors = ErrorPolicy(retries=1, delay_s=0.001)
    stream = env.from_collection(range(100)).map(
        execution.operator(picky), parallelism=3, contract=execution.contract(concurrency=3, errors=errors)
    )
    out: list[int] = []
    stream.ordered(max_ahead=5).sink(out.append)
    finished(env)
    assert out == [n for n in range(100) if n % 7]
    assert sorted(int(letter.item) for letter in letters(tmp_path)) == list(range(0, 100, 7))


class _Sealed:
    def __reduce__(self) -> Any:
        raise TypeError("it cannot travel")


def test_items_that_cannot_reach_a_process_leave_no_gap(tmp_path: Path) -> None:
    env = environment(tmp_path)
    items = [_Sealed() if n % 5 == 0 else n for n in range(40)]
    out: list[Any] = []
    env.from_collection(items).map(uneven, parallelism=2, contract=PROCESS).ordered(max_ahead=3).sink(out.append)
    finished(env)
    assert out == [n for n in range(40) if n % 5]


def test_a_killed_process_leaves_no_gap(tmp_path: Path) -> None:
    env = environment(tmp_path)

    def deadly(n: int) -> int:
        if n == 13:
            os.kill(os.getpid(), signal.SIGKILL)
        return n

    out: list[int] = []
    env.from_collection(range(60)).map(deadly, parallelism=2, contract=PROCESS).ordered(max_ahead=20).sink(out.append)
    finished(env)
    assert out == [n for n in range(60) if n != 13]
    assert [letter.item for letter in letters(tmp_path)] == ["13"]


def test_ordered_that_shares_a_process_has_no_state_to_lose(tmp_path: Path) -> None:
    env = environment(tmp_path)
    died = tmp_path / "died"

    def deadly(n: int) -> int:
        if n == 13 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return n

    out: list[int] = []
    env.from_collection(range(60)).map(deadly, contract=PROCESS).ordered().sink(out.append)
    assert ["deadly", "ordered"] in [list(task.chain) for task in env.compile().tasks]
    finished(env)
    assert out == list(range(60))


def test_an_item_goes_on_before_the_next_one_of_its_source_has_come(tmp_path: Path) -> None:
    out: list[int] = []
    seen: list[bool] = []

    def source() -> Iterator[int]:
        for n in range(6):
            if n:
                seen.append(until(lambda n=n: len(out) == (n + 1) // 2))
            yield n

    env = environment(tmp_path)
    env.from_source(source).map(uneven, parallelism=2).filter(lambda n: n % 2 == 0).ordered().sink(out.append)
    finished(env)
    assert out == [0, 2, 4]
    assert all(seen)


# -- bounds ---------------------------------------------------------------------------------------------------


class _Straggler:
    """Item 0 waits until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun: list[int] = []

    def __call__(self, n: int) -> list[int]:
        self.begun.append(n)
        if n == 0:
            self.go.wait(20)
        return [n, -n]


@pytest.mark.parametrize("max_ahead", [1, 5, 50])
def test_a_straggler_holds_up_so_many_items_and_no_more(tmp_path: Path, max_ahead: int) -> None:
    env = environment(tmp_path, queue_capacity=1)
    straggler = _Straggler()
    out: list[int] = []
    env.from_collection(range(500)).flatmap(straggler, parallelism=2).ordered(max_ahead=max_ahead).sink(out.append)
    job = env.submit(wait=False)
    # One item may wait behind the straggler.
    assert until(lambda: len(straggler.begun) >= max(1, max_ahead - 1))
    time.sleep(0.1)
    assert len(straggler.begun) <= max_ahead
    assert not out
    straggler.go.set()
    metrics = job.wait(20).metrics
    assert out == [sign * n for n in range(500) for sign in (1, -1)]
    ordered = next(operator for operator in metrics.operators if operator.operator == "ordered")
    assert 2 * (max_ahead - 2) <= ordered.counters["waited_max"] <= 2 * max_ahead


def test_filters_use_up_no_room(tmp_path: Path) -> None:
    """What is dropped counts as released: a source is not held up by items that are no more."""
    env = environment(tmp_path, queue_capacity=1)
    stream = env.from_collection(range(3000)).map(lambda n: n, parallelism=2)
    stream.filter(lambda n: n == 2999, parallelism=2).ordered(max_ahead=2).sink(lambda n: None)
    assert waited_max(env) <= 2


def test_a_stop_lets_what_is_on_its_way_through(tmp_path: Path) -> None:
    env = environment(tmp_path, queue_capacity=1)
    straggler = _Straggler()
    out: list[int] = []
    source = env.from_collection(range(10_000), name="numbers")
    source.flatmap(straggler, parallelism=3).ordered(max_ahead=10).sink(out.append)
    job = env.submit(wait=False)
    assert until(lambda: len(straggler.begun) >= 8)
    job.stop(20)
    time.sleep(0.1)
    straggler.go.set()
    result = job.wait(10)
    assert result.state is JobState.STOPPED
    made = result.offsets["numbers"][0]
    assert out == [sign * n for n in range(made) for sign in (1, -1)]
    assert 10 <= made <= 12


def test_an_abort_ends_a_source_that_waits(tmp_path: Path) -> None:
    env = environment(tmp_path, queue_capacity=1)
    straggler = _Straggler()
    env.from_collection(range(10_000)).flatmap(straggler, parallelism=2).ordered(max_ahead=3).sink(lambda n: None)
    job = env.submit(wait=False)
    assert until(lambda: len(straggler.begun) >= 2)
    time.sleep(0.05)
    job.abort("enough")
    straggler.go.set()
    begun = time.monotonic()
    assert job.wait(10).state is JobState.ABORTED
    assert time.monotonic() - begun < 2


def test_a_stop_does_not_wait_for_a_source_that_pauses(tmp_path: Path) -> None:
    """One source waits for an item that does not come; the other one, which is ahead, ends all the same."""
    gone = threading.Event()

    class Silent(SourceFunction[int]):
        def execute(self) -> Iterator[int]:
            yield 0
            while not self.ctx.stopping:
                time.sleep(0.005)
            gone.set()

    env = environment(tmp_path)
    out: list[int] = []
    env.from_source(Silent).union(env.from_collection(range(1, 1000))).ordered(max_ahead=20).sink(out.append)
    job = env.submit(wait=False)
    assert until(lambda: len(out) == 2)
    time.sleep(0.05)
    assert out == [0, 1]
    job.stop(10)
    assert job.wait(10).state is JobState.STOPPED
    assert gone.is_set()
    assert out == list(range(len(out)))
    assert 10 <= len(out) <= 14


def test_the_watchdog_tells_what_is_waited_for(tmp_path: Path) -> None:
    env = environment(tmp_path, watchdog_s=0.5, abort_grace_s=0.5)
    straggler = _Straggler()
    env.from_collection(range(100), name="numbers").flatmap(straggler, parallelism=2).ordered(max_ahead=6).sink(
        lambda n: None
    )
    job = env.submit(wait=False)
    with pytest.raises(JobFailedError, match=r"no progress") as failed:
        job.wait(10)
    straggler.go.set()
    story = str(failed.value)
    assert re.search(
        r"ordered\[0\]: waiting for item 0 of 'numbers\[0\]', \d+ row\(s\) of later items wait here", story
    )
    assert "numbers[0]: waiting for room downstream" in story


# -- what is decided before -----------------------------------------------------------------------------------


def plan_text(stream: DataStream, env: LocalEnvironment, **options: Any) -> str:
    stream.sink(lambda item: None, name="end")
    return render_text(compile_graph(env.graph, CompileOptions(**options)), explain=True)


def test_it_costs_nothing_where_nothing_changes_the_order() -> None:
    env = LocalEnvironment("plain")
    stream = env.from_collection([1], name="in").map(str).key_by(lambda text: text).count(parallelism=1).ordered()
    text = plan_text(stream, env)
    assert "in -> str -> key_by -> count -> ordered -> end" in text
    assert "ordered: left out: nothing between it and its source can change the order" in text
    assert "restores the order" not in text


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda s: s.map(str, name="m", parallelism=2), "'m' has 2 replicas"),
        (lambda s: s.map(uneven_async, name="m"), "'m' has 64 items in flight"),
        (lambda s: s.union(s.map(str)).filter(bool, name="m"), "'m' takes several streams"),
    ],
)
def test_it_says_why_it_is_needed(change: Callable[[DataStream], DataStream], why: str) -> None:
    env = LocalEnvironment("needed")
    text = plan_text(change(env.from_collection([1])).ordered(max_ahead=2000), env)
    assert f"ordered: needed: {why}; its sources stay within 2,000 items of it" in text
    assert "restores the order" in text


def test_an_async_operator_that_works_on_one_item_changes_no_order() -> None:
    env = LocalEnvironment("single")
    single = Contract(resources=Resources(concurrency=1))
    stream = env.from_collection(range(30)).key_by(lambda n: n % 3).map(uneven_async, contract=single, parallelism=1)
    ordered = stream.ordered()
    assert ordered.collect() == list(range(30))
    assert "left out" in plan_text(ordered, env)


def test_behind_one_that_is_needed_a_second_one_is_not() -> None:
    env = LocalEnvironment("again")
    stream = env.from_collection([1]).map(str, parallelism=2).ordered().map(str).ordered(name="second")
    assert "second: left out" in plan_text(stream, env)


def test_what_makes_no_sense_is_refused() -> None:
    env = LocalEnvironment("wrong")
    numbers = env.from_collection([1, 2])
    for wrong in (0, -1, True, 1.5, "many"):
        with pytest.raises(PipelineError, match=r"ordered max_ahead must be a whole number >= 1, got"):
            numbers.ordered(max_ahead=wrong)  # type: ignore[arg-type]
    with pytest.raises(PipelineError, match=r"parallelism 2 is not possible: a sink that takes items in order has one"):
        numbers.sink(print, parallelism=2, ordered=True).submit()


def test_its_parallelism_is_not_for_options() -> None:
    env = LocalEnvironment("options")
    with pytest.raises(PipelineError, match=r"ordered\(\) gives one order, so it has one replica"):
        plan_text(env.from_collection([1]).ordered(), env, parallelism={"ordered": 2})


def test_a_source_that_waits_is_woken_by_room_and_by_its_end() -> None:
    tracker, signals = SequenceTracker([0], 1, max_ahead=1), JobSignals()
    signals.on_stop(tracker.wake)
    stopping = signals.source("numbers")
    returned: list[int] = []

    def waits() -> None:
        for place in (1, 2):
            tracker.wait(place, stopping)
            returned.append(place)

    thread = threading.Thread(target=waits)
    thread.start()
    tracker.report({0: -1})
    assert until(lambda: returned == [1])
    tracker.wake()
    assert not until(lambda: len(returned) > 1, 0.1)
    signals.end_source("another")
    assert not until(lambda: len(returned) > 1, 0.1)
    signals.end_source("numbers")
    thread.join(5)
    assert returned == [1, 2]


# -- the decisions, without threads ---------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_rows_come_out_in_order_whatever_happens_on_the_way(data: st.DataObject) -> None:
    """Random lives of rows: they multiply, die and arrive in any order, as long as a source may go on."""
    sources = data.draw(st.integers(1, 3))
    ends = [data.draw(st.integers(0, 8)) for _ in range(sources)]
    max_ahead = data.draw(st.integers(1, 6))
    tracker, rows = SequenceTracker(range(sources), sources, max_ahead), Resequencer()
    nudges: list[int] = []
    tracker.on_advance(lambda: nudges.append(1))
    emitted = [0] * sources
    alive: list[tuple[int, ...]] = []
    arrived: list[tuple[int, ...]] = []
    out: list[tuple[int, ...]] = []
    while True:
        moves: list[tuple[str, int]] = [
            ("emit", source)
            for source in range(sources)
            if emitted[source] < ends[source] and emitted[source] * sources + source < tracker.limit
        ]
        moves += [(move, number) for number in range(len(alive)) for move in ("die", "multiply", "arrive")]
        if not moves:
            break
        move, number = data.draw(st.sampled_from(moves))
        if move == "emit":
            alive.append((emitted[number] * sources + number,))
            emitted[number] += 1
        else:
            place = alive.pop(number)
            if move == "die":
                tracker.report({place[0]: -1})
            elif move == "multiply":
                alive += [(*place, 0), (*place, 1)] if len(place) < 4 else [(*place, 0)]
                tracker.report({place[0]: 1} if len(place) < 4 else {})
            else:
                arrived.append(place)
                rows.add(Packet([place], origins=[placed(0, place)]))
                tracker.arrive(rows.counted(Packet([place], origins=[placed(0, place)])))
        for source in range(sources):
            if emitted[source] == ends[source]:
                tracker.end_source(source, ends[source])
        out += [row[0] for row in rows.release(tracker.frontier)]
        # What has come out is complete: nothing that is still alive belongs before it.
        assert all(out[-1] < place for place in alive) if out else True
        assert rows.held <= sum(1 for place in arrived if place[0] < tracker.limit)
    assert emitted == ends, "every source came to its end"
    assert out == sorted(arrived)
    assert not rows.held


def test_a_row_that_comes_too_late_is_an_error() -> None:
    tracker = SequenceTracker([0], 1, 5)
    tracker.report({0: -1})
    with pytest.raises(OrderLostError, match=r"a row came for place 0, but all before 1 was complete"):
        tracker.report({0: 1})


def test_what_is_emitted_at_the_end_waits_for_the_end() -> None:
    rows = Resequencer()
    stamps = [placed(0, (END, 4)), placed(0, (END, 2)), placed(0, (0,))]
    rows.add(Packet(["late", "early", "item"], origins=list(stamps)))
    assert rows.counted(Packet([0, 0, 0], origins=list(stamps))) == {0: -1}
    assert [row[1] for row in rows.release(1)] == ["item"]
    assert [row[1] for row in rows.drain()] == ["early", "late"]


def test_io_of_an_operator_before_it_is_kept(tmp_path: Path) -> None:
    """A queue of one item in front of an operator, and one of two behind it: bounds hold with places as well."""
    env = environment(tmp_path)
    narrow = Contract(io=IOSpec(queue_capacity=1))
    stream = env.from_collection(range(300)).map(uneven, parallelism=3, contract=narrow)
    stream.ordered().sink(lambda n: None)
    for replica in finished(env).metrics.replicas:
        assert replica.queue_depth_max <= max(1, replica.queue_capacity)
