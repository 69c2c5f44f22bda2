"""What travels in a channel: micro-batches of items laid out as columns, and control packets.

- `packet`: `Packet`, `EndOfStream`
"""

from __future__ import annotations

from .packet import EndOfStream, Packet

__all__ = ["EndOfStream", "Packet"]
