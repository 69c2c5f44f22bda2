"""Text: from documents to sentences, chunks and tokens.

- `sentences`: `split_sentences`
- `chunking`: `SentenceChunker`
- `tokens`: `tokenize`, stop words, light stemming
"""

from __future__ import annotations

from .chunking import SentenceChunker, chunk_text
from .sentences import split_sentences
from .tokens import STOPWORDS, stem, tokenize

__all__ = ["STOPWORDS", "SentenceChunker", "chunk_text", "split_sentences", "stem", "tokenize"]
