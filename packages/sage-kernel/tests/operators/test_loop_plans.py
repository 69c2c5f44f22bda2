"""`from_future` and `fill`: what is refused, what the plan shows, and the parts of which a loop is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from environments import environment
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.kernel.api import (
    Batching,
    DataStream,
    FutureStream,
    LocalEnvironment,
    PipelineError,
)
from sage.kernel.compiler import render_dot, render_mermaid, render_text
from sage.kernel.graph import ExecutionGraph, LogicalGraph, TypeMismatchError
from sage.kernel.packet import EndOfStream, Packet
from sage.kernel.runtime.loops import EntranceChannel, LoopTracker
from sage.platform import ChannelClosedError, ChannelSpec, LocalChannel


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


# -- what cannot be a loop --------------------------------------------------------------------------------------


def build(problem: str) -> LocalEnvironment:
    """A pipeline that is wrong, of which compiling has to say so."""
    env = LocalEnvironment("wrong")
    again = env.from_future("again")
    items = env.from_collection([1, 2], name="items")
    body = items.union(again).map(lambda n: n - 1, name="body")
    match problem:
        case "unfilled":
            body.print()
        case "no source":
            alone = again.map(lambda n: n, name="alone")
            again.fill(alone)
            alone.union(items).print()
        case "no exit":
            again.fill(body)
            items.print()
        case "no loop":
            again.fill(items.map(lambda n: n, name="ahead"))
            body.print()
        case "itself":
            again.fill(again)
            body.print()
        case "order":
            again.fill(body.filter(lambda n: n > 0))
            body.filter(lambda n: n <= 0).ordered(name="sorted").print()
        case "order inside":
            inside = body.ordered(name="sorted")
            again.fill(inside.filter(lambda n: n > 0))
            inside.filter(lambda n: n <= 0).print()
        case "sink in order":
            again.fill(body.filter(lambda n: n > 0))
            body.filter(lambda n: n <= 0).sink(print, ordered=True)
        case "turns":
            turns = items.interleave(again, name="turns")
            again.fill(turns.filter(lambda n: n > 0))
            turns.print()
            body.print()
        case "lists":
            lists = body.batch(3, name="lists").flatmap(lambda some: some)
            again.fill(lists.filter(lambda n: n > 0))
            lists.print()
        case "batched":
            lists = body.map(lambda some: some, batch=Batching(size=3, max_wait_s=None), name="lists")
            again.fill(lists.filter(lambda n: n > 0))
            lists.print()
    return env


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ("unfilled", r"the future 'again' is never filled.*fill\(.*\(operator 'again', .*test_loop_plans.py:\d+\)"),
        ("no source", r"nothing enters the loop of 'again', so it could never end.*test_loop_plans.py:\d+"),
        ("no exit", r"nothing leaves the loop of 'again'.*test_loop_plans.py:\d+"),
        ("no loop", r"filled by 'ahead', which is not behind it.*test_loop_plans.py:\d+"),
        ("itself", r"nothing enters the loop of 'again'.*test_loop_plans.py:\d+"),
        ("order", r"ordered\(\) cannot stand in or behind the loop of 'again'.*'sorted', .*test_loop_plans.py:\d+"),
        ("order inside", r"ordered\(\) cannot stand in or behind the loop of 'again'.*'sorted'"),
        ("sink in order", r"ordered\(\) cannot stand in or behind the loop of 'again'"),
        ("turns", r"interleave cannot stand in the loop of 'again': .*use union.*'turns', .*test_loop_plans.py:\d+"),
        ("lists", r"batch cannot stand in the loop of 'again': .*max_wait_s.*'lists', .*test_loop_plans.py:\d+"),
        ("batched", r"a batched function cannot stand in the loop of 'again': .*max_wait_s.*'lists'"),
    ],
)
def test_what_compiling_refuses(problem: str, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        build(problem).compile()


def test_what_filling_refuses() -> None:
    env, other = LocalEnvironment("one"), LocalEnvironment("other")
    again = env.from_future("again")
    body = env.from_collection([1]).union(again).map(lambda n: n)
    wrong: Any
    for wrong in (0, -1, True, 1.5, "many", None):
        with pytest.raises(PipelineError, match=r"max_in_flight must be a whole number >= 1, got .*'again'"):
            again.fill(body, max_in_flight=wrong)
    with pytest.raises(PipelineError, match=r"environment 'one', got one of another, 'other'.*test_loop_plans.py:\d+"):
        again.fill(other.from_collection([1]))
    with pytest.raises(PipelineError, match="fill takes a stream, got 7"):
        again.fill(7)  # type: ignore[arg-type]
    with pytest.raises(PipelineError, match=r"fill_future takes what env.from_future\(\) made"):
        body.fill_future(body)  # type: ignore[arg-type]
    body.fill_future(again)
    with pytest.raises(PipelineError, match=r"filled a second time, the first is at .*test_loop_plans.py:\d+: fill it"):
        body.fill_future(again)


def test_only_the_stream_of_the_future_can_be_filled() -> None:
    env = LocalEnvironment("demo")
    again = env.from_future()
    assert isinstance(again, FutureStream)
    for stream in (again.map(str), again.union(), again.key_by(str), again.broadcast()):
        assert not isinstance(stream, FutureStream)


def test_a_cycle_without_a_future_cannot_be_declared(tmp_path: Path) -> None:
    env = LocalEnvironment("cycle")
    env.from_collection([1], name="items").map(abs, name="one").map(abs, name="two")
    graph = LogicalGraph("cycle")
    graph.add(env.graph["items"])
    with pytest.raises(PipelineError, match=r"unknown input 'two' .*'one'.*only through a future"):
        graph.add(replace(env.graph["one"], inputs=("items", "two")))
    with pytest.raises(PipelineError, match=r"unknown input 'one' .*only through a future"):
        graph.add(replace(env.graph["one"], inputs=("one",)))


def test_a_replica_and_a_process_of_a_future_are_refused(tmp_path: Path) -> None:
    env = environment(tmp_path, parallelism={"again": 2})
    looped(env, [("a", 1)], lambda s: s.map(down)).print()
    with pytest.raises(PipelineError, match="parallelism 2 is not possible: what comes back to a future"):
        env.compile()


def test_the_pipeline_of_a_service_has_no_loop() -> None:
    service = LocalEnvironment("service")
    again = service.from_future("again")
    body = service.from_requests().union(again).map(lambda n: n - 1)
    again.fill(body.filter(lambda n: n > 0))
    body.filter(lambda n: n <= 0).respond()
    with pytest.raises(PipelineError, match=r"future cannot stand in the pipeline of a service: .*'again'"):
        LocalEnvironment("caller").register_service("down", service)


def test_types_are_compared_across_the_feedback_edge() -> None:
    def count(text: str) -> int:
        return len(text)

    env = LocalEnvironment("types")
    again = env.from_future("again")
    counted = env.from_collection(["a"]).union(again).map(count, name="count")
    again.fill(counted)
    counted.print()
    with pytest.raises(
        TypeMismatchError, match=r"'count' takes str, but what comes back through the future 'again' is "
    ):
        env.compile()


# -- the plan ---------------------------------------------------------------------------------------------------


def plan(bound: int = 25) -> ExecutionGraph:
    env = LocalEnvironment("plan")
    looped(env, [("a", 1)], lambda s: s.map(down, name="step"), bound).sink(print)
    return env.compile()


def test_the_plan_shows_what_closes_the_loop() -> None:
    graph = plan()
    assert [(edge.source, edge.targets) for edge in graph.edges if edge.feedback] == [("more[0]", ("again[0]",))]
    queue = graph.task("again[0]").queue
    assert queue is not None
    assert queue.capacity == 25
    text = render_text(graph, explain=True)
    assert "=> again by forward, closes the loop" in text
    assert "again: a loop of 3 operators, closed by 'more'" in text
    assert "max_in_flight" in text
    assert "-.->|forward, closes the loop|" in render_mermaid(graph)
    assert '"more" -> "again" [label="forward", style=dashed, constraint=false];' in render_dot(graph)


def test_the_plan_travels_and_differs_by_its_bound() -> None:
    graph = plan()
    assert ExecutionGraph.from_json(graph.to_json()) == graph
    assert graph.diff(plan()) == ()
    assert any("again[0]" in line and "queue 25" in line and "queue 26" in line for line in graph.diff(plan(26)))


@pytest.mark.parametrize("fusion", [True, False])
def test_nothing_is_fused_across_the_ends_of_a_loop(fusion: bool) -> None:
    env = LocalEnvironment("fused", {"fusion": fusion})
    again = env.from_future("again")
    ready = again.map(lambda pair: pair, name="back")
    stepped = (
        env.from_collection([("a", 3)], name="items").union(ready).map(down, name="step").map(lambda p: p, name="on")
    )
    again.fill(stepped.filter(lambda pair: pair[1] > 0, name="more"))
    done = stepped.filter(lambda pair: pair[1] <= 0, name="done").map(lambda pair: pair, name="out")
    done.sink(lambda pair: None, name="end")
    chains = {task.chain for task in env.compile().tasks}
    inside = {"again", "back", "step", "on", "more"}
    assert all(inside.issuperset(chain) or inside.isdisjoint(chain) for chain in chains)
    assert ("again",) in chains
    assert (("step", "on") in chains) is fusion
    assert sorted(done.collect()) == [("a", 0)]


# -- the parts --------------------------------------------------------------------------------------------------


def test_the_tracker_ends_once_and_only_when_empty() -> None:
    ended: list[int] = []
    tracker = LoopTracker("again", limit=2, entrances=2)
    tracker.on_end(lambda: ended.append(1))
    assert tracker.admit(5) == 2
    assert tracker.admit(1) == 0
    tracker.end_entrance()
    tracker.report(+1)
    tracker.report(-3)
    assert not ended  # one entrance is open
    assert tracker.admit(1) == 1
    tracker.end_entrance()
    assert not ended  # one row is inside
    tracker.report(-1)
    assert ended == [1]
    tracker.report(+1)
    tracker.report(-1)
    assert ended == [1]


def test_the_entrance_wakes_who_waits_and_releases_them_on_close() -> None:
    tracker = LoopTracker("again", limit=1, entrances=1)
    entrance = EntranceChannel(LocalChannel(ChannelSpec("inbox", capacity=10)), tracker)
    woken: list[int] = []
    assert entrance.notify_writable(lambda: woken.append(1))
    rest = entrance.try_put(Packet(["a", "b"]))
    assert rest.values == ["b"]
    assert not entrance.notify_writable(lambda: woken.append(2))
    tracker.report(-1)
    assert woken == [2]
    assert entrance.try_put(rest) is None
    assert not entrance.notify_writable(lambda: woken.append(3))
    tracker.close()
    assert woken == [2, 3]
    assert entrance.closed
    with pytest.raises(ChannelClosedError):
        entrance.try_put(Packet(["c"]))


def test_room_that_the_channel_does_not_have_is_given_back() -> None:
    tracker = LoopTracker("again", limit=10, entrances=1)
    channel: LocalChannel[Any] = LocalChannel(ChannelSpec("inbox", capacity=2))
    entrance = EntranceChannel(channel, tracker)
    rest = entrance.try_put(Packet([1, 2, 3]))
    assert (rest.values, tracker.inside) == ([3], 2)
    assert entrance.try_put(rest) is rest
    assert tracker.inside == 2
    tight = LoopTracker("again", limit=3, entrances=1)
    channel = LocalChannel(ChannelSpec("inbox", capacity=2))
    entrance = EntranceChannel(channel, tight)
    rest = entrance.try_put(Packet([1, 2, 3, 4]))
    assert (rest.values, tight.inside, channel.occupancy) == ([3, 4], 2, 2)
    assert entrance.try_put(EndOfStream("source[0]", 0)) is None


@given(
    limit=st.integers(1, 6),
    capacity=st.integers(1, 6),
    moves=st.lists(st.tuples(st.sampled_from(["put", "get", "leave"]), st.integers(1, 4)), max_size=60),
)
@settings(max_examples=200, deadline=None)
def test_the_entrance_lets_in_no_more_than_both_have_room_for(
    limit: int, capacity: int, moves: list[tuple[str, int]]
) -> None:
    tracker = LoopTracker("again", limit=limit, entrances=1)
    channel: LocalChannel[Any] = LocalChannel(ChannelSpec("inbox", capacity=capacity))
    entrance = EntranceChannel(channel, tracker)
    waiting: Packet | None = Packet(list(range(30)))
    read: list[int] = []
    gone = 0
    for move, count in moves:
        if move == "put" and waiting is not None:
            waiting = entrance.try_put(waiting)
        elif move == "get" and (found := channel.try_get(count)) is not None:
            read += found.values
        elif move == "leave" and gone < len(read):
            leaving = min(count, len(read) - gone)
            gone += leaving
            tracker.report(-leaving)
        put = 30 - (0 if waiting is None else waiting.size)
        assert put == len(read) + channel.occupancy
        assert tracker.inside == put - gone <= limit
        if move == "put" and waiting is not None:
            assert tracker.inside == limit or channel.occupancy == capacity
    assert read == list(range(len(read)))
