"""`rebalance`: items in turn to the replicas of the next operator."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from environments import environment, finished
from executions import ExecutionKind

from sage.kernel.api import LocalEnvironment, PipelineError, SinkFunction


class Where(SinkFunction[Any]):
    """Notes which replica took what."""

    taken: list[tuple[int, Any]] = []

    def execute(self, item: Any) -> None:
        self.taken.append((self.ctx.replica_index, item))


@pytest.mark.parametrize("replicas", [2, 3])
@pytest.mark.parametrize("upstream", [1, 2, 3])
def test_each_replica_gets_its_share_whatever_the_load(tmp_path: Path, replicas: int, upstream: int) -> None:
    Where.taken.clear()
    env = environment(tmp_path)
    stream = env.from_collection(list(range(60 * upstream)), parallelism=upstream).map(
        lambda n: n, parallelism=upstream
    )
    stream.rebalance().sink(Where, parallelism=replicas)
    finished(env)
    assert sorted(item for _, item in Where.taken) == list(range(60 * upstream))
    shares = Counter(replica for replica, _ in Where.taken)
    assert shares == dict.fromkeys(range(replicas), 60 * upstream // replicas)


@pytest.mark.parametrize("capacity", [None, 1])
def test_nothing_is_lost_or_doubled(execution: ExecutionKind, capacity: int | None) -> None:
    env = LocalEnvironment("all", {"queue_capacity": capacity, "watchdog_s": 10})
    stream = env.from_collection(range(100)).rebalance()
    same = execution.operator(lambda n: n)
    assert sorted(stream.map(same, parallelism=3, contract=execution.contract()).collect()) == list(range(100))


def test_it_is_told_in_the_plan_and_forgets_keys() -> None:
    env = LocalEnvironment("plan")
    keyed = env.from_collection([1]).key_by(abs, name="key")
    assert not hasattr(keyed.rebalance(), "reduce")
    keyed.rebalance().map(abs, parallelism=2).print()
    texts = [note.text for note in env.compile().notes if note.subject == "abs"]
    assert "key -> abs: round_robin: in turn to each of 2 replicas, as asked" in texts


def test_a_key_decides_itself_where_items_go() -> None:
    with pytest.raises(PipelineError, match=r"key_by decides itself .*test_rebalance.py:"):
        LocalEnvironment("key").from_collection([1]).rebalance().key_by(abs)
