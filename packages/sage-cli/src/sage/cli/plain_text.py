"""Text of strangers (items, error messages) made fit for a terminal."""

from __future__ import annotations

__all__ = ["one_line", "printable"]


def printable(text: str) -> str:
    """`text` with control characters as escapes, so that none can steer the terminal; newlines and tabs stay.

    Example:
        >>> printable("a\\x1b[2Jb")
        'a\\\\x1b[2Jb'
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else letter.encode("unicode_escape").decode()
        for letter in text
    )


def one_line(text: str, length_max: int | None = None) -> str:
    """`printable` text on one line, cut to `length_max` characters.

    Example:
        >>> one_line("two\\n lines of text", 12)
        'two lines...'
    """
    line = printable(" ".join(text.split()))
    if length_max is None or len(line) <= length_max:
        return line
    return line[: length_max - 3] + "..."
