"""What every pipeline stands on: records and the ends of a pipeline.

- `records`: `Document` and `Chunk`
- `fields`: `FieldKey`, `FieldFilter`: key and filter by a field of the item
- `io`: sources and sinks
"""

from __future__ import annotations

from .fields import FieldFilter, FieldKey
from .records import Chunk, Document

__all__ = ["Chunk", "Document", "FieldFilter", "FieldKey"]
