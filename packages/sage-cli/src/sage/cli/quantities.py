"""Numbers for people: counts, times and rates in few characters, ASCII only."""

from __future__ import annotations

__all__ = ["format_count", "format_duration_ms", "format_rate", "plural"]

_COMPACT_FROM = 100_000


def format_count(count: float, *, compact: bool = False) -> str:
    """A number of items; `compact` gives three digits from 100,000 on.

    Example:
        >>> format_count(1234567), format_count(1234567, compact=True), format_count(99_999, compact=True)
        ('1,234,567', '1.23M', '99,999')
    """
    if not compact or count < _COMPACT_FROM:
        return f"{count:,.0f}"
    for unit in ("K", "M", "G"):
        count /= 1000
        if count < 999.5 or unit == "G":
            return f"{_three_digits(count)}{unit}"
    raise AssertionError("the last unit takes all")


def format_duration_ms(milliseconds: float) -> str:
    """A time that is given in ms, in the unit that suits it.

    Example:
        >>> [format_duration_ms(ms) for ms in (0, 0.0004, 0.0421, 3.14159, 250, 1500, 75_000, 7_260_000)]
        ['0us', '<1us', '42us', '3.14ms', '250ms', '1.50s', '1m15s', '2h01m']
    """
    if milliseconds < 0.9995:
        microseconds = milliseconds * 1000
        return "<1us" if 0 < microseconds < 0.5 else f"{microseconds:.0f}us"
    if milliseconds < 999.5:
        return f"{_three_digits(milliseconds)}ms"
    seconds = milliseconds / 1000
    if seconds < 59.95:
        return f"{_three_digits(seconds)}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,}h{minutes:02d}m"


def format_rate(per_second: float) -> str:
    """Items per second.

    Example:
        >>> format_rate(0.25), format_rate(812.4), format_rate(1_234_567)
        ('0.25/s', '812/s', '1.23M/s')
    """
    if per_second < 999.5:
        return f"{_three_digits(per_second)}/s"
    return f"{format_count(per_second, compact=True)}/s"


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    Example:
        >>> plural(1, "error"), plural(2000, "dead letter")
        ('1 error', '2,000 dead letters')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _three_digits(number: float) -> str:
    if number == 0:
        return "0"
    decimals = 2 if number < 9.995 else 1 if number < 99.95 else 0
    return f"{number:.{decimals}f}"
