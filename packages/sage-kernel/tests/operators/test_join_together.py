"""A join takes a packet at once: what comes of it is what comes of its items one by one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from environments import environment, finished, letters
from hypothesis import given
from hypothesis import strategies as st

from sage.kernel.api import Contract, ErrorPolicy, IOSpec, KeyedStream, LocalEnvironment, MapFunction
from sage.kernel.operators import JoinSpec, OperatorContext
from sage.kernel.runtime.thread_task import ThreadTask

PACKETS = st.lists(
    st.tuples(st.integers(0, 1), st.lists(st.sampled_from([None, 0, 0.0, "", "a", (1, 2)]), min_size=1, max_size=6)),
    max_size=8,
)


class Uncomparable:
    """A key that cannot be told from another with the same hash."""

    def __init__(self) -> None:
        self.asked = 0

    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> bool:
        self.asked += 1
        raise ValueError("not to be compared")


def joiner(outputs_max: int = 100, *, keeps_left: bool = False) -> tuple[Any, OperatorContext]:
    bound = JoinSpec(None, keeps_left, outputs_max).bind()
    context = OperatorContext("join", keyed=True)
    assert bound.function is not None
    bound.function.attach(context)
    return bound, context


def one_by_one(bound: Any, context: OperatorContext, side: int, items: list[Any], keys: list[Any]) -> list[list[Any]]:
    results = []
    for item, key in zip(items, keys, strict=True):
        context.enter(key)
        results.append(bound.call((side, item)))
    return results


@given(packets=PACKETS)
def test_a_packet_at_once_is_its_items_one_by_one(packets: list[tuple[int, list[Any]]]) -> None:
    (together, _), (alone, context) = joiner(keeps_left=True), joiner(keeps_left=True)
    for number, (side, keys) in enumerate(packets):
        items = [(number, position) for position in range(len(keys))]
        expected = one_by_one(alone, context, side, items, keys)
        outputs, counts = together.together(side, items, keys)
        assert outputs == [pair for pairs in expected for pair in pairs]
        assert list(counts) == [len(pairs) for pairs in expected]
    assert together.function.get_state() == alone.function.get_state()
    assert list(together.leftovers()) == list(alone.leftovers())


def test_what_cannot_be_taken_at_once_changes_nothing() -> None:
    few, context = joiner(outputs_max=2)
    few.together(0, ["a", "b", "c"], [1, 1, 1])
    # Its third pair is an error of that one item, which the others must not share.
    assert few.together(1, ["x", "y"], [2, 1]) is None
    assert one_by_one(few, context, 1, ["x"], [2]) == [[]]
    assert few.together(0, ["d"], [2]) == ([("d", "x")], [1])

    many, _ = joiner(outputs_max=100_000)
    many.together(0, list(range(300)), [1] * 300)
    assert many.together(1, list(range(100)), [1] * 100) is None
    outputs, _ = many.together(1, list(range(50)), [1] * 50)
    assert Counter(outputs) == Counter((one, other) for one in range(300) for other in range(50))


def test_a_key_that_cannot_be_compared_is_left_to_its_item() -> None:
    bound, _ = joiner()
    first, second = Uncomparable(), Uncomparable()
    assert bound.together(0, ["a"], [first]) == ([], [0])
    assert bound.together(0, ["b", "c"], [1, second]) is None
    assert first.asked + second.asked
    assert bound.together(1, ["x"], [1]) == ([], [0])


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the packets that were taken at once."""
    sizes: list[int] = []
    run_together = ThreadTask._run_together

    def noted(self: ThreadTask, packet: Any) -> bool:
        size = packet.size
        done = run_together(self, packet)
        if done:
            sizes.append(size)
        return done

    monkeypatch.setattr(ThreadTask, "_run_together", noted)
    # On a busy machine each batch may look slow; what is slow is timed, and so run item by item.
    monkeypatch.setattr(ThreadTask, "_timed_from_ns", 10**12)
    return sizes


LEFT = [(f"key{n % 200}", n) for n in range(4000)]
RIGHT = [(f"key{n % 300}", -n) for n in range(3000)]
PAIRS = Counter((one, other) for one in LEFT for other in RIGHT if one[0] == other[0])


def joined(env: LocalEnvironment, **facts: Any) -> KeyedStream[Any]:
    left, right = (env.from_collection(rows).key_by(lambda row: row[0]) for rows in (LEFT, RIGHT))
    return left.join(right, name="join", **facts)


