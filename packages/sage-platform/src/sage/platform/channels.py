"""Bounded channels between workers: the protocol, and the form that joins threads of one process.

A channel carries messages that hold items. Its capacity counts items. Invariants, which the conformance suite
checks on each form:

1. `occupancy <= capacity` at each instant; a message that is larger than the room left is split or waits.
2. Messages of one writer come out in the order in which they went in, and no item is lost or doubled.
3. A message without items (control) is never refused and never overtakes what its writer put before it.
4. After `close()`, each waiting `put`, `get` and wait ends at once with `ChannelClosedError`.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

from sage.common.errors import InvalidArgumentError

from .errors import ChannelClosedError

__all__ = [
    "AsyncReader",
    "AsyncWritableGate",
    "Channel",
    "ChannelSpec",
    "LocalChannel",
    "Message",
    "ReadableGate",
    "WritableGate",
]


class Message(Protocol):
    """What travels in a channel: a number of items that can be divided and joined; control messages have no
    items.
    """

    @property
    def size(self) -> int:
        """Items in the message."""

    def split(self, count: int) -> tuple[Self, Self]:
        """The first `count` items, and the rest; 0 < count < len."""

    def absorb(self, other: Self) -> bool:
        """Append the items of `other` if both may travel as one; False leaves both as they were."""


M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class ChannelSpec:
    """Name and capacity of a channel.

    Attributes:
        name: for messages and metrics.
        capacity: items that may wait in it, >= 1.
        coalesce_max: a message is joined with the one before it up to this many items, so that many small
            messages cost one.
    """

    name: str
    capacity: int
    coalesce_max: int = 1024

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise InvalidArgumentError(f"channel capacity must be >= 1, got {self.capacity!r} (channel {self.name!r})")
        if self.coalesce_max < 1:
            raise InvalidArgumentError(f"coalesce_max must be >= 1, got {self.coalesce_max!r} (channel {self.name!r})")


class Channel(Protocol[M]):
    """Many writers, one reader, bounded."""

    @property
    def spec(self) -> ChannelSpec:
        """Name and capacity."""

    @property
    def occupancy(self) -> int:
        """Items that wait in the channel."""

    @property
    def peak_occupancy(self) -> int:
        """Most items that ever waited in it."""

    @property
    def load(self) -> int:
        """Items that wait, plus those that the reader took and has not come back from."""

    @property
    def room(self) -> int:
        """Items that could be put now."""

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""

    def try_put(self, message: M) -> M | None:
        """Put as many items of `message` as fit now; the rest comes back, None when all went in."""

    def put(self, message: M) -> None:
        """Put the whole message; waits while the channel is full."""

    def try_get(self, items_max: int) -> M | None:
        """The next message, at most `items_max` items of it; None when the channel is empty."""

    def get(self, items_max: int) -> M:
        """The next message, at most `items_max` items of it; waits while the channel is empty."""

    def notify_readable(self, wake: Callable[[], None]) -> bool:
        """Call `wake` once when there is something to read; True, and no call, when there is already."""

    def notify_writable(self, wake: Callable[[], None]) -> bool:
        """Call `wake` once when there is room; True, and no call, when there is already."""

    def close(self) -> None:
        """End the channel: what waits in it is dropped and each waiter is released."""


class LocalChannel(Generic[M]):
    """Channel between threads and event loops of one process.

    Example:
        >>> class Text(str):
        ...     size = property(len)
        ...     def split(self, count): return Text(self[:count]), Text(self[count:])
        ...     def absorb(self, other): return False
        >>> channel = LocalChannel(ChannelSpec("demo", capacity=3))
        >>> channel.try_put(Text("hello"))
        'lo'
        >>> channel.occupancy, channel.get(2), channel.get(2)
        (3, 'he', 'l')
    """

    def __init__(self, spec: ChannelSpec) -> None:
        self._spec = spec
        self._capacity = spec.capacity
        self._coalesce_max = spec.coalesce_max
        # Writers wait until half of the room is free: fewer, larger hand-overs, and nobody waits longer for
        # an item that way, because the reader still has the other half before it.
        self._low_water = spec.capacity // 2
        self._mutex = threading.Lock()
        self._messages: deque[M] = deque()
        self._occupancy = 0
        self._peak = 0
        self._taken = 0
        self._handed: M | None = None
        self._wanted = 0
        self._closed = False
        self._wake_reader: Callable[[], None] | None = None
        self._wake_writers: dict[Callable[[], None], None] = {}
        self._reader_gate = threading.Lock()
        self._reader_gate.acquire()
        self._open_gate = self._reader_gate.release

    @property
    def spec(self) -> ChannelSpec:
        """Name and capacity."""
        return self._spec

    @property
    def occupancy(self) -> int:
        """Items that wait in the channel."""
        return self._occupancy

    @property
    def peak_occupancy(self) -> int:
        """Most items that ever waited in it."""
        return self._peak

    @property
    def load(self) -> int:
        """Items that wait, plus those that the reader took and has not come back from."""
        # Under the lock: a reader on its way from one item to the next would look idle without it, and a
        # router that sees that gives one replica an item too many.
        with self._mutex:
            return self._occupancy + self._taken

    @property
    def room(self) -> int:
        """Items that could be put now."""
        return max(0, self._capacity - self._occupancy)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def try_put(self, message: M) -> M | None:
        """Put as many items of `message` as fit now; the rest comes back, None when all went in."""
        rest: M | None = None
        with self._mutex:
            if self._closed:
                raise ChannelClosedError(self._spec.name)
            count = message.size
            occupancy = self._occupancy + count
            if occupancy > self._capacity and count:
                # Below 0 where the room has been made less than what waits.
                count = self._capacity - self._occupancy
                if count <= 0:
                    return message
                message, rest = message.split(count)
                occupancy = self._capacity
            wake = self._wake_reader
            self._wake_reader = None
            if occupancy > self._peak:
                self._peak = occupancy
            if wake is self._open_gate and 0 < count <= self._wanted and not self._messages:
                # The reader waits in `get` for just this: it takes it as it wakes, without coming here again.
                self._handed = message
                self._taken = count
            else:
                messages = self._messages
                if not messages or not count or not self._join(messages[-1], message):
                    messages.append(message)
                self._occupancy = occupancy
        if wake is not None:
            wake()
        return rest

    def _join(self, last: M, message: M) -> bool:
        return 0 < last.size <= self._coalesce_max - message.size and last.absorb(message)

    def put(self, message: M) -> None:
        """Put the whole message; waits while the channel is full."""
        rest = self.try_put(message)
        if rest is not None:
            gate = WritableGate()
            while rest is not None:
                gate.wait([self])
                rest = self.try_put(rest)

    def try_get(self, items_max: int) -> M | None:
        """The next message, at most `items_max` items of it; None when the channel is empty."""
        with self._mutex:
            if self._closed:
                raise ChannelClosedError(self._spec.name)
            if self._messages:
                return self._take(items_max)
            self._taken = 0
            return None

    def get(self, items_max: int) -> M:
        """The next message, at most `items_max` items of it; waits while the channel is empty."""
        while True:
            with self._mutex:
                if self._closed:
                    raise ChannelClosedError(self._spec.name)
                if self._messages:
                    return self._take(items_max)
                self._taken = 0
                self._wanted = items_max
                self._wake_reader = self._open_gate
            self._reader_gate.acquire()
            message, self._handed = self._handed, None
            if message is not None and not self._closed:
                return message

    def _take(self, items_max: int) -> M:
        messages = self._messages
        message = messages[0]
        count = message.size
        if count > items_max:
            message, messages[0] = message.split(items_max)
            count = items_max
        else:
            messages.popleft()
        self._occupancy = occupancy = self._occupancy - count
        self._taken = count
        if self._wake_writers and occupancy <= self._low_water:
            wakes, self._wake_writers = self._wake_writers, {}
            for wake in wakes:
                wake()
        return message

    def notify_readable(self, wake: Callable[[], None]) -> bool:
        """Call `wake` once when there is something to read; True, and no call, when there is already."""
        with self._mutex:
            if self._closed:
                raise ChannelClosedError(self._spec.name)
            self._taken = 0
            if self._messages:
                return True
            self._wake_reader = wake
            return False

    def notify_writable(self, wake: Callable[[], None]) -> bool:
        """Call `wake` once when there is room; True, and no call, when there is already."""
        with self._mutex:
            if self._closed:
                raise ChannelClosedError(self._spec.name)
            if self._occupancy < self._capacity:
                return True
            self._wake_writers[wake] = None
            return False

    def close(self) -> None:
        """End the channel: what waits in it is dropped and each waiter is released."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            self._messages.clear()
            self._occupancy = 0
            wakes, self._wake_writers = self._wake_writers, {}
            reader, self._wake_reader = self._wake_reader, None
        if reader is not None:
            reader()
        for wake in wakes:
            wake()


