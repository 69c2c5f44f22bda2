#!/usr/bin/env python3
"""Writes the Unicode tables of the native tokenizer, from what this Python knows.

Usage::

    tools/unicode_tables.py > cpp/vdb/src/unicode_tables.inc
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator

HANGUL = range(0xAC00, 0xD7A4)
LINE_WIDTH = 118


def code_points() -> Iterator[int]:
    """All that can stand in a text, without the surrogates."""
    yield from range(0xD800)
    yield from range(0xE000, sys.maxunicode + 1)


def ranges(wanted: Callable[[int], int]) -> Iterator[tuple[int, int, int]]:
    """Runs (first, last, value) of code points whose value is the same and not 0."""
    first = last = value = 0
    for code in code_points():
        now = wanted(code)
        if value and (now != value or code != last + 1):
            yield first, last, value
            value = 0
        if now and not value:
            first, value = code, now
        last = code
    if value:
        yield first, last, value


def mappings(mapped: Callable[[str], str]) -> Iterator[tuple[int, str]]:
    """Code points that are not mapped to themselves."""
    for code in code_points():
        if code not in HANGUL and mapped(chr(code)) != chr(code):
            yield code, mapped(chr(code))


def compositions() -> Iterator[tuple[int, int, int]]:
    """Pairs that the normal forms C compose, without Hangul."""
    for code in code_points():
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            first, second = int(parts[0], 16), int(parts[1], 16)
            if unicodedata.normalize("NFC", chr(first) + chr(second)) == chr(code):
                yield first, second, code


def array(declaration: str, items: Iterable[str]) -> Iterator[str]:
    """The lines of one C++ array."""
    yield f"constexpr {declaration}[] = {{"
    line = "   "
    for item in items:
        if len(line) + len(item) + 2 > LINE_WIDTH:
            yield line
            line = "   "
        line += f" {item},"
    yield line
    yield "};"


def mapping_arrays(name: str, mapped: Callable[[str], str]) -> Iterator[str]:
    """One array of entries (code point, place, length) and one of what they map to."""
    entries, pool = [], ""
    for code, text in mappings(mapped):
        place = pool.find(text)
        if place < 0:
            place = len(pool)
            pool += text
        entries.append(f"{{{code:#x}, {place}, {len(text)}}}")
    yield from array(f"Mapping {name}", entries)
    yield from array(f"char32_t {name}_pool", (f"{ord(char):#x}" for char in pool))


def main() -> None:
    """Print the tables."""
    lines = [
        f"// Unicode {unicodedata.unidata_version}, written by tools/unicode_tables.py from Python's unicodedata.",
        "// Later versions add code points; what is here keeps its mappings by Unicode's stability policy.",
    ]
    lines += mapping_arrays("decompositions", lambda char: unicodedata.normalize("NFKD", char))
    lines += mapping_arrays("folds", str.casefold)
    classes = ranges(lambda code: unicodedata.combining(chr(code)))
    lines += array("Range combining_classes", (f"{{{a:#x}, {b:#x}, {c}}}" for a, b, c in classes))
    words = ranges(lambda code: int(chr(code).isalnum()))
    lines += array("Range word_characters", (f"{{{a:#x}, {b:#x}, {c}}}" for a, b, c in words))
    pairs = sorted(compositions())
    lines += array("Composition compositions", (f"{{{a:#x}, {b:#x}, {c:#x}}}" for a, b, c in pairs))
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
