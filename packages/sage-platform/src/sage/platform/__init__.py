"""What the machine offers, behind small protocols; knows nothing of operators or graphs.

- `channels`: bounded channels between workers
- `workers`: threads and event loops that run an entry callable
- `backends`: makes channels and workers that fit each other
- `stores`: durable key-value store and record log
- `nodes`: facts about this machine
"""

from __future__ import annotations

from .backends import Backend, LocalBackend
from .channels import Channel, ChannelSpec, LocalChannel, Message
from .errors import ChannelClosedError, PlatformError, WorkerError
from .workers import AsyncioWorker, ThreadWorker, Worker

__all__ = [
    "AsyncioWorker",
    "Backend",
    "Channel",
    "ChannelClosedError",
    "ChannelSpec",
    "LocalBackend",
    "LocalChannel",
    "Message",
    "PlatformError",
    "ThreadWorker",
    "Worker",
    "WorkerError",
]
