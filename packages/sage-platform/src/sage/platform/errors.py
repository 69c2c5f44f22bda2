"""Errors of the platform layer.

PlatformError
├── ChannelClosedError   a channel was used after close(), or closed while waiting on it
└── WorkerError          a worker could not be started or used
"""

from __future__ import annotations

from sage.common.errors import SageError

__all__ = ["ChannelClosedError", "PlatformError", "WorkerError"]


class PlatformError(SageError):
    """Base of the errors of `sage.platform`."""


class ChannelClosedError(PlatformError):
    """The channel is closed: nothing more goes in, and what was in it is gone."""

    def __init__(self, channel: str) -> None:
        super().__init__(f"channel {channel!r} is closed")


class WorkerError(PlatformError):
    """A worker could not be started or was used out of turn."""
