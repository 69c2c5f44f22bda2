"""Backends: what makes channels and workers of one kind. The kernel asks a backend and never starts a thread
itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from sage.common.clock import Clock, RealClock

from .channels import AsyncReader, AsyncWritableGate, Channel, ChannelSpec, LocalChannel, ReadableGate, WritableGate
from .processes import ProcessPool, default_process_pool
from .window_channels import WindowChannel
from .workers import AsyncioWorker, OnExit, ThreadWorker, Worker

__all__ = ["Backend", "LocalBackend"]


class Backend(Protocol):
    """Makes channels and workers that fit each other, and says which time it is for them."""

    @property
    def clock(self) -> Clock:
        """The clock of everything that runs on this backend."""

    def channel(self, spec: ChannelSpec) -> Channel[Any]:
        """A new channel."""

    def window_channel(self, spec: ChannelSpec) -> WindowChannel[Any]:
        """A new channel to a worker that has several messages under way at once."""

    def process_pool(self, preload: Sequence[str]) -> ProcessPool:
        """Where processes come from; `preload` names the modules that they will need."""

    def thread_worker(self, name: str, entry: Callable[[], None], on_exit: OnExit) -> Worker:
        """A worker that will run `entry` on a thread."""

    def asyncio_worker(self, name: str, entry: Callable[[], Awaitable[None]], on_exit: OnExit) -> Worker:
        """A worker that will run `entry` on an event loop."""

    def writable_gate(self) -> WritableGate:
        """What one writer waits at when its channels are full."""

    def readable_gate(self, channel: Channel[Any]) -> ReadableGate:
        """What the reader of `channel` waits at when it has something to do at a certain time."""

    def async_writable_gate(self) -> AsyncWritableGate:
        """`writable_gate` for a coroutine."""

    def async_reader(self, channel: Channel[Any]) -> AsyncReader[Any]:
        """What a coroutine waits at when `channel` is empty."""


class LocalBackend:
    """Threads and event loops of this process.

    Example:
        >>> backend = LocalBackend()
        >>> backend.channel(ChannelSpec("inbox", capacity=8)).spec.capacity
        8
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or RealClock()

    @property
    def clock(self) -> Clock:
        """The clock of everything that runs on this backend."""
        return self._clock

    def channel(self, spec: ChannelSpec) -> Channel[Any]:
        """A new channel between threads and event loops."""
        return LocalChannel(spec)

    def window_channel(self, spec: ChannelSpec) -> WindowChannel[Any]:
        """A new channel to a worker that has several messages under way at once."""
        return WindowChannel(spec)

    def process_pool(self, preload: Sequence[str]) -> ProcessPool:
        """The pool that all jobs of this process share."""
        return default_process_pool(preload)

    def thread_worker(self, name: str, entry: Callable[[], None], on_exit: OnExit) -> Worker:
        """A worker that will run `entry` on a thread."""
        return ThreadWorker(name, entry, on_exit)

    def asyncio_worker(self, name: str, entry: Callable[[], Awaitable[None]], on_exit: OnExit) -> Worker:
        """A worker that will run `entry` on an event loop."""
        return AsyncioWorker(name, entry, on_exit)

    def writable_gate(self) -> WritableGate:
        """What one writer waits at when its channels are full."""
        return WritableGate()

    def readable_gate(self, channel: Channel[Any]) -> ReadableGate:
        """What the reader of `channel` waits at when it has something to do at a certain time."""
        return ReadableGate(channel)

    def async_writable_gate(self) -> AsyncWritableGate:
        """`writable_gate` for a coroutine."""
        return AsyncWritableGate()

    def async_reader(self, channel: Channel[Any]) -> AsyncReader[Any]:
        """What a coroutine waits at when `channel` is empty."""
        return AsyncReader(channel)
