"""The work that every peer and SAGE do: one set of inputs, functions and checks; only the machinery differs.

Nothing here knows of a framework. A peer takes its input and functions from here, runs them its own way, and
hands its outputs to the check of the same name, which is done after the clock has stopped.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import threading
import time
from collections.abc import Iterable, Sequence
from itertools import pairwise
from types import TracebackType

NOOP_ITEMS = 1_000_000
KEYED_ITEMS = 1_000_000
KEYED_KEYS = 1_000
KEYED_SEED = 20_240_607
JOIN_ITEMS = 500_000
JOIN_KEYS = 50_000
SKEW_ITEMS = 8_000
SKEW_KEYS = 1_000
SKEW_EXPONENT = 1.1
SKEW_REPLICAS = 4
SKEW_DELAY_SECONDS = 0.0005
LLM_ITEMS = 512
LLM_DELAY_SECONDS = 0.1
LLM_IN_FLIGHT = 64
ASYNC_ZERO_ITEMS = 20_000
HOP_ITEMS = 5_000
HOP_STAGES = 4
HOP_WARM_UP_ITEMS = 200
HOP_QUEUE_CAPACITY = 64
SLOW_SINK_ITEMS = 100_000_000
SLOW_SINK_RUN_SECONDS = 60.0
SLOW_SINK_DELAY_SECONDS = 0.001

Pair = tuple[str, int]


class WrongResultError(Exception):
    """A peer lost, doubled or changed items, or ran too many calls at once: its time means nothing."""


# NOOP: source -> add_one -> double -> keep -> count


def add_one(value: int) -> int:
    """Return `value` plus one: the first map of `noop`.

    >>> add_one(1)
    2
    """
    return value + 1


def double(value: int) -> int:
    """Return twice `value`: the second map of `noop`.

    >>> double(2)
    4
    """
    return value * 2


def keep(value: int) -> bool:
    """Say whether `value` is a multiple of four: the filter of `noop`, which keeps every second item.

    >>> [keep(double(add_one(i))) for i in range(4)]
    [False, True, False, True]
    """
    return value % 4 == 0


def check_noop(count: int, items: int) -> int:
    """Return `count`, the items that came through the filter, if it is right for a source of `range(items)`.

    Raises:
        WrongResultError: The count is not the number of odd integers below `items`.

    >>> check_noop(5, 10)
    5
    """
    expected = items // 2
    if count != expected:
        raise WrongResultError(f"noop must count {expected} of {items} items, got {count}")
    return count


# KEYED: pairs -> key_of -> running count per key


def keyed_pairs(items: int, keys: int = KEYED_KEYS) -> list[Pair]:
    """Return `items` pairs of (key, index); keys are drawn uniformly from `keys` of them, always the same.

    Keys are strings since bytewax accepts no others; uniform draws do not hurt a peer that groups a batch by
    key, as a cyclic order would, nor help it, as runs of one key would.

    >>> keyed_pairs(3, keys=10) == keyed_pairs(3, keys=10)
    True
    """
    names = [f"key-{number:04d}" for number in range(keys)]
    drawn = random.Random(KEYED_SEED).choices(names, k=items)
    return list(zip(drawn, range(items), strict=True))


def key_of(pair: Pair) -> str:
    """Return the key of a pair.

    >>> key_of(("key-0001", 7))
    'key-0001'
    """
    return pair[0]


def count_up(count: int, pair: Pair) -> int:
    """Return the running count after `pair`, `count` being the one before it (0 for the first).

    >>> count_up(0, ("key-0001", 7))
    1
    """
    return count + 1


def check_keyed(outputs: Sequence[Pair], pairs: Sequence[Pair]) -> int:
    """Return how many (key, running count) came out, if every key's counts are 1, 2, ... up to its pairs.

    Raises:
        WrongResultError: A key is missing or too many, or its counts are not consecutive and in order.

    >>> check_keyed([("a", 1), ("b", 1), ("a", 2)], [("a", 0), ("b", 1), ("a", 2)])
    3
    """
    expected: dict[str, int] = {}
    for key, _ in pairs:
        expected[key] = expected.get(key, 0) + 1
    counts: dict[str, list[int]] = {}
    for key, count in outputs:
        counts.setdefault(key, []).append(count)
    if counts.keys() != expected.keys():
        raise WrongResultError(f"keyed must emit {len(expected)} keys, got {len(counts)}")
    for key, emitted in counts.items():
        if emitted != list(range(1, expected[key] + 1)):
            raise WrongResultError(f"{key!r} must count from 1 to {expected[key]}, got {len(emitted)} counts")
    return len(outputs)


# JOIN: each pair of one side with each of the other side that has the same key


def join_sides(items: int, keys: int = JOIN_KEYS) -> tuple[list[Pair], list[Pair]]:
    """Return two lists of `items` (key, number) pairs, with the same keys in another order.

    >>> [len(side) for side in join_sides(4, keys=2)]
    [4, 4]
    """
    names = [f"key-{number:06d}" for number in range(keys)]
    left, right = (
        [(names[number % keys], number) for number in random.Random(seed).sample(range(items), items)]
        for seed in (KEYED_SEED, KEYED_SEED + 1)
    )
    return left, right


def check_join(outputs: Sequence[tuple[Pair, Pair]], left: Sequence[Pair], right: Sequence[Pair]) -> int:
    """Return how many pairs of pairs came out, if they are all there are: their number and the sum of the products
    of their numbers are right.

    Raises:
        WrongResultError: Pairs are missing, doubled or wrong.

    >>> check_join([(("a", 2), ("a", 3))], [("a", 2), ("b", 5)], [("a", 3)])
    1
    """
    sums: list[dict[str, tuple[int, int]]] = []
    for side in (left, right):
        by_key: dict[str, tuple[int, int]] = {}
        for key, number in side:
            count, total = by_key.get(key, (0, 0))
            by_key[key] = count + 1, total + number
        sums.append(by_key)
    both = sums[0].keys() & sums[1].keys()
    expected = sum(sums[0][key][0] * sums[1][key][0] for key in both)
    product = sum(sums[0][key][1] * sums[1][key][1] for key in both)
    if len(outputs) != expected:
        raise WrongResultError(f"join must emit {expected} pairs, got {len(outputs)}")
    if sum(one[1] * other[1] for one, other in outputs) != product:
        raise WrongResultError("join has put wrong pairs together")
    if any(one[0] != other[0] for one, other in outputs):
        raise WrongResultError("join has put different keys together")
    return len(outputs)


# SKEW: keys of which a few make most of the items, over several replicas


def skew_pairs(items: int, exponent: float, keys: int = SKEW_KEYS) -> list[Pair]:
    """Return (key, number) pairs whose keys follow Zipf's law with this exponent; 0 makes all equally frequent.

    >>> [key for key, _ in skew_pairs(3, 0.0, keys=1)]
    ['key-0000', 'key-0000', 'key-0000']
    """
    names = [f"key-{number:04d}" for number in range(keys)]
    weights = [1.0 / (rank + 1) ** exponent for rank in range(keys)]
    drawn = random.Random(KEYED_SEED).choices(names, weights, k=items)
    return list(zip(drawn, range(items), strict=True))


# LLM-LIKE: a call that waits as long as a model server would, and returns an answer


class SimulatedModel:
    """A model server's client: a call takes `delay_seconds` and no processor time.

    It keeps the peak of calls in flight, which makes times comparable: nobody may run more than agreed.

    >>> model = SimulatedModel(delay_seconds=0.0)
    >>> model.call(3), model.peak_in_flight
    (7, 1)
    """

    def __init__(self, delay_seconds: float = LLM_DELAY_SECONDS) -> None:
        self.delay_seconds = delay_seconds
        self.peak_in_flight = 0
        self._in_flight = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self._in_flight += 1
            self.peak_in_flight = max(self.peak_in_flight, self._in_flight)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._in_flight -= 1

    def call(self, item: int) -> int:
        """Block the thread for the delay, then answer."""
        with self:
            time.sleep(self.delay_seconds)
        return answer_of(item)

    async def acall(self, item: int) -> int:
        """Suspend for the delay, then answer."""
        with self:
            await asyncio.sleep(self.delay_seconds)
        return answer_of(item)

    def check(self, outputs: Iterable[int], items: int, in_flight: int) -> int:
        """Return how many answers came, if each item has exactly one and at most `in_flight` were under way.

        Raises:
            WrongResultError: Answers are missing, doubled or wrong, or too many calls ran at once.
        """
        if self.peak_in_flight > in_flight:
            raise WrongResultError(f"at most {in_flight} calls may be in flight, got {self.peak_in_flight}")
        return _check_each_once(outputs, [answer_of(item) for item in range(items)])


def answer_of(item: int) -> int:
    """Return the answer of the simulated model to `item`.

    >>> answer_of(3)
    7
    """
    return item * 2 + 1


def ideal_seconds(items: int, in_flight: int, delay_seconds: float = LLM_DELAY_SECONDS) -> float:
    """Return the shortest time in which `items` calls can be made, `in_flight` at once.

    >>> ideal_seconds(512, 64, 0.1)
    0.8
    """
    return -(-items // in_flight) * delay_seconds


# ASYNC_ZERO: what an async stage costs when the stage itself takes no time


async def echo(item: int) -> int:
    """Return `item` without ever suspending.

    >>> asyncio.run(echo(5))
    5
    """
    return item


def check_async_zero(outputs: Iterable[int], items: int) -> int:
    """Return how many items came out, if each of `range(items)` did exactly once, in any order.

    Raises:
        WrongResultError: Items are missing, doubled or wrong.

    >>> check_async_zero([1, 0], 2)
    2
    """
    return _check_each_once(outputs, list(range(items)))


def check_in_order(outputs: Sequence[object], expected: Sequence[object]) -> None:
    """Check that the outputs came in the order of their items.

    Raises:
        WrongResultError: They did not, or there are more or fewer.

    >>> check_in_order([1, 3], [1, 3])
    """
    if list(outputs) != list(expected):
        raise WrongResultError(f"{len(expected)} outputs must come in the order of their items, got {len(outputs)}")


def _check_each_once(outputs: Iterable[int], expected: list[int]) -> int:
    got = sorted(outputs)
    if got != expected:
        raise WrongResultError(f"each of {len(expected)} items must come out once, got {len(got)} outputs")
    return len(got)


# HOP: one item at a time through HOP_STAGES thread stages; every stage stamps the item


def stamp(stamps: list[int]) -> list[int]:
    """Append the monotonic clock in nanoseconds and return the list: the function of every stage of `hop`.

    The source sends `stamp([])`, so that consecutive stamps differ by one hop: hand over, wake up, take.

    >>> len(stamp(stamp([])))
    2
    """
    stamps.append(time.perf_counter_ns())
    return stamps


def hop_latencies_us(
    items: Sequence[Sequence[int]], stages: int = HOP_STAGES, warm_up: int = HOP_WARM_UP_ITEMS
) -> dict[str, float]:
    """Return P50, P99 and mean of the microseconds per hop, over all hops after the first `warm_up` items.

    Raises:
        WrongResultError: An item does not carry one stamp of the source and one of each stage, in order.

    >>> hop_latencies_us([[0, 1000, 3000]] * 10, stages=2, warm_up=0)
    {'hop_p50_us': 1.5, 'hop_p99_us': 2.0, 'hop_mean_us': 1.5}
    """
    for stamps in items:
        if len(stamps) != stages + 1 or sorted(stamps) != list(stamps):
            raise WrongResultError(f"an item must carry {stages + 1} ascending stamps, got {len(stamps)}")
    hops = [(later - earlier) / 1000.0 for stamps in items[warm_up:] for earlier, later in pairwise(stamps)]
    if len(hops) < 2:
        raise WrongResultError(f"hop must run more than {warm_up} items (they warm up), got {len(items)}")
    return {
        "hop_p50_us": round(statistics.median(hops), 3),
        "hop_p99_us": round(statistics.quantiles(hops, n=100, method="inclusive")[98], 3),
        "hop_mean_us": round(statistics.fmean(hops), 3),
    }


# SLOW_SINK: a source that never waits into a sink that does


class SlowSink:
    """Takes `delay_seconds` for each item, and insists on getting 0, 1, 2, ... in this order.

    >>> sink = SlowSink(delay_seconds=0.0)
    >>> sink(0)
    >>> sink.discard(1)
    >>> sink.taken
    1
    """

    def __init__(self, delay_seconds: float = SLOW_SINK_DELAY_SECONDS) -> None:
        self.delay_seconds = delay_seconds
        self.taken = 0
        self._next = 0

    def __call__(self, item: int) -> None:
        """Take one item, blocking the thread for the delay.

        Raises:
            WrongResultError: It is not the next one.
        """
        self.discard(item)
        time.sleep(self.delay_seconds)
        self.taken += 1

    async def acall(self, item: int) -> None:
        """Take one item, suspending instead of blocking.

        Raises:
            WrongResultError: It is not the next one.
        """
        self.discard(item)
        await asyncio.sleep(self.delay_seconds)
        self.taken += 1

    def discard(self, item: int) -> None:
        """See to the order only, at once: for what is under way when the time is over, which does not count.

        Raises:
            WrongResultError: It is not the next one.
        """
        if item != self._next:
            raise WrongResultError(f"the sink must get item {self._next} next, got {item}")
        self._next += 1
