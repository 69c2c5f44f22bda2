"""Ids: form, order, uniqueness over threads and forks, and refusal of what is none."""

from __future__ import annotations

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.common.clock import VirtualClock
from sage.common.errors import InvalidArgumentError
from sage.common.ids import IdGenerator, new_id, parse_id


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_an_id_keeps_its_time_and_randomness(milliseconds: int, randomness: bytes) -> None:
    ids = IdGenerator(VirtualClock(start=(milliseconds + 0.5) / 1000), lambda size: randomness)
    text = ids.new("job")
    parsed = parse_id(text, prefix="job")
    assert abs(parsed.milliseconds - milliseconds) <= 1  # half a millisecond is lost in a float of that size
    assert parsed.randomness == int.from_bytes(randomness, "big")
    assert parse_id(text.removeprefix("job_").lower()).randomness == parsed.randomness


@given(st.lists(st.floats(0, 5), min_size=1, max_size=20))
def test_ids_increase_even_when_the_clock_does_not(times: list[float]) -> None:
    class Jumping(VirtualClock):
        def time(self) -> float:
            return times[min(len(made), len(times) - 1)]

    made: list[str] = []
    ids = IdGenerator(Jumping(), lambda size: b"\xff" * size)
    for _ in times * 3:
        made.append(ids.new())
    assert made == sorted(set(made))


def test_threads_never_get_the_same_id() -> None:
    ids = IdGenerator(VirtualClock())
    made: list[list[str]] = [[] for _ in range(4)]
    threads = [threading.Thread(target=lambda mine=mine: mine.extend(ids.new() for _ in range(2000))) for mine in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert all(mine == sorted(mine) for mine in made)
    assert len({text for mine in made for text in mine}) == 8000


def test_a_forked_child_makes_other_ids_than_its_parent() -> None:
    ids = IdGenerator(VirtualClock(start=1.0))
    ids.new()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, ids.new().encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        theirs = pipe.read()
    os.waitpid(child, 0)
    ours = ids.new()
    assert len(theirs) == 26
    assert parse_id(theirs).randomness - parse_id(ours).randomness not in range(-10, 11)


def test_default_ids_sort_by_creation() -> None:
    made = [new_id("run") for _ in range(100)]
    assert made == sorted(set(made))
    assert len(new_id()) == 26


@pytest.mark.parametrize("prefix", ["Job", "job_", "-job", "job-", "a--b", "9a", "jöb", "a b", "job\n"])
def test_bad_prefixes_are_refused(prefix: str) -> None:
    with pytest.raises(InvalidArgumentError, match="prefix"):
        new_id(prefix)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "0 characters"),
        ("job_", "0 characters"),
        ("0" * 25, "25 characters"),
        ("0" * 27, "27 characters"),
        ("U" * 26, "contains 'U'"),
        ("ß" * 26, "contains"),
        ("8" + "0" * 25, "128 bits"),
        ("Z" * 26, "128 bits"),
        ("JOB_" + "0" * 26, "prefix"),
        ("_" + "0" * 26, "prefix"),
    ],
)
def test_what_is_no_id_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        parse_id(text)


def test_another_kind_of_id_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="begins with 'job_'"):
        parse_id(new_id("task"), prefix="job")


def test_a_clock_out_of_range_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="clock"):
        IdGenerator(VirtualClock(start=-1.0)).new()
