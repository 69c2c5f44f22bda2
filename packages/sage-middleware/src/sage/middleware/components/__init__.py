"""The native components, as libraries of their own.

- `sage_db`: the embedded vector database
"""

from __future__ import annotations

__all__: list[str] = []
