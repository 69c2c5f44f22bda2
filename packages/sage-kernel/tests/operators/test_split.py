"""`split`: each item to one of several streams."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from environments import environment, finished, letters
from executions import ExecutionKind

from sage.kernel.api import DataStream, JobResult, LocalEnvironment, PipelineError

SIGNS: dict[str, Callable[[int], bool]] = {"plus": lambda n: n > 0, "minus": lambda n: n < 0}


def numbers(env: LocalEnvironment) -> DataStream:
    return env.from_collection([3, -1, 0, 4, -2])


def dropped(result: JobResult, operator: str) -> dict[str, float]:
    (found,) = [found for found in result.metrics.operators if found.operator == operator]
    return dict(found.counters)


@pytest.mark.parametrize("parallelism", [1, 3])
@pytest.mark.parametrize("fusion", [True, False])
def test_each_item_takes_the_first_branch_that_it_fits(tmp_path: Path, parallelism: int, fusion: bool) -> None:
    env = environment(tmp_path, fusion=fusion)
    cases = {**SIGNS, "never": lambda n: True}
    parts = numbers(env).split(cases, parallelism=parallelism, name="sign")
    out: dict[str, list[Any]] = {name: [] for name in parts}
    for name, stream in parts.items():
        stream.sink(out[name].append)
    result = finished(env)
    assert {name: sorted(items) for name, items in out.items()} == {"plus": [3, 4], "minus": [-2, -1], "never": [0]}
    assert dropped(result, "sign") == {}


@pytest.mark.parametrize("parallelism", [1, 2])
def test_what_fits_no_branch_goes_to_the_rest(execution: ExecutionKind, tmp_path: Path, parallelism: int) -> None:
    env = environment(tmp_path)
    choose = execution.operator(lambda n: "plus" if n > 0 else "minus" if n < 0 else "zero")
    parts = numbers(env).split(choose, into=["plus", "minus"], parallelism=parallelism, contract=execution.contract())
    out: list[Any] = []
    parts["rest"].sink(out.append)
    parts["plus"].sink(out.append)
    finished(env)
    assert sorted(out) == [0, 3, 4]


def test_branches_that_nobody_takes_are_dropped_and_counted(tmp_path: Path) -> None:
    env = environment(tmp_path)
    out: list[Any] = []
    numbers(env).split(SIGNS, name="sign")["plus"].sink(out.append)
    result = finished(env)
    assert out == [3, 4]
    assert dropped(result, "sign") == {"dropped.minus": 2, "dropped.rest": 1}


def test_a_branch_is_a_stream_like_any_other(tmp_path: Path) -> None:
    env = environment(tmp_path)
    parts = numbers(env).split(SIGNS)
    again = parts["plus"].map(lambda n: n * 10, parallelism=2).union(parts["minus"], parts["plus"])
    assert sorted(again.collect()) == [-2, -1, 3, 4, 30, 40]
    assert sorted(parts["plus"].connect(parts["minus"]).comap(str, abs).collect(), key=str) == [1, 2, "3", "4"]
    nested = parts["plus"].split({"even": lambda n: n % 2 == 0})
    assert (nested["even"].collect(), nested["rest"].collect()) == ([4], [3])
    keyed = parts["rest"].key_by(lambda n: "zero").count()
    assert keyed.collect() == [("zero", 1)]


@pytest.mark.parametrize("parallelism", [1, 3])
def test_behind_a_key_the_branches_keep_it(parallelism: int) -> None:
    env = LocalEnvironment("keyed")
    keyed = env.from_collection(range(20)).key_by(lambda n: n % 4)
    parts = keyed.split({"small": lambda n: n < 10}, parallelism=parallelism)
    assert sorted(parts["small"].count(emit="final", parallelism=parallelism).collect()) == [
        (0, 3),
        (1, 3),
        (2, 2),
        (3, 2),
    ]
    order = parts["small"].aggregate((), lambda seen, n: (*seen, n), emit="final").collect()
    assert dict(order)[1] == (1, 5, 9)


def test_an_item_whose_branch_cannot_be_told_is_set_aside(tmp_path: Path) -> None:
    env = environment(tmp_path)
    out: list[Any] = []
    parts = env.from_collection([1, None, "a", ["b"]]).split(
        lambda item: item if isinstance(item, list) else "high" if item > 0 else "low", into=["high", "low"]
    )
    parts["high"].sink(out.append)
    assert finished(env).dead_letters == 3
    assert out == [1]
    assert [letter.item for letter in letters(tmp_path)] == ["None", "'a'", "['b']"]
    assert "a branch is named by a text, got ['b']" in letters(tmp_path)[2].error


async def choose_async(item: Any) -> str:
    await asyncio.sleep(0)
    return "a"


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda s: s.split({}), "at least one branch"),
        (lambda s: s.split({"rest": bool}), "cannot be named 'rest': what fits no branch goes there"),
        (lambda s: s.split({"": bool}), "cannot be named ''"),
        (lambda s: s.split({1: bool}), "cannot be named 1"),
        (lambda s: s.split({"a": 5}), "a plain function for branch 'a', got 5"),
        (lambda s: s.split({"a": choose_async}), "a plain function for branch 'a'"),
        (lambda s: s.split({"a": bool}, into=["a"]), "leave out into="),
        (lambda s: s.split(bool), "takes predicates by name"),
        (lambda s: s.split(choose_async), "needs the names of its branches"),
        (lambda s: s.split(choose_async, into="ab"), "needs the names of its branches: .*got 'ab'"),
        (lambda s: s.split(choose_async, into=["a", "a"]), "each with its own name"),
        (lambda s: s.split(7), "got 7"),
        (lambda s: s.split({"plus": bool})["pluss"], "no branch 'pluss'; did you mean 'plus'"),
        (lambda s: s.split({"plus": bool})["zzz"], "there are: plus and rest"),
    ],
)
def test_what_cannot_be_split_is_refused(declare: Callable[[DataStream], Any], message: str) -> None:
    with pytest.raises(PipelineError, match=message) as refused:
        declare(numbers(LocalEnvironment("refused")))
    assert "test_split.py:" in str(refused.value)


def test_a_split_of_which_nobody_takes_anything_goes_nowhere() -> None:
    env = LocalEnvironment("nowhere")
    numbers(env).split(SIGNS)
    with pytest.raises(PipelineError, match="the stream of 'split' goes nowhere"):
        env.submit()


def test_the_plan_says_which_branch_an_edge_takes() -> None:
    env = LocalEnvironment("plan")
    parts = numbers(env).map(abs, name="abs").split(SIGNS)
    parts["plus"].print()
    plan = env.compile()
    assert [task.chain for task in plan.tasks] == [("collection", "abs", "split"), ("print",)]
    assert [edge.branch for edge in plan.edges] == ["plus"]
    assert "print: begins a task: it takes the branch 'plus' of 'split'" in [
        f"{note.subject}: {note.text}" for note in plan.notes
    ]
    assert type(plan).from_json(plan.to_json()) == plan
