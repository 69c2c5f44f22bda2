"""The compiler: what each pass decides and how it refuses, and that plans are pure data."""

from __future__ import annotations

import collections.abc as abc
import threading
import typing
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NewType, Optional, Protocol, TypedDict, TypeVar, Union

import pytest
from executions import KINDS
from hypothesis import given, note, settings
from strategies import Pipeline, build, describe, pipelines

from sage.common.errors import ConfigError, InvalidArgumentError
from sage.kernel.api import Contract, Execution, IOSpec, LocalEnvironment, MapFunction, PipelineError, Resources
from sage.kernel.compiler import (
    PASSES,
    CompileOptions,
    NodeCapacity,
    compile_graph,
    render_dot,
    render_mermaid,
    render_text,
)
from sage.kernel.compiler.types import fits
from sage.kernel.graph import ExecutionGraph, LogicalGraph, Routing, TypeMismatchError, UnschedulableError

NODE = NodeCapacity(name="node", cpus=4, gpus=1, memory_bytes=1 << 30)
HERE = Path(__file__).name


def compiled(env: LocalEnvironment, **options: Any) -> ExecutionGraph:
    return compile_graph(env.graph, CompileOptions(**{"node": NODE, **options}))


def routings(plan: ExecutionGraph, target: str) -> set[Routing]:
    return {edge.routing for edge in plan.edges if edge.targets[0].startswith(f"{target}[")}


def chains(plan: ExecutionGraph) -> set[tuple[str, ...]]:
    return {task.chain for task in plan.tasks}


def notes(plan: ExecutionGraph, compiler_pass: str) -> str:
    return "\n".join(f"{note.subject}: {note.text}" for note in plan.notes if note.compiler_pass == compiler_pass)


async def later(item: Any) -> Any:
    return item


# -- plans are pure data --------------------------------------------------------------------------------------


def graph_of(pipeline: Pipeline) -> LogicalGraph:
    env = LocalEnvironment("random")
    build(pipeline, env, KINDS["async"], {})
    return env.graph


@settings(max_examples=100, deadline=None)
@given(pipeline=pipelines(items_max=3))
def test_random_plans(pipeline: Pipeline) -> None:
    note(describe(pipeline))
    graph = graph_of(pipeline)
    before = graph.transformations
    options = CompileOptions(fusion=pipeline.fusion, queue_capacity=pipeline.queue_capacity, node=NODE)
    plan = compile_graph(graph, options)
    assert compile_graph(graph, options) == plan, "the same input gives an equal plan"
    assert graph.transformations == before, "the input is left alone"
    assert ExecutionGraph.from_json(plan.to_json()) == plan
    assert ExecutionGraph.from_json(plan.to_json().encode()) == plan
    assert plan.diff(ExecutionGraph.from_json(plan.to_json())) == ()
    ids = [task.id for task in plan.tasks]
    assert len(set(ids)) == len(ids)
    known = {task.id: task for task in plan.tasks}
    placed = [name for task in plan.tasks if task.replica_index == 0 for name in task.chain]
    assert sorted(placed) == sorted(operator.name for operator in before), "each operator is in one chain"
    for edge in plan.edges:
        assert edge.source in known
        assert all(known[target].queue is not None for target in edge.targets)
        assert edge.routing is not Routing.FORWARD or len(edge.targets) == 1
    for task in plan.tasks:
        assert (task.queue is None) == (graph[task.chain[0]].inputs == ())
        assert task.queue is None or task.queue.capacity >= 1
    heads = [operator for operator in before if (operator.name,) == (known_chain(plan, operator.name)[0],)]
    producers = {operator.name: known_parallelism(plan, operator.name) for operator in before}
    assert len(plan.edges) == sum(producers[upstream] for operator in heads for upstream in operator.inputs)
    for text in (render_text(plan, explain=True), render_mermaid(plan), render_dot(plan)):
        assert all(operator.name in text for operator in before)


def known_chain(plan: ExecutionGraph, operator: str) -> tuple[str, ...]:
    return next(task.chain for task in plan.tasks if operator in task.chain)