@pytest.mark.parametrize("parallelism", [1, 3])
def test_into_a_list(tmp_path: Path, taken: list[int], parallelism: int) -> None:
    env, out = environment(tmp_path), list[Any]()
    joined(env, parallelism=parallelism).sink(out.append, name="out")
    result = finished(env)
    assert Counter(out) == PAIRS
    assert taken
    counts = {found.operator: (found.items_in, found.items_out) for found in result.metrics.operators}
    assert counts["join"] == (len(LEFT) + len(RIGHT), len(out))
    assert counts["out"] == (len(out), len(out))


LOST = Counter(pair for pair in PAIRS if pair[0][1] + pair[1][1] == 0 and pair[0][1] % 50 == 7)


@pytest.mark.parametrize("behind", ["map", "flatmap", "after a flatmap", "in front of a fold", "keyed map"])
def test_dead_letters_behind_it_have_the_key_of_their_item(tmp_path: Path, taken: list[int], behind: str) -> None:
    env, out = environment(tmp_path), list[Any]()
    calls: Counter[Any] = Counter()

    def check(pair: Any) -> Any:
        calls[pair] += 1
        if pair in LOST:
            raise ValueError("not this one")
        return pair

    class Checks(MapFunction[Any, Any]):
        def execute(self, item: Any) -> Any:
            assert self.ctx.key == item[0][0]
            return check(item)

    facts: dict[str, Any] = {"name": "check", "contract": Contract(io=IOSpec(errors=ErrorPolicy(retries=1, delay_s=0)))}
    both = joined(env)
    if behind == "map":
        both.map(check, **facts).sink(out.append)
    elif behind == "flatmap":
        both.flatmap(lambda pair: [check(pair)], **facts).sink(out.append)
    elif behind == "after a flatmap":
        both.flatmap(lambda pair: [pair]).map(check, **facts).sink(out.append)
    elif behind == "in front of a fold":
        kept = both.map(check, **facts)
        kept.aggregate(Counter, lambda found, pair: found + Counter([pair]), emit="final").sink(
            lambda found: out.extend(found[1].elements())
        )
    else:
        both.map(Checks, **facts).sink(out.append)
    result = finished(env)
    assert taken
    assert len(LOST) == 20
    assert Counter(out) == PAIRS - LOST
    found = letters(tmp_path)
    assert Counter((letter.item, letter.key) for letter in found) == Counter(
        (repr(pair), repr(pair[0][0])) for pair in LOST
    )
    assert result.dead_letters == len(LOST)
    assert {calls[pair] for pair in PAIRS} == {1, 2}


class Numbered(MapFunction[Any, Any]):
    """The number of an item among those of its key."""

    def execute(self, item: Any) -> Any:
        """Count it."""
        self.ctx.state["n"] = number = self.ctx.state.get("n", 0) + 1
        return self.ctx.key, item[0][0], number


@pytest.mark.parametrize("fusion", [True, False])
def test_keys_go_on_behind_it(tmp_path: Path, taken: list[int], fusion: bool) -> None:
    env, out, sums = environment(tmp_path, fusion=fusion), list[Any](), list[Any]()
    both = joined(env)
    both.map(Numbered).sink(out.append)
    both.count(emit="final").sink(sums.append)
    finished(env)
    of_key = Counter(one[0] for one, _ in PAIRS.elements())
    assert taken
    assert dict(sums) == dict(of_key)
    assert Counter(out) == Counter((key, key, n + 1) for key, total in of_key.items() for n in range(total))


def test_a_flatmap_into_a_list(tmp_path: Path) -> None:
    env, out = environment(tmp_path), list[Any]()

    def twice(n: int) -> Any:
        if n == 50:
            raise ValueError("not this one")
        return [n] * 2 if n % 2 else (m for m in (n, n))

    result_of = env.from_collection(range(3000)).flatmap(twice, name="twice")
    result_of.sink(out.append, name="out")
    result = finished(env)
    assert out == [n for n in range(3000) if n != 50 for _ in range(2)]
    counts = {found.operator: (found.items_in, found.items_out) for found in result.metrics.operators}
    assert counts["twice"] == (3000, len(out))
    assert counts["out"] == (len(out), len(out))


class Gathered(list[Any]):
    """A list that sees each item."""

    def append(self, item: Any) -> None:
        """Keep it, marked."""
        super().append(("seen", item))


def test_a_list_of_another_class_is_asked_for_each_item(tmp_path: Path) -> None:
    env, out = environment(tmp_path), Gathered()
    joined(env).sink(out.append)
    finished(env)
    assert Counter(pair for _, pair in out) == PAIRS
