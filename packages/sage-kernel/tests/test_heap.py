"""While jobs run, the garbage collector leaves alone what was there before them."""

from __future__ import annotations

import gc
import threading

import pytest

from sage.kernel.api import LocalEnvironment
from sage.kernel.runtime.heap import YOUNG_MIN


def _frozen_during(**config: object) -> int:
    env = LocalEnvironment("heap", config)
    return env.from_collection([1]).map(lambda _: gc.get_freeze_count()).collect()[0]


def test_it_is_held_while_a_job_runs_and_given_back_after() -> None:
    assert _frozen_during() > 1000
    assert gc.get_freeze_count() == 0


def test_young_objects_are_looked_at_less_often_while_a_job_runs() -> None:
    usual = gc.get_threshold()
    env = LocalEnvironment("pace")
    assert env.from_collection([1]).map(lambda _: gc.get_threshold()).collect() == [(YOUNG_MIN, *usual[1:])]
    assert gc.get_threshold() == usual


@pytest.mark.parametrize("chosen", [(0, 10, 10), (YOUNG_MIN * 2, 5, 5)])
def test_a_pace_that_the_program_has_chosen_stays(chosen: tuple[int, int, int]) -> None:
    usual = gc.get_threshold()
    gc.set_threshold(*chosen)
    try:
        assert LocalEnvironment("pace").from_collection([1]).map(lambda _: gc.get_threshold()).collect() == [chosen]
        assert gc.get_threshold() == chosen
    finally:
        gc.set_threshold(*usual)


def test_it_can_be_left_alone() -> None:
    assert _frozen_during(hold_heap=False) == 0


def test_it_is_held_until_the_last_job_has_ended() -> None:
    go = threading.Event()
    env = LocalEnvironment("waits")
    env.from_collection([1]).sink(lambda _: go.wait(10))
    job = env.submit(wait=False)
    assert _frozen_during() > 1000
    assert gc.get_freeze_count() > 1000
    go.set()
    job.wait(10)
    assert gc.get_freeze_count() == 0


def test_what_the_program_has_frozen_itself_stays_frozen() -> None:
    gc.freeze()
    try:
        _frozen_during()
        assert gc.get_freeze_count() > 1000
    finally:
        gc.unfreeze()


def test_a_collector_that_is_switched_off_is_left_alone() -> None:
    gc.disable()
    try:
        assert _frozen_during() == 0
    finally:
        gc.enable()


def test_garbage_that_a_job_makes_is_collected_while_it_runs() -> None:
    class Node:
        def __init__(self) -> None:
            self.me = self

    def makes(item: int) -> int:
        Node()
        return item

    before = gc.get_stats()[0]["collected"] + gc.get_stats()[1]["collected"] + gc.get_stats()[2]["collected"]
    LocalEnvironment("garbage").from_collection(range(20_000)).map(makes).collect()
    after = sum(generation["collected"] for generation in gc.get_stats())
    assert after - before > 10_000


@pytest.fixture(autouse=True)
def _nothing_frozen() -> None:
    assert gc.get_freeze_count() == 0
