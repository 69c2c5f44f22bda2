"""What the readers of all formats produce: plain values, and the place of every key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sage.common.errors import ConfigError

FILE_BYTES_MAX = 1 << 20
DEPTH_MAX = 64
NODES_MAX = 100_000

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Location:
    """Where a value comes from.

    Args:
        source: A file, or a name like ``--set top_k=5`` or ``environment variable SAGE_TOP_K``.
        line: Line from 1; 0 where there are no lines.
        column: Column from 1, in characters.

    >>> str(Location("config.yaml", 14, 5)), str(Location("--set top_k=5"))
    ('config.yaml:14:5', '--set top_k=5')
    """

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(slots=True)
class Tree:
    """Values (mappings with text keys, lists, scalars) and the locations of keys and list items by path."""

    values: dict[str, Any] = field(default_factory=dict)
    locations: dict[Path, Location] = field(default_factory=dict)


class Places:
    """Turns offsets into a text into locations, and counts what the limits are about."""

    def __init__(self, text: str, source: str) -> None:
        self._source = source
        self._line_starts = [0, *(index + 1 for index, character in enumerate(text) if character == "\n")]
        self._nodes = 0

    def at(self, offset: int) -> Location:
        """Return the location of a character."""
        low, high = 0, len(self._line_starts) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self._line_starts[middle] <= offset:
                low = middle
            else:
                high = middle - 1
        return Location(self._source, low + 1, offset - self._line_starts[low] + 1)


def dotted(path: Path) -> str:
    """Return a path as users write it.

    >>> dotted(("stages", 0, "name"))
    'stages.0.name'
    """
    return ".".join(str(part) for part in path)


def duplicate_key(key: str, first: Location, second: Location) -> ConfigError:
    """Return the error for a key that comes twice, with both lines."""
    return ConfigError(
        f"duplicate key {key!r}, first given in line {first.line}: remove one of them", location=str(second)
    )


def too_deep(location: Location) -> ConfigError:
    """Return the error for nesting beyond the limit."""
    return ConfigError(f"nested deeper than {DEPTH_MAX} levels", location=str(location))


def too_many(location: Location) -> ConfigError:
    """Return the error for more values than the limit."""
    return ConfigError(f"more than {NODES_MAX} values, aliases expanded (an alias bomb?)", location=str(location))
