"""`broadcast`: each item to every replica of the next operator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from environments import environment, finished
from executions import ExecutionKind

from sage.kernel.api import CoMapFunction, LocalEnvironment, PipelineError, SinkFunction


class Where(SinkFunction[Any]):
    """Notes which replica took what."""

    taken: list[tuple[int, Any]] = []

    def execute(self, item: Any) -> None:
        self.taken.append((self.ctx.replica_index, item))


@pytest.mark.parametrize("sources", [1, 2])
@pytest.mark.parametrize("capacity", [None, 1])
def test_every_replica_gets_every_item_in_order(tmp_path: Path, sources: int, capacity: int | None) -> None:
    Where.taken.clear()
    env = environment(tmp_path, queue_capacity=capacity)
    env.from_collection(list(range(40)), parallelism=sources).broadcast().sink(Where, parallelism=3)
    finished(env)
    for replica in range(3):
        got = [item for index, item in Where.taken if index == replica]
        assert sorted(got) == list(range(40))
        for source in range(sources):
            assert [item for item in got if item % sources == source] == list(range(source, 40, sources))


@pytest.mark.parametrize("parallelism", [1, 2, 4])
def test_an_operator_gives_as_many_outputs_as_it_has_replicas(execution: ExecutionKind, parallelism: int) -> None:
    stream = LocalEnvironment("copies").from_collection([1, None]).broadcast()
    got = stream.map(execution.operator(lambda n: n), parallelism=parallelism, contract=execution.contract()).collect()
    assert sorted(got, key=str) == sorted([1, None] * parallelism, key=str)


class Rules(CoMapFunction[int, int, Any]):
    """Sums the rules that have come."""

    def setup(self) -> None:
        self.rules: list[int] = []

    def execute1(self, item: int) -> Any:
        return "item", item

    def execute2(self, item: int) -> Any:
        self.rules.append(item)
        return "rule", self.ctx.replica_index, tuple(self.rules)


def test_rules_reach_all_replicas_and_items_one_each() -> None:
    env = LocalEnvironment("rules")
    items, rules = env.from_collection(range(30)), env.from_collection([7, 8])
    got = items.connect(rules.broadcast()).comap(Rules, parallelism=3).collect()
    assert sorted(row for row in got if row[0] == "item") == [("item", n) for n in range(30)]
    assert sorted(row for row in got if row[0] == "rule") == sorted(
        ("rule", replica, rules) for replica in range(3) for rules in [(7,), (7, 8)]
    )


def test_of_a_union_one_stream_alone_can_be_broadcast() -> None:
    env = LocalEnvironment("union")
    some = env.from_collection(["once"]).union(env.from_collection(["each"]).broadcast())
    assert sorted(some.map(lambda text: text, parallelism=3).collect()) == ["each", "each", "each", "once"]


def test_it_is_told_in_the_plan_and_fuses_where_there_is_one_replica() -> None:
    env = LocalEnvironment("plan")
    env.from_collection([1]).broadcast().map(abs).print()
    assert len(env.compile().tasks) == 1
    env = LocalEnvironment("plan")
    env.from_collection([1]).map(abs, parallelism=2).broadcast().map(abs, parallelism=2).print()
    texts = [note.text for note in env.compile().notes if note.subject == "abs-2"]
    assert "begins a task: its items are dealt out by broadcast" in texts
    assert "abs -> abs-2: broadcast: each item to each of 2 replicas, as asked" in texts


def test_a_key_decides_itself_where_items_go() -> None:
    stream = LocalEnvironment("key").from_collection([1]).broadcast()
    with pytest.raises(PipelineError, match=r"key_by decides itself .*test_broadcast.py:"):
        stream.key_by(abs)
