"""Unique ids that sort by the time of their creation.

The 26 characters are 48 bits of milliseconds since 1970 and 80 random bits in Crockford's base 32 (the layout
known as ULID, github.com/ulid/spec). Ids of one process are strictly increasing, also within a millisecond
and when the machine's clock is set back.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass

from sage.common.clock import Clock, RealClock
from sage.common.errors import InvalidArgumentError

__all__ = ["IdGenerator", "ParsedId", "new_id", "parse_id"]

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUE_OF = {character: value for value, character in enumerate(_ALPHABET)}
# Small letters, and the look-alikes that Crockford's base 32 reads.
_VALUE_OF |= {character.lower(): value for character, value in _VALUE_OF.items()}
_VALUE_OF |= {"I": 1, "i": 1, "L": 1, "l": 1, "O": 0, "o": 0}
_LENGTH = 26
_RANDOM_BITS = 80
_MILLISECONDS_END = 1 << 48
_PREFIX = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*\Z")


@dataclass(frozen=True, slots=True)
class ParsedId:
    """The parts of an id.

    Args:
        prefix: What the id names, for example ``job``; empty where there is none.
        milliseconds: Time of creation since 1970-01-01 UTC.
        randomness: 80 bits.

    >>> parse_id("job_00000000010000000000000000").milliseconds
    1
    """

    prefix: str
    milliseconds: int
    randomness: int


class IdGenerator:
    """Makes ids; safe to share between threads, and to inherit by `fork`.

    Args:
        clock: Where the milliseconds come from; the real clock by default.
        random_bytes: ``n -> n random bytes``; `os.urandom` by default.

    >>> from sage.common.clock import VirtualClock
    >>> ids = IdGenerator(VirtualClock(start=1.0), lambda n: bytes(n))
    >>> ids.new("job"), ids.new("job")
    ('job_00000000Z80000000000000000', 'job_00000000Z80000000000000001')
    """

    def __init__(self, clock: Clock | None = None, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._clock: Clock = RealClock() if clock is None else clock
        self._random_bytes = random_bytes
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._last = -1
        self._process = os.getpid()

    def new(self, prefix: str = "") -> str:
        """Return the next id, ``<prefix>_<26 characters>`` or the 26 characters alone.

        Raises:
            InvalidArgumentError: If `prefix` is not made of lower-case letters, digits and single hyphens, or
                if the clock shows a time that 48 bits of milliseconds cannot hold.
        """
        if prefix and _PREFIX.match(prefix) is None:
            raise InvalidArgumentError(
                f"an id prefix must be lower-case letters, digits and hyphens like 'job', got {prefix!r}"
            )
        if self._process != os.getpid():
            # A forked child would go on from its parent's random bits and make the same ids as the parent.
            self._reset()
        with self._lock:
            number = self._next_number()
        return f"{prefix}_{_encode(number)}" if prefix else _encode(number)

    def _next_number(self) -> int:
        milliseconds = int(self._clock.time() * 1000)
        if not 0 <= milliseconds < _MILLISECONDS_END:
            raise InvalidArgumentError(f"the clock shows {milliseconds} ms since 1970, ids hold 0 to 2**48 - 1")
        if milliseconds > self._last >> _RANDOM_BITS:
            drawn = int.from_bytes(self._random_bytes(_RANDOM_BITS // 8), "big")
            self._last = milliseconds << _RANDOM_BITS | drawn
        else:
            # Counting on may carry into the milliseconds: the id stays unique and sorted, which matters more.
            self._last += 1
        return self._last


_default_generator = IdGenerator()


def new_id(prefix: str = "") -> str:
    """Return a new id from the real clock and the system's randomness.

    Raises:
        InvalidArgumentError: If `prefix` is not made of lower-case letters, digits and single hyphens.

    >>> first, second = new_id("job"), new_id("job")
    >>> first < second, parse_id(first).prefix, len(first)
    (True, 'job', 30)
    """
    return _default_generator.new(prefix)


def parse_id(text: str, prefix: str | None = None) -> ParsedId:
    """Take an id apart, or refuse what is not one.

    Args:
        text: The id. As Crockford's base 32 wants it, small letters are read too, and I, L as 1 and O as 0.
        prefix: The prefix it must have; None accepts any.

    Raises:
        InvalidArgumentError: If `text` is not an id, or one of another kind.

    >>> parse_id("task_01ARZ3NDEKTSV4RRFFQ69G5FAV", prefix="job")
    Traceback (most recent call last):
        ...
    sage.common.errors.InvalidArgumentError: expected an id that begins with 'job_', got 'task_01ARZ3...'
    """
    found, separator, body = text.rpartition("_")
    if prefix is not None and found != prefix:
        raise InvalidArgumentError(f"expected an id that begins with '{prefix}_', got {text[:80]!r}")
    if separator and _PREFIX.match(found) is None:
        raise InvalidArgumentError(f"not an id: {text[:80]!r} has the prefix {found[:40]!r}")
    if len(body) != _LENGTH:
        raise InvalidArgumentError(f"not an id: {text[:80]!r} has {len(body)} characters instead of {_LENGTH}")
    number = 0
    for character in body:
        value = _VALUE_OF.get(character)
        if value is None:
            raise InvalidArgumentError(f"not an id: {text[:80]!r} contains {character!r}")
        number = number << 5 | value
    milliseconds = number >> _RANDOM_BITS
    if milliseconds >= _MILLISECONDS_END:
        raise InvalidArgumentError(f"not an id: {text[:80]!r} is larger than 128 bits")
    return ParsedId(found, milliseconds, number & ((1 << _RANDOM_BITS) - 1))


def _encode(number: int) -> str:
    return "".join([_ALPHABET[number >> shift & 31] for shift in range(5 * (_LENGTH - 1), -1, -5)])