def known_parallelism(plan: ExecutionGraph, operator: str) -> int:
    return next(task.parallelism for task in plan.tasks if operator in task.chain)


@settings(max_examples=60, deadline=None)
@given(one=pipelines(items_max=1, steps_max=4), other=pipelines(items_max=1, steps_max=4))
def test_a_diff_is_empty_only_for_plans_that_run_the_same(one: Pipeline, other: Pipeline) -> None:
    left, right = compile_graph(graph_of(one)), compile_graph(graph_of(other))
    lines = left.diff(right)
    assert lines == left.diff(right), "stable"
    assert (lines == ()) == ((left.tasks, left.edges) == (right.tasks, right.edges))
    backwards = right.diff(left)
    assert len(backwards) == len(lines)
    assert {line[2:] for line in lines if line[0] == "+"} == {line[2:] for line in backwards if line[0] == "-"}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"name": 1}', "\x00", '{"name":"x","tasks":[],"edges":[],"format_version":2}']
)
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(PipelineError, match="not an execution graph|has format version 2, this release reads 1"):
        ExecutionGraph.from_json(text)


# -- decisions ------------------------------------------------------------------------------------------------


def test_passes_run_in_their_order() -> None:
    assert [compiler_pass.__name__ for compiler_pass in PASSES] == [
        "check_loops", "validate", "check_types", "choose_parallelism", "tell_measured", "choose_execution", "coarsen",
        "plan_order", "fuse", "refuse", "replicate", "wire", "place",
    ]  # fmt: skip


def test_options_beat_declarations() -> None:
    env = LocalEnvironment("p")
    stream = env.from_collection([1], name="in").map(len, parallelism=2, name="two")
    stream.map(len, name="one").sink(len, name="out")
    plan = compiled(env, parallelism={"one": 3})
    assert [known_parallelism(plan, name) for name in ("in", "two", "one", "out")] == [1, 2, 3, 1]
    assert "two: 2 replica(s): declared" in notes(plan, "parallelism")
    assert "one: 3 replica(s): set for this run" in notes(plan, "parallelism")


def test_an_option_for_nobody_offers_the_closest_name() -> None:
    env = LocalEnvironment("p")
    env.from_collection([1]).map(len, name="embed").sink(len)
    with pytest.raises(PipelineError, match=r"parallelism names an unknown operator 'embd'; did you mean 'embed'\?"):
        compiled(env, parallelism={"embd": 2})
    with pytest.raises(InvalidArgumentError, match=r"parallelism must be .* >= 1, got 0 \(operator 'embed'\)"):
        compiled(env, parallelism={"embed": 0})


def test_execution_follows_the_code_and_the_contract() -> None:
    env = LocalEnvironment("p")
    asked = Contract(execution=Execution.ASYNC, resources=Resources(concurrency=3))
    stream = env.from_collection([1]).map(later, name="coroutine").map(len, name="plain")
    stream.map(len, contract=asked, name="asked").sink(len, name="out")
    plan = compiled(env)
    by_head = {task.chain[0]: task for task in plan.tasks}
    assert (by_head["coroutine"].execution, by_head["coroutine"].concurrency) == (Execution.ASYNC, 64)
    assert by_head["plain"].execution is Execution.THREAD
    assert (by_head["asked"].execution, by_head["asked"].concurrency) == (Execution.ASYNC, 3)


def test_cpu_bound_work_goes_to_processes_where_it_can() -> None:
    class Locked(MapFunction[int, int]):
        def __init__(self) -> None:
            super().__init__()
            self.lock = threading.Lock()

        def execute(self, item: int) -> int:
            return item

    env = LocalEnvironment("p")
    heavy = Contract(cpu_bound=True)
    stream = (
        env.from_collection([1]).map(len, contract=heavy, name="heavy").map(Locked(), contract=heavy, name="locked")
    )
    stream.map(later, contract=heavy, name="later").sink(len, contract=heavy, name="end")
    plan = compiled(env)
    assert {task.chain[0]: task.execution for task in plan.tasks if task.chain[0] != "collection"} == {
        "heavy": Execution.PROCESS,
        "locked": Execution.THREAD,
        "later": Execution.ASYNC,
        "end": Execution.THREAD,
    }
    said = notes(plan, "execution")
    assert "process: it is cpu_bound: pure-Python work shares no interpreter lock there" in said
    assert "it cannot be sent to a process, cannot pickle 'lock' at .lock of Locked" in said
    assert "holds up the event loop" in said
    assert "what a sink keeps belongs to this process" in said


