"""How often an item has gone round: an origin that counts. It stays with the item through all operators of a loop, on
every vehicle, because origins do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["Lap", "next_lap", "rounds_of", "with_most_rounds"]


class Lap(int):
    """An origin that knows how often its item has come back, by future. Two are equal only if they are the same.

    Its value is the origin, in ns of the backend's monotonic clock.

    Example:
        >>> lap = next_lap(next_lap(1_000, "again"), "again")
        >>> lap + 1, rounds_of(lap, "again"), rounds_of(lap, "other"), lap == 1_000
        (1001, 2, 0, False)
    """

    rounds: dict[str, int]

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    __hash__ = object.__hash__

    def __reduce__(self) -> tuple[Callable[..., Lap], tuple[int, dict[str, int]]]:
        return _lap, (int(self), self.rounds)


def _lap(origin: int, rounds: dict[str, int]) -> Lap:
    lap = Lap(origin)
    lap.rounds = rounds
    return lap


def rounds_of(origin: int, future: str) -> int:
    """How often the item of an origin has come back to a future."""
    return origin.rounds.get(future, 0) if isinstance(origin, Lap) else 0


def next_lap(origin: int, future: str) -> Lap:
    """The origin of an item that has come back once more."""
    before = origin.rounds if isinstance(origin, Lap) else {}
    return _lap(int(origin), {**before, future: before.get(future, 0) + 1})


def with_most_rounds(origin: int, origins: Sequence[int]) -> int:
    """`origin` for a list of items of these origins: it has gone round as often as the one that has most.

    Example:
        >>> rounds_of(with_most_rounds(5, [7, next_lap(5, "again")]), "again"), with_most_rounds(5, [5, 7])
        (1, 5)
    """
    rounds: dict[str, int] = {}
    for each in origins:
        for future, count in each.rounds.items() if isinstance(each, Lap) else ():
            rounds[future] = max(count, rounds.get(future, 0))
    return _lap(int(origin), rounds) if rounds else origin
