"""How many dead letters a job may have before it fails."""

from __future__ import annotations

import re
import threading
from collections import Counter
from dataclasses import dataclass

from sage.common.errors import InvalidArgumentError

__all__ = ["DeadLetterBudget", "ErrorCounts"]

_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%\Z")
_TEXT_MAX = 200
_ITEMS_MIN = 100


class ErrorCounts:
    """Which errors dead letters have, and how often: by operator and type, since messages name the item.

    Example:
        >>> errors = ErrorCounts()
        >>> for error, message in (("KeyError", "'a'"), ("ValueError", "no"), ("KeyError", "'b'")):
        ...     errors.add("pick", error, message)
        >>> errors.commonest()
        ('pick', "KeyError: 'a'", 2)
    """

    def __init__(self) -> None:
        # Tasks add, and the job's supervision asks.
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._first: dict[tuple[str, str], str] = {}

    def add(self, operator: str, error_type: str, message: str) -> None:
        """Count one."""
        key = (operator, error_type)
        with self._lock:
            self._first.setdefault(key, message[:_TEXT_MAX])
            self._counts[key] += 1

    @property
    def total(self) -> int:
        """How many were counted."""
        with self._lock:
            return self._counts.total()

    def commonest(self) -> tuple[str, str, int]:
        """Operator and first message of the commonest error, and how often it came.

        Raises:
            InvalidArgumentError: there was none.
        """
        with self._lock:
            if not self._counts:
                raise InvalidArgumentError("there was no error")
            (key, count) = self._counts.most_common(1)[0]
            return key[0], f"{key[1]}: {self._first[key]}", count


@dataclass(frozen=True, slots=True)
class DeadLetterBudget:
    """A number of dead letters, or a share of the items that the sources have given; without either, no limit.

    A share is not looked at before 100 items have been read, and once more when the job ends.

    Example:
        >>> DeadLetterBudget.parse(3).is_over(4), DeadLetterBudget.parse("1%").is_over_share(2, 1000)
        (True, False)
        >>> DeadLetterBudget.parse("many")
        Traceback (most recent call last):
        ...
        sage.common.errors.InvalidArgumentError: max_dead_letters must be a whole number >= 0 or a share such as
        '1%', got 'many'
    """

    count: int | None = None
    share: float | None = None

    @classmethod
    def parse(cls, value: int | str | None) -> DeadLetterBudget:
        """The budget that `max_dead_letters` means.

        Raises:
            InvalidArgumentError: it is no whole number >= 0, and no share of 0% to 100%.
        """
        if value is None:
            return cls()
        if isinstance(value, str) and value.strip().isdecimal():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return cls(count=value)
        share = _SHARE.match(value.strip()) if isinstance(value, str) else None
        if share is not None and float(share[1]) <= 100:
            return cls(share=float(share[1]) / 100)
        raise InvalidArgumentError(
            f"max_dead_letters must be a whole number >= 0 or a share such as '1%', got {value!r}"
        )

    def is_over(self, letters: int) -> bool:
        """Whether that many letters are too many, whatever else has been done."""
        return self.count is not None and letters > self.count

    def is_over_share(self, letters: int, items: int, *, ended: bool = False) -> bool:
        """Whether that many letters of that many items are too many."""
        return self.share is not None and (ended or items >= _ITEMS_MIN) and letters > self.share * items

    def explain(self, letters: int, errors: ErrorCounts, items: int | None = None) -> str:
        """Why the job fails."""
        limit = f"{self.count}" if self.share is None else f"{self.share * 100:g}% of {items or 0:,} items"
        operator, message, count = errors.commonest()
        # Letters may have come since they were counted.
        letters = max(letters, errors.total)
        return (
            f"more dead letters than max_dead_letters allows: {letters:,}, the limit is {limit}; the commonest error "
            f"({count:,} of {letters:,}) is that of operator {operator!r}, the first time {message}"
        )
