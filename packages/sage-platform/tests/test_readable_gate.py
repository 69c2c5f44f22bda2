"""`ReadableGate`: the reader of a channel waits for a message, for a limited time."""

from __future__ import annotations

import threading
import time

import pytest

from sage.platform import ChannelClosedError, ChannelSpec, LocalBackend, LocalChannel
from sage.platform.channels import ReadableGate


class Item:
    """A message of one item."""

    size = 1

    def split(self, count: int) -> tuple[Item, Item]:
        raise AssertionError(count)

    def absorb(self, other: Item) -> bool:
        return False


def channel() -> LocalChannel[Item]:
    return LocalChannel(ChannelSpec("gate", capacity=10))


def test_it_waits_as_long_as_it_is_told() -> None:
    gate = LocalBackend().readable_gate(channel())
    begun = time.monotonic()
    assert not gate.wait(0.05)
    assert 0.045 <= time.monotonic() - begun < 1


def test_it_does_not_wait_for_what_is_there() -> None:
    full = channel()
    full.put(Item())
    begun = time.monotonic()
    assert ReadableGate(full).wait(5)
    assert time.monotonic() - begun < 1


def test_a_message_ends_the_wait() -> None:
    slow = channel()
    gate = ReadableGate(slow)
    writer = threading.Timer(0.05, slow.put, [Item()])
    writer.start()
    begun = time.monotonic()
    assert gate.wait(5)
    assert time.monotonic() - begun < 1
    assert slow.try_get(1) is not None
    writer.join()


def test_closing_ends_the_wait() -> None:
    closed = channel()
    gate = ReadableGate(closed)
    closer = threading.Timer(0.05, closed.close)
    closer.start()
    assert gate.wait(5)
    with pytest.raises(ChannelClosedError):
        closed.try_get(1)
    with pytest.raises(ChannelClosedError):
        gate.wait(5)
    closer.join()


def test_a_wait_that_was_given_up_leaves_the_channel_as_it_was() -> None:
    """A reader that waits for a time and then without one, and the other way round."""
    mixed = channel()
    gate = ReadableGate(mixed)
    got: list[Item] = []
    for _ in range(20):
        assert not gate.wait(0.001)
        writer = threading.Timer(0.002, mixed.put, [Item()])
        writer.start()
        got.append(mixed.get(1))
        writer.join()
    assert len(got) == 20


def test_no_message_is_overlooked() -> None:
    """Messages that come just as the time is over."""
    busy = channel()
    gate = ReadableGate(busy)

    def write() -> None:
        for _ in range(300):
            time.sleep(0.0005)
            busy.put(Item())

    writer = threading.Thread(target=write)
    writer.start()
    got = 0
    deadline = time.monotonic() + 10
    while got < 300 and time.monotonic() < deadline:
        if busy.try_get(1) is not None:
            got += 1
        else:
            gate.wait(0.0005)
    writer.join()
    assert got == 300
