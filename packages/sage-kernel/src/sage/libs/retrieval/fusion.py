"""One ranking out of several."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from sage.common.errors import InvalidArgumentError

__all__ = ["reciprocal_rank_fusion", "weighted_fusion"]

Id = TypeVar("Id", bound=Hashable)


def _check_weights(weights: Sequence[float] | None, rankings: int) -> Sequence[float]:
    if weights is None:
        return [1.0] * rankings
    if len(weights) != rankings:
        raise InvalidArgumentError(f"weights must be one per ranking ({rankings}), got {list(weights)!r}")
    for weight in weights:
        if not (math.isfinite(weight) and weight >= 0):
            raise InvalidArgumentError(f"weights must be finite and >= 0, got {list(weights)!r}")
    return weights


def _best_first(scores: dict[Id, float]) -> list[tuple[Id, float]]:
    # The sort is stable and the dict keeps the order of first appearance: ties go to the earlier ranking,
    # then the better rank.
    return sorted(scores.items(), key=lambda entry: -entry[1])


def reciprocal_rank_fusion(
    rankings: Sequence[Sequence[Id]], *, k: float = 60.0, weights: Sequence[float] | None = None
) -> list[tuple[Id, float]]:
    """Return `(id, score)`, best first: score is the sum of `weight / (k + rank)` over the rankings that have
    the id, ranks from 1.

    Only the ranks count, so the scores of the rankings need not be comparable. Ties go to the id that appears
    first. Source: Cormack, Clarke, Buettcher, "Reciprocal rank fusion outperforms Condorcet and individual
    rank learning methods", SIGIR 2009.

    Raises:
        InvalidArgumentError: `k` or a weight is negative or not finite, or an id is twice in one ranking.

    Example:
        >>> [name for name, score in reciprocal_rank_fusion([["a", "b", "c"], ["b", "d"]])]
        ['b', 'a', 'd', 'c']
    """
    if not (math.isfinite(k) and k >= 0):
        raise InvalidArgumentError(f"k must be finite and >= 0, got {k!r}")
    scores: dict[Id, float] = {}
    for weight, ranking in zip(_check_weights(weights, len(rankings)), rankings, strict=True):
        if len(set(ranking)) != len(ranking):
            raise InvalidArgumentError(
                "each id must be once in a ranking; was a list of passages given instead of ids?"
            )
        if not weight:
            continue
        for rank, name in enumerate(ranking, start=1):
            scores[name] = scores.get(name, 0.0) + weight / (k + rank)
    return _best_first(scores)


def weighted_fusion(
    scored: Sequence[Mapping[Id, float]], *, weights: Sequence[float] | None = None
) -> list[tuple[Id, float]]:
    """Return `(id, score)`, best first: the weighted sum of each ranking's scores, stretched to 0..1 within
    that ranking.

    Higher scores are better. An id that a ranking does not have gets 0 from it; a ranking with one score for
    all gives 1 to each.

    Raises:
        InvalidArgumentError: a score is not finite, or the weights are not one per ranking, finite and >= 0.

    Example:
        >>> weighted_fusion([{"a": 9.0, "b": 5.0, "c": 1.0}, {"b": 0.5}], weights=[1, 2])
        [('b', 2.5), ('a', 1.0), ('c', 0.0)]
    """
    totals: dict[Id, float] = {}
    for weight, scores in zip(_check_weights(weights, len(scored)), scored, strict=True):
        if not weight or not scores:
            continue
        low, high = min(scores.values()), max(scores.values())
        if not all(map(math.isfinite, scores.values())):
            raise InvalidArgumentError(f"scores must be finite, got {dict(scores)!r}")
        # Halved before the subtraction: the range of two large floats of unlike sign may not be a float.
        spread = high / 2 - low / 2
        for name, score in scores.items():
            share = (score / 2 - low / 2) / spread if spread > 0 else 1.0
            totals[name] = totals.get(name, 0.0) + weight * share
    return _best_first(totals)
