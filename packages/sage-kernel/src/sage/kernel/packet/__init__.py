"""What travels in a channel: micro-batches of items laid out as columns, and control packets.

- `packet`: `Packet`, `EndOfStream`
"""

from .packet import EndOfStream, Packet

__all__ = ["EndOfStream", "Packet"]
