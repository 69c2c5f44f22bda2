"""Errors of the platform layer.

PlatformError
├── ChannelClosedError   a channel was used after close(), or closed while waiting on it
├── LinkClosedError      the other end of a process's link is gone
└── WorkerError          a worker could not be started or used
"""

from __future__ import annotations

from sage.common.errors import SageError

__all__ = ["ChannelClosedError", "LinkClosedError", "PlatformError", "WorkerError"]


class PlatformError(SageError):
    """Base of the errors of `sage.platform`."""


class ChannelClosedError(PlatformError):
    """The channel is closed: nothing more goes in, and what was in it is gone."""

    def __init__(self, channel: str) -> None:
        super().__init__(f"channel {channel!r} is closed")


class LinkClosedError(PlatformError):
    """The other end of the link is gone: its process has ended, or is ending."""

    def __init__(self) -> None:
        super().__init__("the other end of the link is closed")


class WorkerError(PlatformError):
    """A worker could not be started or was used out of turn."""
