"""What every pipeline stands on: records and the ends of a pipeline.

- `records`: `Document` and `Chunk`
- `io`: sources and sinks
"""

from __future__ import annotations

from .records import Chunk, Document

__all__ = ["Chunk", "Document"]
