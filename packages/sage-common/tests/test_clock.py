"""The real clock, and the virtual one: order of timers, sleeping threads, exact arithmetic."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.common.clock import Clock, RealClock, VirtualClock
from sage.common.errors import InvalidArgumentError


def test_real_clock_is_the_machines() -> None:
    clock: Clock = RealClock()
    assert abs(clock.time() - time.time()) < 5
    assert RealClock.monotonic_ns is time.monotonic_ns
    before = clock.monotonic_ns()
    clock.sleep(0.01)
    clock.sleep(0)
    clock.sleep(-1)
    assert 10_000_000 <= clock.monotonic_ns() - before < 2_000_000_000


def test_virtual_clock_stands_still_until_advanced() -> None:
    clock: Clock = (virtual := VirtualClock(start=1_700_000_000.0))
    assert (clock.time(), clock.monotonic_ns()) == (1_700_000_000.0, 0)
    assert virtual.advance(2.5) == 0
    assert (clock.time(), clock.monotonic_ns()) == (1_700_000_002.5, 2_500_000_000)


def test_a_thousand_small_steps_add_up_exactly() -> None:
    clock = VirtualClock()
    for _ in range(1000):
        clock.advance(0.1)
    assert clock.monotonic_ns() == 100 * 10**9


@given(st.lists(st.tuples(st.integers(-5, 50), st.booleans()), max_size=30), st.integers(1, 20))
def test_timers_run_in_order_at_their_moments(timers: list[tuple[int, bool]], step: int) -> None:
    clock = VirtualClock()
    seen: list[tuple[int, int]] = []
    for index, (deadline, cancelled) in enumerate(timers):

        def note(index: int = index) -> None:
            seen.append((index, clock.monotonic_ns()))

        timer = clock.call_at(deadline, note)
        if cancelled:
            timer.cancel()
    kept = [(deadline, index) for index, (deadline, cancelled) in enumerate(timers) if not cancelled]
    assert clock.next_deadline_ns() == min((deadline for deadline, _ in kept), default=None)
    due = sum(clock.advance(step * 1e-9) for _ in range(0, 51, step))
    assert seen == [(index, max(0, deadline)) for deadline, index in sorted(kept)]
    assert due == len(kept)
    assert clock.next_deadline_ns() is None


def test_a_timer_may_register_and_cancel_others() -> None:
    clock = VirtualClock()
    seen: list[float] = []
    last = clock.call_later(9, lambda: seen.append(-1))

    def tick() -> None:
        seen.append(clock.time())
        clock.call_later(2, tick)
        last.cancel()

    clock.call_later(1, tick)
    assert clock.advance(10) == 5
    assert seen == [1, 3, 5, 7, 9]


def test_a_failing_timer_leaves_the_clock_usable() -> None:
    clock = VirtualClock()
    clock.call_later(1, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        clock.advance(5)
    assert clock.time() == 1
    clock.advance(5)
    assert clock.time() == 6


def test_sleepers_wake_one_after_the_other_in_the_order_of_deadlines() -> None:
    clock = VirtualClock()
    woken: list[tuple[int, bool]] = []

    def sleeper(seconds: int) -> None:
        clock.sleep(seconds)
        woken.append((seconds, clock.time() >= seconds))

    threads = [threading.Thread(target=sleeper, args=(seconds,)) for seconds in (3, 1, 2, 20)]
    for thread in threads:
        thread.start()
    assert clock.wait_for_sleepers(4)
    assert clock.advance(0.5) == 0
    assert woken == []
    assert clock.advance(0.5) == 1
    threads[1].join(10)
    assert woken == [(1, True)]
    assert clock.advance(9) == 2
    assert clock.wait_for_sleepers(1)
    assert threads[3].is_alive()
    assert clock.next_deadline_ns() == 20 * 10**9
    clock.advance(10)
    for thread in threads:
        thread.join(10)
    assert sorted(woken) == [(1, True), (2, True), (3, True), (20, True)]
    assert not clock.wait_for_sleepers(1, timeout_seconds=0.01)


def test_auto_advance_serves_a_single_thread() -> None:
    clock = VirtualClock(auto_advance=True)
    seen: list[float] = []
    clock.call_later(1, lambda: seen.append(clock.time()))
    clock.sleep(3)
    clock.sleep(0)
    assert (clock.time(), seen) == (3, [1])


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0])
def test_bad_durations_are_refused(seconds: float) -> None:
    clock = VirtualClock()
    with pytest.raises(InvalidArgumentError, match="seconds"):
        clock.advance(seconds)
    if seconds != -1.0:
        with pytest.raises(InvalidArgumentError, match="seconds"):
            clock.sleep(seconds)
        with pytest.raises(InvalidArgumentError, match="start"):
            VirtualClock(start=seconds)


def test_waiting_for_oneself_is_refused() -> None:
    for call in (lambda: clock.sleep(1), lambda: clock.advance(1)):
        clock = VirtualClock()
        clock.call_later(1, call)
        with pytest.raises(InvalidArgumentError):
            clock.advance(2)
