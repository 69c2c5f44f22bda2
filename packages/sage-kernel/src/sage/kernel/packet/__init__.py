"""What travels in a channel: micro-batches of items laid out as columns, and control packets.

- `packet`: `Packet`, `EndOfStream`
"""

from __future__ import annotations

from .packet import ALONE_FROM, EndOfStream, Packet

__all__ = ["ALONE_FROM", "EndOfStream", "Packet"]