def test_a_source_does_not_run_in_a_process() -> None:
    env = LocalEnvironment("p")
    env.from_source(lambda: [1], contract=Contract(execution=Execution.PROCESS), name="it").sink(len)
    with pytest.raises(PipelineError, match=rf"source runs on a thread, execution PROCESS.*{HERE}:\d+"):
        compiled(env)


def test_neighbours_in_processes_share_one() -> None:
    env = LocalEnvironment("p")
    asked = Contract(execution=Execution.PROCESS)
    stream = (
        env.from_collection([1], name="in").map(len, contract=asked, name="a").filter(len, contract=asked, name="b")
    )
    stream.map(len, name="c").sink(len, name="out")
    assert chains(compiled(env)) == {("in",), ("a", "b"), ("c", "out")}


@pytest.mark.parametrize(
    ("contract", "function", "message"),
    [
        (Contract(execution=Execution.PROCESS), later, "a coroutine function cannot run in a process"),
        (Contract(execution=Execution.THREAD), later, "a coroutine function cannot run on a thread"),
    ],
)
def test_vehicles_that_cannot_be_are_refused(contract: Contract, function: Any, message: str) -> None:
    env = LocalEnvironment("p")
    env.from_collection([1]).map(function, contract=contract, name="it").sink(len)
    with pytest.raises(PipelineError, match=rf"{message}.*\(operator 'it', .*{HERE}:\d+\)"):
        compiled(env)


def test_a_source_does_not_run_on_an_event_loop() -> None:
    env = LocalEnvironment("p")
    env.from_source(lambda: [1], contract=Contract(execution=Execution.ASYNC), name="it").sink(len)
    with pytest.raises(PipelineError, match=rf"source runs on a thread, execution ASYNC.*{HERE}:\d+"):
        compiled(env)


def test_neighbours_share_a_task() -> None:
    env = LocalEnvironment("p")
    env.from_collection([1], name="in").map(len, name="a").filter(len, name="b").sink(len, name="out")
    assert chains(compiled(env)) == {("in", "a", "b", "out")}
    assert chains(compiled(env, fusion=False)) == {("in",), ("a",), ("b",), ("out",)}
    assert "fusion is off" in notes(compiled(env, fusion=False), "fuse")


@pytest.mark.parametrize(
    ("declare", "reason"),
    [
        (lambda s: s.map(len, parallelism=2, name="it"), "1 replica(s) of 'in' feed 2"),
        (lambda s: s.map(later, name="it"), "'in' runs on thread, this on async"),
        (lambda s: s.union(s).map(len, name="it"), "it has several inputs"),
        (lambda s: (s.map(len, name="it"), s.map(len, name="other").sink(len))[0], "'in' has several consumers"),
        (
            lambda s: s.map(len, contract=Contract(io=IOSpec(queue_capacity=5)), name="it"),
            "its contract asks for a queue of 5",
        ),
    ],
)
def test_obstacles_to_fusion_are_named(declare: Any, reason: str) -> None:
    env = LocalEnvironment("p")
    declare(env.from_collection([1], name="in")).sink(len)
    plan = compiled(env)
    assert f"it: begins a task: {reason}" in notes(plan, "fuse")
    assert any(chain[0] == "it" for chain in chains(plan))


