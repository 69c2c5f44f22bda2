"""What the machine offers, behind small protocols; knows nothing of operators or graphs.

- `channels`: bounded channels between workers
- `workers`: threads and event loops that run an entry callable
- `processes`: a pool of worker processes; `process_server` forks them, `process_links` and `arenas` join them with
  their parent, `process_lines` joins them with each other, `process_output` and `process_logging` pass on what they
  print and log
- `backends`: makes channels and workers that fit each other
- `stores`: durable key-value store and record log
- `nodes`: facts about this machine
"""

from __future__ import annotations

from .backends import Backend, LocalBackend
from .channels import Channel, ChannelSpec, LocalChannel, Message
from .errors import ChannelClosedError, LinkClosedError, PlatformError, WorkerError
from .process_lines import ProcessLine
from .processes import ProcessPool, WorkerProcess
from .window_channels import WindowChannel
from .workers import AsyncioWorker, ThreadWorker, Worker

__all__ = [
    "AsyncioWorker",
    "Backend",
    "Channel",
    "ChannelClosedError",
    "ChannelSpec",
    "LocalBackend",
    "LocalChannel",
    "LinkClosedError",
    "Message",
    "PlatformError",
    "ProcessLine",
    "ProcessPool",
    "ThreadWorker",
    "WindowChannel",
    "Worker",
    "WorkerError",
    "WorkerProcess",
]
