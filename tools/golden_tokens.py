#!/usr/bin/env python3
"""Writes texts and their tokens, by which the native tokenizer is checked against sage.libs.

Usage::

    tools/golden_tokens.py > cpp/vdb/tests/data/tokens.txt
"""

from __future__ import annotations

import random
import sys

from sage.libs.text.tokens import tokenize

PIECES = [
    *"aZ9'’ _-.é東京かナー한글ßİǅﬁ①²½Ωσς",
    *("'s", "’S", "Don't", "word", "\u0301", "\u0323", "\u0345", "\u3099", "\u1100", "\u1161", "\u11a8", "Ａ", "ﷺ"),
]
BLOCKS = [
    (0x80, 0x600),
    (0x900, 0xE00),
    (0x1100, 0x1200),
    (0x1D00, 0x2200),
    (0x3000, 0x3200),
    (0xAC00, 0xAD00),
    (0xF900, 0xFB50),
    (0xFE00, 0x10000),
    (0x1D400, 0x1D800),
    (0x10000, 0x20000),
]


def line(source: random.Random) -> str:
    """A random text without control characters that would break the file's lines."""
    text = ""
    for _ in range(source.randint(1, 12)):
        text += source.choice(PIECES) if source.random() < 0.6 else chr(source.randrange(*source.choice(BLOCKS)))
    return "".join(char for char in text if char.isprintable())


def main() -> None:
    """Print the lines."""
    source = random.Random(4)
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]
    for _ in range(2_000):
        text = line(source)
        sys.stdout.write(f"{text}\t{' '.join(tokenize(text))}\n")


if __name__ == "__main__":
    main()
