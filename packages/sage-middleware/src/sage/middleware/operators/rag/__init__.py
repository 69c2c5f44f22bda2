"""Retrieval-augmented generation, up to the prompt.

- `knowledge`: `KnowledgeBase`, documents searched by words and by vectors
- `hybrid`: `HybridRetriever`, a knowledge base as an operator
- `chroma`: `ChromaRetriever`, a collection of a Chroma database (extra `chroma`)
- `vdb`: `VDBIndexer`, `VDBSink`, `VDBRetriever`: a collection of sage_db, filled and searched
- `prompt`: `QAPromptor`
"""

from __future__ import annotations

from .chroma import ChromaRetriever
from .hybrid import HybridRetriever
from .knowledge import KnowledgeBase
from .prompt import QAPromptor
from .vdb import VDBIndexer, VDBRetriever, VDBSink

__all__ = ["ChromaRetriever", "HybridRetriever", "KnowledgeBase", "QAPromptor", "VDBIndexer", "VDBRetriever", "VDBSink"]
