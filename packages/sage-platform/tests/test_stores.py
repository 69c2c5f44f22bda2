"""The conformance suite that every store passes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.common.errors import InvalidArgumentError, SizeLimitError, StoreError
from sage.platform.stores import KeyValueStore, MemoryStore, RecordLog, SqliteStore, Store
from sage.platform.stores.protocols import KEY_BYTES_MAX

Opener = Callable[[], Store]


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store
    if request.param == "memory":
        opened = MemoryStore(value_bytes_max=1000)
    else:
        opened = SqliteStore(tmp_path / "store.db", value_bytes_max=1000)
    with opened:
        yield opened


# --- conformance: key-value
# ------------------------------------------------------------------------------------------


def test_values_are_set_replaced_and_removed(store: Store) -> None:
    values = store.key_values("a")
    assert values.get("k") is None
    values.put("k", b"1")
    values.put("k", b"2")
    assert values.get("k") == b"2"
    assert values.count() == 1
    assert values.delete("k") is True
    assert values.delete("k") is False
    assert values.get("k") is None
    assert values.count() == 0


def test_empty_keys_and_values_are_values_like_any_other(store: Store) -> None:
    values = store.key_values("a")
    values.put("", b"")
    assert values.get("") == b""
    assert values.scan() == [("", b"")]
    assert values.delete("") is True


def test_namespaces_do_not_see_each_other(store: Store) -> None:
    left, right = store.key_values("left"), store.key_values("right")
    left.put("k", b"l")
    assert right.get("k") is None
    right.put("k", b"r")
    assert left.delete("k")
    assert right.get("k") == b"r"
    assert store.namespaces() == ["right"]
    assert store.logs() == []


def test_two_views_of_a_namespace_show_the_same(store: Store) -> None:
    store.key_values("a").put("k", b"v")
    assert store.key_values("a").get("k") == b"v"


def test_scan_reads_pages_by_prefix_in_code_point_order(store: Store) -> None:
    values = store.key_values("a")
    keys = ["b", "a", "ab", "a\x00", "a\U0010ffff", "aé", "B", "a\uffff"]
    values.put_many((key, key.encode()) for key in keys)
    inside = sorted(key for key in keys if key.startswith("a"))
    assert [key for key, _ in values.scan("a")] == inside
    assert [key for key, _ in values.scan()] == sorted(keys)
    assert [key for key, _ in values.scan("a", limit=2)] == inside[:2]
    assert [key for key, _ in values.scan("a", limit=2, after=inside[1])] == inside[2:4]
    assert values.scan("a", limit=0) == []
    assert values.scan("zz") == []


def test_put_many_is_all_or_nothing(store: Store) -> None:
    values = store.key_values("a")
    values.put("old", b"1")

    def items() -> Iterator[tuple[str, bytes]]:
        yield "old", b"2"
        yield "new", b"3"
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="broke"):
        values.put_many(items())
    with pytest.raises(SizeLimitError):
        values.put_many([("old", b"2"), ("new", b"x" * 1001)])
    assert values.scan() == [("old", b"1")]
    values.put_many([("same", b"1"), ("same", b"2")])
    assert values.get("same") == b"2"


# --- conformance: log
# ------------------------------------------------------------------------------------------------


def test_log_numbers_from_one_without_gaps(store: Store) -> None:
    log = store.record_log("l")
    assert (log.count(), log.next_sequence(), log.read()) == (0, 1, [])
    assert log.append(b"a") == 1
    assert log.append_many([b"b", b"c"]) == range(2, 4)
    assert len(log.append_many([])) == 0
    assert log.append(b"") == 4
    assert log.read() == [(1, b"a"), (2, b"b"), (3, b"c"), (4, b"")]
    assert log.read(2, limit=2) == [(2, b"b"), (3, b"c")]
    assert log.read(5) == []
    assert log.get(3) == b"c"
    assert log.get(5) is None
    assert store.logs() == ["l"]
    assert store.namespaces() == []


def test_numbers_are_never_used_again(store: Store) -> None:
    log = store.record_log("l")
    log.append_many([b"a", b"b", b"c"])
    assert log.delete(3) is True
    assert log.delete(3) is False
    assert log.truncate_before(3) == 2
    assert log.truncate_before(3) == 0
    assert log.count() == 0
    assert log.append(b"d") == 4
    assert log.read() == [(4, b"d")]
    assert store.logs() == ["l"]


def test_sequences_outside_of_64_bits_are_merely_absent(store: Store) -> None:
    log = store.record_log("l")
    log.append(b"a")
    assert log.get(1 << 80) is None
    assert log.get(-(1 << 80)) is None
    assert log.read(1 << 80) == []
    assert log.read(-(1 << 80)) == [(1, b"a")]
    assert log.truncate_before(1 << 80) == 1


def test_append_many_is_all_or_nothing(store: Store) -> None:
    log = store.record_log("l")
    with pytest.raises(SizeLimitError, match="1001 bytes"):
        log.append_many([b"a", b"x" * 1001])
    assert log.count() == 0
    assert log.append(b"a") == 1


def test_threads_append_without_loss(store: Store) -> None:
    numbers: list[list[int]] = [[] for _ in range(4)]

    def write(index: int) -> None:
        log = store.record_log("l")
        numbers[index].extend(log.append(f"{index}-{i}".encode()) for i in range(25))

    threads = [threading.Thread(target=write, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    records = dict(store.record_log("l").read())
    assert sorted(number for mine in numbers for number in mine) == list(range(1, 101)) == sorted(records)
    for index, mine in enumerate(numbers):
        assert [records[number] for number in mine] == [f"{index}-{i}".encode() for i in range(25)]


# --- conformance: bad arguments and closing
# --------------------------------------------------------------------------


def test_bad_arguments_are_refused(store: Store) -> None:
    values, log = store.key_values("a"), store.record_log("l")
    with pytest.raises(InvalidArgumentError, match="1 to 200 characters"):
        store.key_values("")
    with pytest.raises(InvalidArgumentError, match="1 to 200 characters"):
        store.record_log("x" * 201)
    with pytest.raises(InvalidArgumentError, match="UTF-8"):
        values.put("\ud800", b"")
    with pytest.raises(SizeLimitError, match=str(KEY_BYTES_MAX)):
        values.get("k" * (KEY_BYTES_MAX + 1))
    with pytest.raises(InvalidArgumentError, match="must be bytes, got str"):
        values.put("k", "text")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="must be bytes, got int"):
        log.append(7)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="limit must be >= 0"):
        values.scan(limit=-1)
    with pytest.raises(InvalidArgumentError, match="limit must be >= 0"):
        log.read(limit=-1)
    assert values.count() == log.count() == 0


def test_closed_views_and_stores_refuse(store: Store) -> None:
    with store.key_values("a") as values, store.record_log("l") as log:
        values.put("k", b"v")
    with pytest.raises(StoreError, match="namespace 'a' is closed"):
        values.get("k")
    with pytest.raises(StoreError, match="log 'l' is closed"):
        log.append(b"x")
    again, log_again = store.key_values("a"), store.record_log("l")
    assert again.get("k") == b"v"
    store.close()
    store.close()
    calls: list[Callable[[], object]] = [
        lambda: again.put("k", b"v"),
        again.scan,
        lambda: log_again.append_many([]),
        log_again.count,
        lambda: store.key_values("a"),
        store.namespaces,
        store.logs,
    ]
    for call in calls:
        with pytest.raises(StoreError, match="closed"):
            call()


# --- conformance: against a model
# ------------------------------------------------------------------------------------

_keys = st.text(st.sampled_from("ab\x00é\uffff\U0010ffff"), max_size=3)
_values = st.binary(max_size=5)
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), _keys, _values),
        st.tuples(st.just("put_many"), st.lists(st.tuples(_keys, _values), max_size=4)),
        st.tuples(st.just("delete"), _keys),
        st.tuples(st.just("scan"), _keys, st.none() | st.integers(0, 4), st.none() | _keys),
        st.tuples(st.just("append"), st.lists(_values, max_size=4)),
        st.tuples(st.just("remove"), st.integers(-1, 12)),
        st.tuples(st.just("truncate"), st.integers(-1, 12)),
        st.tuples(st.just("read"), st.integers(-1, 12), st.none() | st.integers(0, 4)),
    ),
    max_size=25,
)


@given(_steps)
def test_random_steps_agree_with_a_dict_and_a_list_in_memory(steps: list[tuple[object, ...]]) -> None:
    with MemoryStore() as opened:
        _compare_with_model(opened, steps)


@given(_steps)
def test_random_steps_agree_with_a_dict_and_a_list_in_sqlite(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[object, ...]]
) -> None:
    with SqliteStore(tmp_path_factory.mktemp("model") / "store.db", synchronous="OFF") as opened:
        _compare_with_model(opened, steps)


def _compare_with_model(opened: Store, steps: list[tuple[object, ...]]) -> None:
    values, log = opened.key_values("n"), opened.record_log("n")
    model: dict[str, bytes] = {}
    records: list[bytes | None] = []
    for kind, *arguments in steps:
        _step(str(kind), arguments, values, log, model, records)
    assert values.scan() == sorted(model.items())
    assert values.count() == len(model)
    assert log.read() == [(i + 1, record) for i, record in enumerate(records) if record is not None]
    assert log.next_sequence() == len(records) + 1


def _step(
    kind: str,
    arguments: list[object],
    values: KeyValueStore,
    log: RecordLog,
    model: dict[str, bytes],
    records: list[bytes | None],
) -> None:
    match kind, arguments:
        case "put", [str(key), bytes(value)]:
            values.put(key, value)
            model[key] = value
        case "put_many", [list(items)]:
            values.put_many(items)
            model.update(items)
        case "delete", [str(key)]:
            assert values.delete(key) == (model.pop(key, None) is not None)
        case "scan", [str(prefix), limit, after]:
            assert limit is None or isinstance(limit, int)
            assert after is None or isinstance(after, str)
            expected = [
                item
                for item in sorted(model.items())
                if item[0].startswith(prefix) and (after is None or item[0] > after)
            ]
            assert values.scan(prefix, limit, after) == expected[:limit]
        case "append", [list(new)]:
            assert len(log.append_many(new)) == len(new)
            records.extend(new)
        case "remove", [int(sequence)]:
            there = 1 <= sequence <= len(records) and records[sequence - 1] is not None
            assert log.delete(sequence) == there
            if there:
                records[sequence - 1] = None
        case "truncate", [int(sequence)]:
            end = max(0, min(sequence - 1, len(records)))
            gone = sum(record is not None for record in records[:end])
            assert log.truncate_before(sequence) == gone
            records[:end] = [None] * end
        case "read", [int(start), limit]:
            assert limit is None or isinstance(limit, int)
            found = [(i + 1, r) for i, r in enumerate(records) if r is not None and i + 1 >= start]
            assert log.read(start, limit) == found[:limit]
        case _:
            raise AssertionError(kind)