class WritableGate:
    """Lets one writer wait until at least one of several channels has room.

    A gate is made once per writer and used again, so that a channel holds at most one registration of each
    writer, however long it stays full while its neighbours drain. A wake-up may be stale: the writer looks
    again and waits again.
    """

    def __init__(self) -> None:
        self._opened = threading.Lock()
        self._opened.acquire()
        self._fired = threading.Lock()

    def wait(self, channels: Sequence[Channel[Any]]) -> None:
        """Wait for room in one of `channels`.

        Raises:
            ChannelClosedError: one of the channels is closed, now or while waiting.
        """
        for channel in channels:
            if channel.notify_writable(self._wake):
                return
        self._opened.acquire()
        self._fired.release()
        _raise_if_closed(channels)

    def _wake(self) -> None:
        if self._fired.acquire(blocking=False):
            self._opened.release()


class ReadableGate:
    """Lets the one reader of a channel wait for a message for a limited time.

    A wake-up may be stale: the reader looks again and waits again.

    Example:
        >>> channel = LocalChannel(ChannelSpec("demo", capacity=3))
        >>> ReadableGate(channel).wait(0.001)
        False
    """

    def __init__(self, channel: Channel[Any]) -> None:
        self._channel = channel
        self._opened = threading.Event()

    def wait(self, timeout_s: float) -> bool:
        """Wait until the channel has a message, or is closed; False when that took longer than `timeout_s`.

        Raises:
            ChannelClosedError: the channel was closed before.
        """
        self._opened.clear()
        if self._channel.notify_readable(self._opened.set):
            return True
        return self._opened.wait(timeout_s)


