"""Operators that touch a heavy backend, and the native components behind them.

- `records`: `Passage`, `RetrievedContext`, `PromptedQuery`, `Answer`
- `stores`: vector stores; `embeddings`: from text to vectors
- `operators`: `operators.rag` (retrieval, prompts), `operators.llm` (generation)
- `errors`: what they raise
"""

from __future__ import annotations

__all__: list[str] = []
