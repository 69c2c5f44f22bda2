#!/usr/bin/env python3
"""Writes updates and searches of a BM25 index with their scores, by which the native index is checked.

Usage::

    tools/golden_bm25.py > cpp/vdb/tests/data/bm25.txt
"""

from __future__ import annotations

import random
import sys

from sage.libs.retrieval.bm25 import BM25Index

WORDS = [*"abcdefghij", "straße", "東京都", "don't", "operator's", "naïve", "ﬁrst", "Ωmega"]


def text(source: random.Random, words_max: int) -> str:
    """Words of which the first ones are frequent."""
    count = source.randint(0, words_max)
    return " ".join(WORDS[min(int(source.expovariate(0.35)), len(WORDS) - 1)] for _ in range(count))


def main() -> None:
    """Print the lines."""
    source = random.Random(6)
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]
    index = BM25Index(k1=0.9, b=0.4)
    for _ in range(600):
        slot = source.randrange(80)
        kind = source.random()
        if kind < 0.6:
            document = text(source, 30)
            index.upsert(f"{slot:06}", document)
            sys.stdout.write(f"replace\t{slot}\t{document}\n")
        elif kind < 0.75:
            index.remove(f"{slot:06}")
            sys.stdout.write(f"erase\t{slot}\n")
        else:
            query, k = text(source, 6), source.choice([1, 3, 10, 100])
            hits = " ".join(f"{int(hit.id)}:{hit.score.hex()}" for hit in index.search(query, k))
            sys.stdout.write(f"search\t{k}\t{query}\t{hits}\n")


if __name__ == "__main__":
    main()