class AsyncWritableGate:
    """`WritableGate` for a coroutine; belongs to the event loop that it was made in."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    async def wait(self, channels: Sequence[Channel[Any]]) -> None:
        """Wait for room in one of `channels`.

        Raises:
            ChannelClosedError: one of the channels is closed, now or while waiting.
        """
        self._event.clear()
        for channel in channels:
            if channel.notify_writable(self._wake):
                return
        await self._event.wait()
        _raise_if_closed(channels)

    def _wake(self) -> None:
        _call_in_loop(self._loop, self._event.set)


def _raise_if_closed(channels: Sequence[Channel[Any]]) -> None:
    for channel in channels:
        if channel.closed:
            raise ChannelClosedError(channel.spec.name)


class AsyncReader(Generic[M]):
    """Reads a channel from a coroutine; belongs to the event loop that it was made in.

    Example:
        >>> class Text(str):
        ...     size = property(len)
        ...     def split(self, count): return Text(self[:count]), Text(self[count:])
        ...     def absorb(self, other): return False
        >>> async def main():
        ...     channel = LocalChannel(ChannelSpec("demo", capacity=3))
        ...     reader = AsyncReader(channel)
        ...     asyncio.get_running_loop().call_later(0.01, channel.put, Text("hi"))
        ...     await reader.readable()
        ...     return channel.try_get(10)
        >>> import asyncio
        >>> asyncio.run(main())
        'hi'
    """

    def __init__(self, channel: Channel[M]) -> None:
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    async def readable(self) -> None:
        """Wait until the channel has a message, or is closed."""
        self._event.clear()
        if not self._channel.notify_readable(self._wake):
            await self._event.wait()

    def _wake(self) -> None:
        _call_in_loop(self._loop, self._event.set)


def _call_in_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        # The loop has ended; whoever waited in it is gone, so nobody is left to wake.
        if not loop.is_closed():
            raise
