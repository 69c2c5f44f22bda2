"""Counts the words of a text file and prints the most frequent ones.

sage run examples/word_count.py --set text=README.md --set top=10 --parallelism count=2
"""

from __future__ import annotations

import heapq
import re
import sys
from pathlib import Path
from typing import Any

from sage.kernel.api import LocalEnvironment, SinkFunction
from sage.libs.foundation.io import FileSource

_WORD = re.compile(r"[^\W\d_]{2,}")


def words(line: str) -> list[str]:
    """The words of a line in lower case."""
    return _WORD.findall(line.lower())


class MostFrequent(SinkFunction[Any]):
    """Prints the words with the highest counts, once all are known."""

    def __init__(self, top: int) -> None:
        super().__init__()
        self._top = top
        self._counts: list[tuple[str, int]] = []

    def execute(self, item: tuple[str, int]) -> None:
        """Keep one word with its count."""
        self._counts.append(item)

    def teardown(self) -> None:
        """Print the table."""
        # Of the same count the first one in the alphabet, so that the table is the same at any parallelism.
        for word, count in heapq.nsmallest(self._top, self._counts, key=lambda pair: (-pair[1], pair[0])):
            sys.stdout.write(f"{count:>6}  {word}\n")


def build(text: str = str(Path(__file__).parent.parent / "README.md"), top: int = 10) -> LocalEnvironment:
    """The pipeline; `text` and `top` can be given with `--set`."""
    env = LocalEnvironment("word_count")
    (
        env.from_source(FileSource, {"file_path": text}, name="lines")
        .flatmap(words)
        .key_by(lambda word: word, name="by_word")
        .aggregate(0, lambda count, word: count + 1, emit="final", name="count")
        .sink(MostFrequent(top), name="table")
    )
    return env
