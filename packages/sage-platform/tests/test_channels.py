"""Conformance of channels: every form that joins workers passes this suite (`FORMS`)."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, Self

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sage.common.errors import InvalidArgumentError
from sage.platform import Channel, ChannelClosedError, ChannelSpec, LocalBackend, LocalChannel
from sage.platform.channels import AsyncReader, AsyncWritableGate, WritableGate
from sage.platform.window_channels import WindowChannel

FORMS: dict[str, Callable[[ChannelSpec], Channel[Any]]] = {
    "local": LocalChannel,
    "of a process": WindowChannel,
    "local backend": LocalBackend().channel,
}


class Batch:
    """Items of one writer, with a count as a message that can be cut and joined; no items: a control message."""

    def __init__(self, items: list[Any], joins: bool = True) -> None:
        self.items = items
        self.joins = joins

    @property
    def size(self) -> int:
        return len(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __bool__(self) -> bool:
        return True

    def split(self, count: int) -> tuple[Self, Self]:
        assert 0 < count < len(self.items), "the channel cuts where it must not"
        kind = type(self)
        return kind(self.items[:count], self.joins), kind(self.items[count:], self.joins)

    def absorb(self, other: Batch) -> bool:
        if not (self.joins and other.joins and self.items and other.items):
            return False
        self.items = self.items + other.items
        return True


@pytest.fixture(params=list(FORMS))
def make(request: pytest.FixtureRequest) -> Callable[..., Channel[Any]]:
    def create(capacity: int, coalesce_max: int = 1024) -> Channel[Any]:
        return FORMS[request.param](ChannelSpec("tested", capacity=capacity, coalesce_max=coalesce_max))

    return create


Make = Callable[..., Channel[Any]]


def started(*calls: Callable[[], Any]) -> list[threading.Thread]:
    threads = [threading.Thread(target=call, daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    return threads


def joined(threads: list[threading.Thread], seconds: float = 5.0) -> bool:
    give_up = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, give_up - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)


# -- one thread -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("field", "value"), [("capacity", 0), ("capacity", -1), ("coalesce_max", 0)])
def test_a_spec_refuses_what_cannot_be(field: str, value: int) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"{field} must be >= 1, got {value} \(channel 'x'\)"):
        ChannelSpec("x", **{"capacity": 1, field: value})


def test_what_does_not_fit_comes_back(make: Make) -> None:
    channel = make(3)
    rest = channel.try_put(Batch([1, 2, 3, 4, 5]))
    assert rest is not None
    assert (channel.occupancy, rest.items) == (3, [4, 5])
    full = Batch([6])
    assert channel.try_put(full) is full
    taken = channel.try_get(2)
    assert (taken.items, channel.occupancy) == ([1, 2], 1)
    assert channel.try_put(rest) is None
    left: list[int] = []
    while channel.occupancy:
        left += channel.get(10).items
    assert left == [3, 4, 5]
    assert channel.peak_occupancy == 3


def test_control_goes_through_a_full_channel_and_overtakes_nothing(make: Make) -> None:
    channel = make(2)
    channel.put(Batch([1, 2]))
    control = Batch([])
    assert channel.try_put(control) is None
    assert channel.try_put(Batch([])) is None
    assert channel.occupancy == channel.peak_occupancy == 2
    assert channel.get(10).items == [1, 2]
    assert channel.get(10) is control
    assert channel.get(10).items == []
    assert channel.try_get(10) is None


def test_control_stands_between_messages_that_would_be_joined(make: Make) -> None:
    channel = make(10)
    for items in ([1], [], [2]):
        channel.put(Batch(items))
    assert [channel.get(10).items for _ in range(3)] == [[1], [], [2]]


def test_small_messages_become_one_up_to_the_limit(make: Make) -> None:
    channel = make(100, coalesce_max=4)
    for number in range(10):
        channel.put(Batch([number]))
    taken = []
    while channel.occupancy:
        taken.append(channel.get(100).items)
    assert taken == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_a_message_that_was_taken_is_left_alone(make: Make) -> None:
    channel = make(10)
    channel.put(Batch([1, 2, 3]))
    head = channel.get(1)
    channel.put(Batch([4]))
    assert head.items == [1]
    assert channel.get(10).items == [2, 3, 4]


def test_load_counts_what_the_reader_has_not_come_back_from(make: Make) -> None:
    channel = make(10)
    if isinstance(channel, WindowChannel):
        # Its reader has several messages under way, and says itself how many items that is.
        channel.under_way = 2
        assert channel.load == 2
        return
    channel.put(Batch([1, 2, 3], joins=False))
    channel.get(2)
    assert (channel.load, channel.occupancy) == (3, 1)
    channel.try_get(10)
    assert channel.load == 1
    assert channel.try_get(10) is None
    assert channel.load == 0


def test_a_closed_channel_refuses_everything(make: Make) -> None:
    channel = make(2)
    channel.put(Batch([1]))
    channel.close()
    channel.close()
    assert channel.closed
    assert channel.occupancy == 0
    calls: list[Callable[[], Any]] = [
        lambda: channel.try_put(Batch([1])),
        lambda: channel.try_put(Batch([])),
        lambda: channel.put(Batch([1])),
        lambda: channel.try_get(1),
        lambda: channel.get(1),
        lambda: channel.notify_readable(lambda: None),
        lambda: channel.notify_writable(lambda: None),
        lambda: WritableGate().wait([channel]),
    ]
    for call in calls:
        with pytest.raises(ChannelClosedError, match="'tested' is closed"):
            call()


def test_notify_says_when_it_is_so_already(make: Make) -> None:
    channel = make(1)
    woken: list[str] = []
    assert channel.notify_writable(lambda: woken.append("room"))
    assert not channel.notify_readable(lambda: woken.append("item"))
    channel.put(Batch([1]))
    assert woken == ["item"], "called once, and not for the room that was there"
    assert channel.notify_readable(lambda: woken.append("again"))
    assert not channel.notify_writable(lambda: woken.append("room"))
    channel.get(1)
    assert woken == ["item", "room"]
    channel.put(Batch([1]))
    channel.get(1)
    assert woken == ["item", "room"], "each registration fires once"


@pytest.mark.parametrize("capacity", [1, 2, 3, 5, 8])
def test_a_writer_is_woken_at_the_latest_when_the_channel_is_empty(make: Make, capacity: int) -> None:
    channel = make(capacity)
    channel.put(Batch(list(range(capacity))))
    woken: list[int] = []
    assert not channel.notify_writable(lambda: woken.append(channel.occupancy))
    for _ in range(capacity):
        channel.get(1)
    assert len(woken) == 1
    assert woken[0] < capacity


class Reference(RuleBasedStateMachine):
    """Any sequence of calls from one thread against a list of items."""

    capacity = 3

    def __init__(self) -> None:
        super().__init__()
        self.channel = LocalChannel[Batch](ChannelSpec("tested", capacity=self.capacity, coalesce_max=4))
        self.expected: list[Any] = []
        self.number = 0
        self.peak = 0

    @rule(count=st.integers(0, 6), joins=st.booleans())
    def put(self, count: int, joins: bool) -> None:
        items = list(range(self.number, self.number + count))
        self.number += count
        rest = self.channel.try_put(Batch(list(items), joins))
        kept = len(items) - (rest.size if rest is not None else 0)
        assert rest is None or rest.items == items[kept:]
        room = self.capacity - sum(item is not None for item in self.expected)
        assert kept == min(room, count)
        self.expected += items[:kept] if count else [None]

    @precondition(lambda self: self.expected)
    @rule(most=st.integers(1, 6), waits=st.booleans())
    def get(self, most: int, waits: bool) -> None:
        message = self.channel.get(most) if waits else self.channel.try_get(most)
        assert message is not None
        items = message.items or [None]
        assert len(items) <= most
        assert self.expected[: len(items)] == items
        del self.expected[: len(items)]

    @precondition(lambda self: not self.expected)
    @rule()
    def find_it_empty(self) -> None:
        assert self.channel.try_get(1) is None

    @invariant()
    def counts(self) -> None:
        there = sum(item is not None for item in self.expected)
        self.peak = max(self.peak, there)
        assert self.channel.occupancy == there <= self.capacity
        assert self.channel.peak_occupancy == self.peak


TestAgainstAList = Reference.TestCase
TestAgainstAList.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


# -- several threads ------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    capacity=st.integers(1, 9),
    coalesce_max=st.sampled_from([1, 3, 1024]),
    writers=st.integers(1, 4),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=30),
    most=st.integers(1, 10),
)
def test_first_in_first_out_for_each_writer(
    make: Make, capacity: int, coalesce_max: int, writers: int, sizes: list[int], most: int
) -> None:
    channel = make(capacity, coalesce_max)

    def write(writer: int) -> None:
        number = 0
        for size in sizes:
            channel.put(Batch([(writer, number + offset) for offset in range(size)]))
            number += size
        channel.put(Batch([]))

    threads = started(*(lambda writer=writer: write(writer) for writer in range(writers)))
    got: dict[int, list[int]] = defaultdict(list)
    ended = 0
    while ended < writers:
        message = channel.get(most)
        assert len(message) <= most
        ended += not message.items
        for writer, number in message.items:
            got[writer].append(number)
    assert joined(threads)
    assert dict(got) == {writer: list(range(sum(sizes))) for writer in range(writers)}
    assert channel.peak_occupancy <= capacity


@pytest.mark.parametrize("capacity", [1, 2, 7])
def test_no_wake_up_is_lost(make: Make, capacity: int) -> None:
    """Two seconds of writers on threads, a writer on an event loop and a reader that changes its way of waiting."""
    channel = make(capacity, 2)
    stop_at = time.monotonic() + 2
    written = [0] * 4
    violations: list[int] = []

    def write(writer: int) -> None:
        rng = random.Random(writer)
        while time.monotonic() < stop_at:
            size = rng.randint(1, 4)
            channel.put(Batch([(writer, written[writer] + offset) for offset in range(size)]))
            if channel.occupancy > capacity:
                violations.append(channel.occupancy)
            written[writer] += size
        channel.put(Batch([]))

    async def write_async() -> None:
        gate = AsyncWritableGate()
        while time.monotonic() < stop_at:
            rest: Any = Batch([(3, written[3])])
            while (rest := channel.try_put(rest)) is not None:
                await gate.wait([channel])
            written[3] += 1
            await asyncio.sleep(0)
        channel.try_put(Batch([]))

    threads = started(*(lambda writer=writer: write(writer) for writer in range(3)), lambda: asyncio.run(write_async()))
    got: dict[int, list[int]] = defaultdict(list)
    ended, rng = 0, random.Random(9)
    readable = threading.Event()
    while ended < 4:
        if rng.random() < 0.5:
            message = channel.get(rng.randint(1, 3))
        else:
            readable.clear()
            if not channel.notify_readable(readable.set):
                assert readable.wait(5), "a wake-up was lost"
            message = channel.try_get(rng.randint(1, 3))
            if message is None:
                continue
        ended += not message.items
        for writer, number in message.items:
            got[writer].append(number)
    assert joined(threads)
    assert not violations
    assert channel.peak_occupancy <= capacity
    assert {writer: len(numbers) for writer, numbers in got.items()} == dict(enumerate(written))
    assert all(numbers == list(range(len(numbers))) for numbers in got.values())


def test_close_releases_everybody_at_once(make: Make) -> None:
    full, empty, raised = make(1), make(1), []
    full.put(Batch([0]))

    def expect_closed(call: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            try:
                call()
            except ChannelClosedError:
                raised.append(threading.current_thread())

        return run

    async def wait_async() -> None:
        gate = AsyncWritableGate()
        reader = AsyncReader(other)
        for waiting in (gate.wait([full]), reader.readable()):
            try:
                await asyncio.wait_for(waiting, 5)
                other.try_get(1)
            except ChannelClosedError:
                raised.append(threading.current_thread())

    other = make(1)
    calls = [lambda: full.put(Batch([1, 2, 3]))] * 5
    calls += [lambda: WritableGate().wait([full, full2]), lambda: empty.get(1)]
    full2 = make(1)
    full2.put(Batch([0]))
    threads = started(*map(expect_closed, calls), lambda: asyncio.run(wait_async()))
    time.sleep(0.15)
    begun = time.monotonic()
    for channel in (full, empty, other):
        channel.close()
    assert joined(threads, 2)
    assert time.monotonic() - begun < 1
    assert len(raised) == len(calls) + 2
    full2.close()


def test_a_gate_waits_for_any_of_its_channels(make: Make) -> None:
    channels = [make(1) for _ in range(3)]
    for channel in channels:
        channel.put(Batch([0]))
    gate, passed = WritableGate(), threading.Event()

    def wait() -> None:
        gate.wait(channels)
        passed.set()

    for turn in range(30):
        passed.clear()
        threads = started(wait)
        assert not passed.wait(0.002)
        channel = channels[turn % 3]
        channel.get(1)
        assert passed.wait(2)
        assert joined(threads)
        channel.put(Batch([0]))


def test_registrations_do_not_grow() -> None:
    """A writer that waits again and again leaves one registration in each channel, on a thread and on an event loop."""
    stays_full, drains = (LocalChannel[Batch](ChannelSpec(name, capacity=1)) for name in ("stays", "drains"))
    stays_full.put(Batch([0]))
    gate = WritableGate()

    def wait_often() -> None:
        for _ in range(200):
            rest: Any = Batch([1])
            while (rest := drains.try_put(rest)) is not None:
                gate.wait([stays_full, drains])

    async def wait_often_async() -> None:
        gate = AsyncWritableGate()
        for _ in range(200):
            rest: Any = Batch([1])
            while (rest := drains.try_put(rest)) is not None:
                await gate.wait([stays_full, drains])

    threads = started(wait_often, lambda: asyncio.run(wait_often_async()))
    for _ in range(400):
        drains.get(1)
    assert joined(threads)
    assert len(stays_full._wake_writers) <= 2
    assert len(drains._wake_writers) <= 2


def test_an_async_reader_sees_every_message(make: Make) -> None:
    channel = make(3)
    got: list[int] = []

    async def read() -> None:
        reader = AsyncReader(channel)
        while True:
            await reader.readable()
            while (message := channel.try_get(2)) is not None:
                if not message.items:
                    return
                got.extend(message.items)

    def write() -> None:
        for number in range(500):
            channel.put(Batch([number]))
            if number % 100 == 0:
                time.sleep(0.005)
        channel.put(Batch([]))

    threads = started(write)
    asyncio.run(asyncio.wait_for(read(), 10))
    assert joined(threads)
    assert got == list(range(500))


def test_a_wake_up_for_a_loop_that_has_ended_harms_nobody(make: Make) -> None:
    channel = make(1)

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(AsyncReader(channel).readable(), 0.01)

    asyncio.run(give_up())
    channel.put(Batch([1]))
    assert channel.get(1).items == [1]


@pytest.fixture(autouse=True)
def quick_switching() -> Iterator[None]:
    """Threads change often, so that a test sees many more interleavings."""
    import sys

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(before)


def test_room_that_is_made_less_than_what_waits() -> None:
    channel = WindowChannel[Batch](ChannelSpec("tested", capacity=8))
    assert channel.try_put(Batch(list(range(6)))) is None
    channel.limit(2)
    assert channel.room == 0
    refused = channel.try_put(Batch([6]))
    assert refused is not None
    assert list(refused.items) == [6]
    assert channel.try_put(Batch([])) is None, "a message without items is never refused"
    taken = channel.try_get(5)
    assert taken is not None
    assert list(taken.items) == [0, 1, 2, 3, 4]
    assert (channel.occupancy, channel.room) == (1, 1)
    channel.limit(100)
    assert channel.room == 7