def test_items_find_their_replica() -> None:
    env = LocalEnvironment("p")
    stream = (
        env.from_collection([1, 2], name="in")
        .map(len, parallelism=2, name="spread")
        .map(len, parallelism=2, contract=Contract(io=IOSpec(queue_capacity=1)), name="same")
    )
    keyed = stream.map(len, name="gather").key_by(len, name="key").map(len, parallelism=3, name="keyed")
    keyed.map(len, parallelism=3, contract=Contract(io=IOSpec(queue_capacity=1)), name="stays").map(
        len, parallelism=2, name="moves"
    ).sink(len, name="out")
    plan = compiled(env)
    assert routings(plan, "spread") == {Routing.LEAST_LOADED}
    assert routings(plan, "same") == {Routing.FORWARD}
    assert routings(plan, "gather") == {Routing.FORWARD}
    assert routings(plan, "keyed") == {Routing.KEY_HASH}
    assert routings(plan, "stays") == {Routing.FORWARD}
    assert routings(plan, "moves") == {Routing.KEY_HASH}
    assert [edge.targets for edge in plan.edges if edge.source == "same[1]"] == [("gather[0]",)]
    assert all(edge.keyed for edge in plan.edges if edge.routing is Routing.KEY_HASH)


def test_queues_are_as_long_as_asked() -> None:
    env = LocalEnvironment("p")
    stream = env.from_collection([1], name="in").map(
        len, parallelism=2, contract=Contract(io=IOSpec(queue_capacity=5)), name="declared"
    )
    stream.map(len, parallelism=3, name="many").sink(len, name="one")
    capacities = {task.chain[0]: task.queue.capacity for task in compiled(env).tasks if task.queue is not None}
    assert capacities["declared"] == 5
    assert capacities["many"] < capacities["one"]
    capacities = {
        task.chain[0]: task.queue.capacity for task in compiled(env, queue_capacity=2).tasks if task.queue is not None
    }
    assert capacities == {"declared": 5, "many": 2, "one": 2}


@pytest.mark.parametrize(
    ("resources", "parallelism", "message"),
    [
        (Resources(cpu=5), 1, "one replica asks for cpu 5, node 'node' has 4"),
        (Resources(gpu=2), 1, "one replica asks for gpu 2, node 'node' has 1"),
        (Resources(gpu=1), 2, "all replicas together ask for gpu 2, node 'node' has 1"),
        (Resources(memory_bytes=1 << 29), 3, "all replicas together ask for memory_bytes"),
    ],
)
def test_what_fits_nowhere_is_unschedulable(resources: Resources, parallelism: int, message: str) -> None:
    env = LocalEnvironment("p")
    contract = Contract(resources=resources)
    env.from_collection([1]).map(len, parallelism=parallelism, contract=contract, name="big").sink(len)
    with pytest.raises(UnschedulableError, match=rf"unschedulable: {message}"):
        compiled(env)


def test_cores_are_shared_in_time() -> None:
    env = LocalEnvironment("p")
    env.from_collection([1]).map(len, parallelism=3, contract=Contract(resources=Resources(cpu=2))).sink(len)
    assert "they ask for 6 cores together and there are 4" in notes(compiled(env), "place")


# -- types ----------------------------------------------------------------------------------------------------

T = TypeVar("T")
UserId = NewType("UserId", int)


class Base:
    """A class."""


class Derived(Base):
    """Below it."""


class Other:
    """Beside it."""


class Closable(Protocol):
    """A protocol."""

    def close(self) -> None: ...


class Record(TypedDict):
    """A dict."""

    name: str


class Box(Generic[T]):
    """A generic class."""


