"""Operators over heavy backends.

- `rag`: knowledge base, retrievers, prompts
- `llm`: generation
"""

from __future__ import annotations

__all__: list[str] = []
