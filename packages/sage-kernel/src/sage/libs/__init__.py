"""Building blocks of pipelines that need no heavy backend; pure Python.

- `foundation`: records (`Document`, `Chunk`), sources and sinks (`foundation.io`)
- `text`: sentence splitting, chunking, tokens for retrieval
- `retrieval`: a BM25 index that can be updated, rank fusion
- `errors`: what they raise
"""

from __future__ import annotations

__all__: list[str] = []