@pytest.mark.parametrize(
    ("given_type", "taken", "expected"),
    [
        (int, int, True), (int, str, False), (str, int, False), (int, float, True), (float, int, False),
        (bool, int, True), (bool, float, True), (int, complex, True), (float, complex, True), (bytes, str, False),
        (Derived, Base, True), (Base, Derived, True), (Base, Other, False), (int, Any, True), (Any, int, True),
        (int, object, True), (object, int, True), (None, int, False), (int, None, False), (None, None, True),
        (int | None, int, True), (int | None, str, False), (int, int | str, True), (bytes, int | str, False),
        (Optional[int], Optional[str], True), (Union[int, str], Union[bytes, str], True),  # noqa: UP007, UP045
        (list[int], list[int], True), (list[int], list[str], False), (list[int], abc.Sequence, True),
        (list[int], abc.Sequence[int], True), (list, list[int], True), (abc.Sequence, list, True), (list, dict, False),
        (dict[str, int], dict[str, int], True), (dict[str, int], dict[str, str], False), (dict, abc.Mapping, True),
        (tuple[int, str], tuple[int, str], True), (tuple[int, str], tuple[int, int], False),
        (tuple[int, ...], tuple[int, int], True), (tuple[int, ...], list[int], False),
        (T, int, True), (int, T, True), (list[T], list[int], True), (Box[int], Box[str], False), (Box[int], Box, True),
        (UserId, int, True), (Literal["a"], str, True), ("Forward", int, True), (Derived, Closable, True),
        (Record, dict, True), (dict, Record, True), (typing.Callable[[int], int], abc.Callable, True),
        (Annotated[str, "x"], str, True), (abc.Iterable, abc.Hashable, True), (abc.Sized, abc.Iterable, True),
        (abc.Mapping, str, False), (type, str, False),
    ],
)  # fmt: skip
def test_types_that_fit(given_type: Any, taken: Any, expected: bool) -> None:
    assert fits(given_type, taken) is expected


def to_text(item: int) -> str:
    return str(item)


def from_number(item: int) -> int:
    return item


def words(item: str) -> list[str]:
    return item.split()


class Double(MapFunction[int, int]):
    """Takes and gives an int."""

    def execute(self, item: int) -> int:
        return 2 * item


@pytest.mark.parametrize(
    "declare",
    [
        lambda s: s.map(to_text, name="one").map(from_number, name="two"),
        lambda s: s.map(to_text, name="one").filter(lambda item: True).map(Double, name="two"),
        lambda s: s.map(to_text, name="one").key_by(len).map(Double(), name="two"),
        lambda s: s.map(Double, name="one").flatmap(words, name="two"),
        lambda s: s.map(to_text).flatmap(words, name="one").map(from_number, name="two"),
        lambda s: s.union(s.map(to_text, name="one")).map(from_number, name="two"),
    ],
)
def test_neighbours_that_do_not_fit_are_refused(declare: Any) -> None:
    env = LocalEnvironment("p")
    declare(env.from_collection([1])).sink(len)
    wanted = rf"'two' takes \w+, but '\w+' gives .*\(operator 'two', .*{HERE}:\d+\).*declared at .*:\d+"
    with pytest.raises(TypeMismatchError, match=wanted):
        compiled(env)


def test_neighbours_of_which_nothing_is_known_pass() -> None:
    env = LocalEnvironment("p")
    env.from_collection([1]).map(to_text).map(lambda item: item).map(from_number).map(str).map(print).sink(len)
    assert "have types on both ends, all fit" in notes(compiled(env), "types")


# -- configuration --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"queue_capacity": 0}, "queue_capacity"),
        ({"watchdog_s": -1}, "watchdog_s"),
        ({"queue_capacty": 3}, r"did you mean 'queue_capacity'\?"),
        ({"fusion": "perhaps"}, "fusion"),
        ([1], "config must be a mapping"),
    ],
)
def test_settings_of_an_environment_are_checked(config: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LocalEnvironment("p", config)


def test_a_time_limit_needs_an_operator_that_can_be_interrupted() -> None:
    env = LocalEnvironment("limits")
    stream = env.from_collection([1]).map(lambda n: n, contract=Contract(io=IOSpec(timeout_s=1)), name="slow")
    with pytest.raises(PipelineError, match=r"timeout_s needs an async operator.*\(operator 'slow', .*\.py:\d+\)"):
        stream.collect()


def test_key_by_has_no_parallelism_of_its_own() -> None:
    env = LocalEnvironment("keys", {"parallelism": {"k": 2}})
    stream = env.from_collection([1]).key_by(lambda n: n, name="k").reduce(max)
    with pytest.raises(PipelineError, match="give the parallelism to the operator behind it"):
        stream.collect()
