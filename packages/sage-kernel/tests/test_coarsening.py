"""The coarsening pass: hand-overs that cost more than the work are spared, or explained with the arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sage.common.errors import ConfigError, InvalidArgumentError
from sage.kernel.api import Contract, Execution, IOSpec, LocalEnvironment, PipelineError, StateKind, StateSpec
from sage.kernel.compiler import HAND_OVER_S
from sage.kernel.graph import ExecutionGraph


def same(item: int) -> int:
    return item


async def same_async(item: int) -> int:
    return item


def costing(seconds: float | None, **facts: Any) -> Contract:
    return Contract(io=IOSpec(item_cost_s=seconds), **facts)


def plan(declare: Callable[[Any], Any], **config: Any) -> ExecutionGraph:
    env = LocalEnvironment("plan", config)
    declare(env.from_collection([1, 2, 3], name="numbers")).sink(print, name="end")
    return env.compile()


def notes(graph: ExecutionGraph) -> list[str]:
    return [note.text for note in graph.notes if note.compiler_pass == "coarsen"]


def test_replicas_that_are_cheaper_than_their_hand_over_are_taken_back() -> None:
    graph = plan(lambda s: s.map(same, parallelism=4, contract=costing(0.02e-6)))
    assert [task.chain for task in graph.tasks] == [("numbers", "same", "end")]
    (text,) = notes(graph)
    assert text == (
        "1 replica(s) instead of 4, as 'numbers' has: an item takes 0.02 us (io.item_cost_s), handing it to a task of "
        "its own (thread) 0.1 us"
    )


def test_replicas_that_pay_and_those_of_unknown_cost_stay() -> None:
    for cost in (None, 1e-3):
        graph = plan(lambda s, cost=cost: s.map(same, parallelism=4, contract=costing(cost)))
        assert sum(task.chain[0] == "same" for task in graph.tasks) == 4
        assert notes(graph) == []


@pytest.mark.parametrize(
    ("declare", "config", "kept"),
    [
        (
            lambda s: s.map(same, parallelism=4, contract=costing(0, state=StateSpec(kind=StateKind.STATEFUL))),
            {},
            "each has a state of its own",
        ),
        (lambda s: s.map(same, contract=costing(0)), {"parallelism": {"same": 4}}, "they were set for this run"),
        (
            lambda s: s.key_by(same, name="key").map(same, parallelism=4, contract=costing(0)),
            {"coarsen": "warn"},
            "its replicas are more than copies",
        ),
        (
            lambda s: s.broadcast().map(same, parallelism=4, contract=costing(0)),
            {},
            "of how its items come to them",
        ),
    ],
)
def test_replicas_that_differ_are_kept_and_explained(declare: Any, config: dict[str, Any], kept: str) -> None:
    graph = plan(declare, **config)
    assert sum("same" in task.chain for task in graph.tasks) == 4
    (text,) = notes(graph)
    assert text.startswith(f"4 replicas do not pay, they are kept because {kept}: an item takes 0 us")


def test_keys_are_computed_where_the_items_are_then() -> None:
    """The order of each key would be lost between one replica of the map and four of the key_by."""
    graph = plan(lambda s: s.map(same, parallelism=4, contract=costing(0)).key_by(same, name="key").count())
    assert [task.chain for task in graph.tasks] == [("numbers", "same", "key", "count", "end")]


def test_a_process_for_next_to_nothing_becomes_a_thread() -> None:
    cheap, dear = costing(0.5e-6, cpu_bound=True), costing(50e-6, cpu_bound=True)
    graph = plan(lambda s: s.map(same, contract=cheap))
    assert [(task.chain, task.execution) for task in graph.tasks] == [(("numbers", "same", "end"), Execution.THREAD)]
    assert notes(graph)[0].startswith("thread instead of process: an item takes 0.5 us (io.item_cost_s), handing it to")
    graph = plan(lambda s: s.map(same, contract=dear))
    assert Execution.PROCESS in {task.execution for task in graph.tasks}
    assert notes(graph) == []


ASKED = costing(0.5e-6, execution=Execution.PROCESS)


def test_a_process_that_was_asked_for_and_does_not_pay_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(PipelineError) as caught:
        plan(lambda s: s.map(same, contract=ASKED))
    text = str(caught.value)
    assert text.startswith(
        "processes of its own cost more than they bring: 'same' takes 0.5 us (io.item_cost_s) of work per item, "
        "handing the item over (in packets, process) takes 1 us, so an item costs 1.5 us instead of 0.5 us; leave out "
        'execution=PROCESS (AUTO chooses), or set coarsen="warn" in the environment to have it all the same '
        "(operator 'same', "
    )
    assert "test_coarsening.py:" in text


def test_who_says_so_gets_it_all_the_same_explained_or_untouched() -> None:
    graph = plan(lambda s: s.map(same, contract=ASKED), coarsen="warn")
    assert Execution.PROCESS in {task.execution for task in graph.tasks}
    assert notes(graph)[0].startswith("a process does not pay, it is kept because the contract asks for it: an item")
    graph = plan(lambda s: s.map(same, contract=ASKED).map(same, parallelism=4, contract=costing(0)), coarsen=False)
    assert notes(graph) == []
    assert Execution.PROCESS in {task.execution for task in graph.tasks}
    assert sum("same-2" in task.chain for task in graph.tasks) == 4


def test_operators_that_share_a_process_share_its_hand_over() -> None:
    graph = plan(lambda s: s.map(same, contract=ASKED).map(same, contract=ASKED).map(same, contract=ASKED))
    assert [len(task.chain) for task in graph.tasks if task.execution is Execution.PROCESS] == [3]
    with pytest.raises(PipelineError, match="'same' -> 'same-2' takes 0.8 us"):
        cheap = costing(0.4e-6, execution=Execution.PROCESS)
        plan(lambda s: s.map(same, contract=cheap).map(same, contract=cheap))


def test_what_is_not_known_is_not_refused() -> None:
    unknown = Contract(execution=Execution.PROCESS)
    many = lambda n: [n] * 1000  # noqa: E731
    for declare in (
        lambda s: s.map(same, contract=unknown),
        lambda s: s.map(same, contract=ASKED).map(same, contract=unknown),
        lambda s: s.flatmap(many, contract=ASKED).map(same, contract=costing(1e-9, execution=Execution.PROCESS)),
    ):
        assert Execution.PROCESS in {task.execution for task in plan(declare).tasks}


def test_replicas_behind_keys_that_cost_more_than_they_bring_are_refused() -> None:
    cheap = costing(0.02e-6)
    with pytest.raises(PipelineError, match=r"4 replicas cost more than they bring: 'count' takes 0.02 us .* 0.12 us"):
        plan(lambda s: s.key_by(same).map(same, parallelism=4, contract=cheap, name="count"))
    dear = costing(5e-6)
    graph = plan(lambda s: s.key_by(same).map(same, parallelism=4, contract=dear, name="count"))
    assert sum("count" in task.chain for task in graph.tasks) == 4


def test_the_switch_is_checked() -> None:
    with pytest.raises(ConfigError, match="coarsen"):
        LocalEnvironment("plan", {"coarsen": "maybe"})


def test_more_processes_than_can_be_fed_are_explained() -> None:
    graph = plan(lambda s: s.map(same, parallelism=8, contract=costing(3.5e-6, cpu_bound=True)))
    assert notes(graph) == [
        "8 processes cannot be kept busy: an item takes 3.5 us there and 1 us here to hand it over, so 3 can be"
    ]


def test_pure_python_work_on_threads_is_explained() -> None:
    env = LocalEnvironment("sinks")
    env.from_collection([1]).sink(print, parallelism=2, contract=Contract(cpu_bound=True))
    assert notes(env.compile()) == [
        "2 replicas do the work of one: on threads pure-Python work shares one interpreter lock"
    ]


def test_async_for_next_to_nothing_is_explained() -> None:
    graph = plan(lambda s: s.map(same_async, contract=costing(0.1e-6)))
    assert notes(graph)[0].startswith("async does not pay, a plain function would be fused: an item takes 0.1 us")


@pytest.mark.parametrize("cost", [None, 0.0, 1.0])
def test_the_result_is_the_same_whatever_is_said_of_the_cost(cost: float | None) -> None:
    stream = LocalEnvironment("same").from_collection(range(200))
    mapped = stream.map(lambda n: n + 1, parallelism=3, contract=costing(cost, cpu_bound=True))
    assert sorted(mapped.filter(lambda n: n % 2, parallelism=2, contract=costing(cost)).collect()) == list(
        range(1, 201, 2)
    )


def test_hand_overs_are_ordered_as_they_are_measured() -> None:
    assert 0 < HAND_OVER_S[Execution.THREAD] < HAND_OVER_S[Execution.ASYNC] < HAND_OVER_S[Execution.PROCESS] < 1e-3


@pytest.mark.parametrize("cost", [-1, "1", float("inf"), True])
def test_a_cost_is_a_time(cost: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"io\.item_cost_s must be"):
        IOSpec(item_cost_s=cost)
