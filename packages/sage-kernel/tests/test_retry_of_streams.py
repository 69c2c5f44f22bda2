"""Dead letters that are given back to operators on several streams: each to the stream that it came from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from gates import Gate, retry

from sage.kernel.api import CoMapFunction, Contract, Execution, PipelineError
from sage.kernel.api.replay import DeadLetterRetry
from sage.kernel.runtime import LetterState


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "home")


@pytest.mark.parametrize("side", [0, 1])
def test_a_join_gets_both_sides_or_none(gate: Gate, side: int) -> None:
    """An item without any partner would be gone."""
    env = gate.env()
    tried = env.from_collection([1]).map(gate.check, name="tried").key_by(abs)
    other = env.from_collection([1]).key_by(abs)
    (other.join(tried, name="join") if side else tried.join(other, name="join")).sink(gate.out.append)
    env.submit()
    message = f"through join 'join': only its {('first', 'second')[side]} stream would have items"
    with pytest.raises(PipelineError, match=message), DeadLetterRetry(env, empty_state=True):
        pass
    assert gate.items(LetterState.OPEN) == ["1"]


def keyed_pair(pair: tuple[str, int]) -> int:
    return pair[1]


@pytest.mark.parametrize(("kind", "within"), [("inner", None), ("left", None), ("inner", (-1, 1))])
def test_items_of_a_join_come_back_on_their_own_stream(gate: Gate, within: Any, kind: str) -> None:
    def pair(left: Any, right: Any) -> Any:
        return gate.check((left, right))

    env = gate.env()
    left = env.from_collection([("l", 1), ("l", 2), ("l", 3)]).key_by(keyed_pair)
    right = env.from_collection([("r", 1), ("r", 2), ("r", 1)]).key_by(keyed_pair)
    time = {} if within is None else {"within": within, "time": lambda item: 0.0}
    left.join(right, pair, kind=kind, name="join", **time).sink(gate.out.append)
    gate.refused = lambda item: item[1] is not None
    env.submit()
    found = {(letter.item, letter.side) for letter in gate.letters()}
    assert found
    assert all(item.startswith("('l'") == (side == 0) for item, side in found)
    # Whichever item came second was set aside; the retry has those alone.
    sides = {side for _, side in found}
    gate.out.clear()
    gate.refused = lambda item: False
    if len(sides) < 2:
        with pytest.raises(PipelineError, match="only its (first|second) stream"), DeadLetterRetry(env):
            pass
        return
    with pytest.raises(PipelineError, match="operator 'join' keeps state"), DeadLetterRetry(env):
        pass
    assert retry(env, empty_state=True).retried == len(gate.letters())
    assert all(item[0][0] == "l" for item in gate.out)


def test_items_of_both_streams_of_a_join_meet_in_a_retry(gate: Gate) -> None:
    env = gate.env()
    left = env.from_collection([1, 2, 3]).map(gate.check, name="left").key_by(abs)
    right = env.from_collection([-1, -2, 3]).map(gate.check, name="right").key_by(abs)
    left.join(right, name="join").sink(gate.out.append)
    gate.refused = lambda n: abs(n) < 3
    env.submit()
    assert gate.out == [(3, 3)]
    gate.out.clear()
    gate.refused = lambda n: False
    with pytest.raises(PipelineError, match="operator 'join' keeps state"), DeadLetterRetry(env):
        pass
    assert retry(env, empty_state=True).retried == 4
    assert sorted(gate.out) == [(1, -1), (2, -2)]


@pytest.mark.parametrize("ahead", [1, 1024])
@pytest.mark.parametrize("failing", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_through_an_interleave(gate: Gate, failing: tuple[int, ...], ahead: int) -> None:
    """Streams without letters are not waited for."""
    env = gate.env()
    streams = [env.from_collection([10 * n, 10 * n + 1]).map(gate.check, name=f"check {n}") for n in range(3)]
    streams[0].interleave(*streams[1:], ahead=ahead, name="turns").sink(gate.out.append)
    gate.refused = lambda n: n // 10 in failing
    env.submit()
    gate.out.clear()
    gate.refused = lambda n: False
    assert retry(env).retried == 2 * len(failing)
    assert sorted(gate.out) == [10 * n + each for n in failing for each in range(2)]
    if ahead > 1:
        assert gate.out == [10 * n + each for each in range(2) for n in failing]


@pytest.mark.parametrize("execution", [Execution.AUTO, Execution.PROCESS])
@pytest.mark.parametrize("keyed", [False, True])
def test_an_item_of_a_comap_comes_back_on_its_own_stream(gate: Gate, execution: Execution, keyed: bool) -> None:
    limit = gate.home.parent / "limit"
    limit.write_text("0")

    def under(number: int) -> int:
        if number >= int(limit.read_text()):
            raise ValueError(f"{number} is too large")
        return number

    env = gate.env()
    left, right = env.from_collection([1, 2]), env.from_collection([3, 4, 1])
    if keyed:
        left, right = left.key_by(abs), right.key_by(abs)
    joined = left.connect(right).comap(
        lambda n: ("left", under(n)),
        lambda n: ("right", under(n)),
        contract=Contract(execution=execution),
        name="both",
    )
    joined.sink(gate.out.append)
    env.submit()
    assert gate.out == []
    assert sorted((letter.item, letter.side) for letter in gate.letters()) == [
        ("1", 0), ("1", 1), ("2", 0), ("3", 1), ("4", 1),
    ]  # fmt: skip
    limit.write_text("4")
    outcome = retry(env)
    assert (outcome.retried, outcome.failed_again) == (5, 1)
    assert sorted(gate.out) == [("left", 1), ("left", 2), ("right", 1), ("right", 3)]
    limit.write_text("9")
    assert retry(env).retried == 1  # of one stream alone
    assert gate.out[4:] == [("right", 4)]


def test_an_item_of_a_comap_that_takes_its_process_along(gate: Gate) -> None:
    env = gate.env()
    left, right = env.from_collection([1]), env.from_collection([2])
    contract = Contract(execution=Execution.PROCESS)
    left.connect(right).comap(lambda n: os._exit(3), str, contract=contract, name="both").sink(gate.out.append)
    env.submit()
    assert gate.out == ["2"]
    assert [(letter.item, letter.side) for letter in gate.letters()] == [("1", 0)]


class Sums(CoMapFunction[int, int, int]):
    total = 0

    def execute1(self, item: int) -> int:
        self.total += 1 // item
        return self.total

    def execute2(self, item: int) -> int:
        return self.total


def test_a_comap_class_keeps_something_of_one_stream_for_the_other(gate: Gate) -> None:
    env = gate.env()
    zeros = env.from_collection([0])
    zeros.connect(zeros).comap(Sums, name="sums").sink(gate.out.append)
    env.submit()
    with (
        pytest.raises(PipelineError, match="operator 'sums' keeps state, which ended with the run"),
        DeadLetterRetry(env),
    ):
        pass
    assert retry(env, empty_state=True).failed_again == 1
