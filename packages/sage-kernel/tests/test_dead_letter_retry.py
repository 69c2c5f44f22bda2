"""Dead letters that are given back: nothing lost, none twice, whatever happens in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import types
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from gates import Gate, retry

from sage.common.errors import StoreError
from sage.kernel.api import (
    Contract,
    ErrorPolicy,
    IOSpec,
    JobFailedError,
    JobState,
    LocalEnvironment,
    MapFunction,
    OnError,
    PipelineError,
    StateKind,
    StateSpec,
)
from sage.kernel.api.replay import DeadLetterRetry, RetryOutcome
from sage.kernel.operators import BadRecord, SourceFunction
from sage.kernel.runtime import DeadLetterStore, LetterState

HELD_S = 30.0


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "home")


def checked(gate: Gate, items: Any, **arguments: Any) -> LocalEnvironment:
    env = gate.env()
    env.from_collection(items).map(gate.check, name="check", **arguments).map(lambda item: [item], name="wrap").sink(
        gate.out.append, name="out"
    )
    return env


def test_items_go_on_where_they_failed(gate: Gate) -> None:
    env = checked(gate, range(6))
    gate.refused = lambda n: n % 2 == 1
    assert env.submit().wait().dead_letters == 3
    gate.out.clear()
    gate.refused = lambda n: n == 3
    assert retry(env) == RetryOutcome(retried=3, failed_again=1, still_open=0, refused={})
    assert sorted(gate.out) == [[1], [5]]
    assert gate.items(LetterState.OPEN) == ["3"]
    assert gate.items(LetterState.RETRIED) == ["1", "3", "5"]
    gate.refused = lambda n: False
    assert retry(env).retried == 1
    assert gate.items(LetterState.OPEN) == []
    with DeadLetterRetry(env) as attempt:
        assert attempt.count == 0
        with pytest.raises(PipelineError, match="there are no dead letters of 'gate' that can be retried"):
            attempt.submit()


def test_letters_of_several_operators_enter_each_at_its_own(gate: Gate) -> None:
    env = gate.env()
    calls: Counter[str] = Counter()

    def first(n: int) -> int:
        calls["first"] += 1
        return gate.check(("first", n)) and n

    def second(n: int) -> int:
        calls["second"] += 1
        return gate.check(("second", n)) and n

    env.from_collection(range(4)).map(first).map(second).sink(gate.out.append)
    gate.refused = lambda item: item in {("first", 0), ("second", 1)}
    env.submit()
    calls.clear()
    gate.out.clear()
    gate.refused = lambda item: False
    assert retry(env).retried == 2
    assert (calls, sorted(gate.out)) == ({"first": 1, "second": 2}, [0, 1])


def test_only_some_of_them(gate: Gate) -> None:
    env = gate.env()
    stream = env.from_collection([1, 2])
    stream.map(gate.check, name="left").sink(gate.out.append, name="left out")
    stream.map(gate.check, name="right").sink(gate.out.append, name="right out")
    one, two = env.submit(), env.submit()
    assert len(gate.letters()) == 8
    gate.refused = lambda n: False
    assert retry(env, job_id=one.id, operator="left").retried == 2
    assert {(each.job_id, each.operator) for each in gate.letters(LetterState.RETRIED)} == {(one.id, "left")}
    assert retry(env, job_id=two.id).retried == 4
    assert retry(env).retried == 2
    assert sorted(gate.out) == [1, 1, 1, 1, 2, 2, 2, 2]


def test_keys_come_back_with_their_items(gate: Gate) -> None:
    seen: list[tuple[Any, Any]] = []

    class Check(MapFunction[int, int]):
        def execute(self, item: int) -> int:
            gate.check(item)
            seen.append((self.ctx.key, item))
            return item

    env = gate.env()
    keyed = env.from_collection(range(40)).key_by(lambda n: ("k", n % 7), parallelism=3)
    keyed.map(Check, name="check").sink(gate.out.append)
    assert env.submit().wait().dead_letters == 40
    gate.refused = lambda n: False
    assert retry(env).retried == 40
    assert sorted(seen) == sorted((("k", n % 7), n) for n in range(40))
    for key in range(7):
        of_key = [n for (_, found), n in seen if found == key]
        assert of_key == sorted(of_key, key=lambda n: _position(gate, n))


def _position(gate: Gate, n: int) -> int:
    return next(letter.number for letter in gate.letters() if letter.item == str(n))


@pytest.mark.parametrize(
    "item",
    [1, "a", None, True, 1.5, [1, {"a": None}], {"a": [1]}, (1, 2), {1: 2}, {3}, b"x", float("inf"), 1 << 70, 1 + 2j,
     "\ud800", {"x": (1,)}],
)  # fmt: skip
def test_an_item_comes_back_as_it_was(gate: Gate, item: Any) -> None:
    env = checked(gate, [item])
    env.submit()
    (letter,) = gate.letters()
    plain = letter.payload is None
    assert plain == letter.json_exact == (item in (1, "a", None, True, 1.5, [1, {"a": None}], {"a": [1]}))
    gate.refused = lambda item: False
    assert retry(env).retried == 1
    ((back,),) = gate.out
    assert back == item
    assert type(back) is type(item)


def test_what_cannot_be_given_back_stays_and_is_told(gate: Gate) -> None:
    class Lines(SourceFunction[int]):
        def execute(self) -> Any:
            yield BadRecord("line 3", ValueError("torn"))
            yield 5

    env = gate.env()
    env.from_source(Lines, name="lines").map(gate.check, name="check").sink(gate.out.append)
    env.submit()
    other = checked(gate, [(n for n in [1])])  # a generator cannot be pickled
    other.submit()
    gate.refused = lambda item: False
    outcome = retry(env)
    assert (outcome.retried, outcome.still_open) == (1, 0)
    assert outcome.refused == {
        1: "source 'lines' could not read it: mend what it reads and run the pipeline again",
        3: "its item could not be pickled when it was set aside",
    }
    assert gate.items(LetterState.RETRIED) == ["5"]


def test_an_item_whose_class_is_gone_stays_open(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("vanishing")
    exec("class Thing:\n    pass", vars(module))
    monkeypatch.setitem(sys.modules, "vanishing", module)
    env = checked(gate, [1, module.Thing(), 2])
    env.submit()
    monkeypatch.delitem(sys.modules, "vanishing")
    gate.refused = lambda item: False
    outcome = retry(env)
    assert (outcome.retried, outcome.still_open) == (2, 0)
    assert outcome.refused == {
        2: "the item of dead letter 2 cannot be given back: ModuleNotFoundError: No module named 'vanishing'"
    }
    assert sorted(gate.out) == [[1], [2]]
    assert [letter.number for letter in gate.letters(LetterState.OPEN)] == [2]


def test_a_store_that_others_may_write_is_not_unpickled(gate: Gate) -> None:
    env = checked(gate, [(1, 2), 3])
    env.submit()
    (gate.home / "dead_letters.db").chmod(0o666)
    gate.refused = lambda item: False
    outcome = retry(env)
    assert (outcome.retried, list(outcome.refused)) == (1, [1])  # JSON is no code: that one goes through
    assert "others than you could have written it" in outcome.refused[1]


# -- pipelines that cannot take their letters back


def test_an_operator_that_is_gone(gate: Gate) -> None:
    checked(gate, [1]).submit()
    env = gate.env()
    env.from_collection([1]).map(gate.check, name="checks").sink(gate.out.append)
    with (
        pytest.raises(
            PipelineError, match=r"operator 'check', which the pipeline does not have; did it become 'checks'\?"
        ),
        DeadLetterRetry(env),
    ):
        pass


def test_another_pipeline(gate: Gate) -> None:
    job = checked(gate, [1]).submit()
    other = gate.env("other")
    other.from_collection([1]).map(gate.check, name="check").sink(gate.out.append)
    with DeadLetterRetry(other) as attempt:
        assert attempt.count == 0
    with (
        pytest.raises(PipelineError, match="ran the pipeline 'gate', this one is 'other'"),
        DeadLetterRetry(other, job_id=job.id),
    ):
        pass


@pytest.mark.parametrize("how", ["count", "contract"])
def test_state_is_not_made_up(gate: Gate, how: str) -> None:
    env = gate.env()
    keyed = env.from_collection([1, 2]).map(gate.check, name="check").key_by(lambda n: n % 1)
    if how == "count":
        keyed.count(emit="final", name="fold").sink(gate.out.append)
    else:
        keyed.map(abs, name="fold", contract=Contract(state=StateSpec(kind=StateKind.STATEFUL))).sink(gate.out.append)
    gate.refused = lambda n: n == 1
    env.submit()
    gate.refused = lambda n: False
    with (
        pytest.raises(PipelineError, match="operator 'fold' keeps state, which ended with the run"),
        DeadLetterRetry(env),
    ):
        pass
    gate.out.clear()
    assert retry(env, empty_state=True).retried == 1
    assert gate.out == ([(0, 1)] if how == "count" else [1])


def test_through_a_split_an_order_and_a_batch(gate: Gate) -> None:
    env = gate.env()
    parts = env.from_collection(range(6)).map(gate.check, name="check").split({"odd": lambda n: n % 2 == 1})
    parts["odd"].ordered().batch(2).sink(gate.out.append, name="odd")
    parts["rest"].sink(gate.out.append, name="even")
    env.submit()
    gate.refused = lambda n: False
    assert retry(env).retried == 6
    assert sorted(gate.out, key=str) == [0, 2, 4, [1, 3], [5]]


# -- what happens in between


def test_a_retry_that_fails_changes_nothing(gate: Gate) -> None:
    strict = Contract(io=IOSpec(errors=ErrorPolicy(on_error=OnError.FAIL)))
    env = gate.env()
    env.from_collection(range(4)).map(gate.check, name="check").map(lambda n: 1 // (n - 2), contract=strict).sink(
        gate.out.append
    )
    env.submit()
    gate.refused = lambda n: n == 0
    with DeadLetterRetry(env) as attempt:
        job = attempt.submit()
        with pytest.raises(JobFailedError):
            job.wait()
        assert job.result is not None
        outcome = attempt.commit(job.result)
    assert (outcome.retried, outcome.still_open) == (0, 4)
    assert sorted(gate.items(LetterState.OPEN)) == ["0", "1", "2", "3"]
    assert gate.items(LetterState.VOID) == ["0"]  # it failed again in vain: the letter that it comes from is open


def test_a_stopped_retry_closes_what_it_has_worked_off(gate: Gate) -> None:
    slow = {"s": 0.0}

    def step(n: int) -> int:
        time.sleep(slow["s"])
        return gate.check(n)

    env = gate.env()
    env.from_collection(range(60)).map(step, name="check").sink(gate.out.append)
    env.submit()
    gate.refused = lambda n: n == 1
    slow["s"] = 0.02
    with DeadLetterRetry(env) as attempt:
        job = attempt.submit()
        while not gate.out:
            time.sleep(0.005)
        job.stop()
        result = job.wait()
        outcome = attempt.commit(result)
    assert result.state is JobState.STOPPED
    assert 0 < outcome.retried < 60
    assert outcome.retried + outcome.still_open == 60
    open_items = [int(item) for item in gate.items(LetterState.OPEN)]
    # Each item is out, or in exactly one open letter.
    assert sorted([*gate.out, *open_items]) == list(range(60))
    slow["s"] = 0.0
    gate.refused = lambda n: False
    retry(env)
    assert sorted(gate.out) == list(range(60))
    assert gate.items(LetterState.OPEN) == []


def test_two_retries_at_once_are_refused(gate: Gate) -> None:
    env = checked(gate, [1])
    env.submit()
    with DeadLetterRetry(env) as attempt:
        with pytest.raises(StoreError, match="another process is retrying dead letters"), DeadLetterRetry(env):
            pass
        gate.refused = lambda n: False
        attempt.commit(attempt.submit().wait())
    with DeadLetterRetry(env) as attempt:
        assert attempt.count == 0


_PROGRAM = """
import sys, time
from pathlib import Path
from sage.kernel.api import LocalEnvironment
from sage.kernel.api.replay import DeadLetterRetry

home, mode, hold = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])

def check(n):
    if mode == "run" or n % 5 == 0:
        raise ValueError(f"{n} is refused")
    return n

def slowly(n):
    time.sleep(hold)
    return n

env = LocalEnvironment("killed", {"home": home})
env.from_collection(range(40)).map(check).map(slowly).sink(lambda n: print(n, flush=True))
if mode == "run":
    env.submit()
else:
    with DeadLetterRetry(env) as retry:
        outcome = retry.commit(retry.submit().wait())
        print("done", outcome.retried, outcome.failed_again, flush=True)
"""


def test_kill_in_the_middle_leaves_each_letter_open_or_retried(tmp_path: Path) -> None:
    program, home = tmp_path / "program.py", tmp_path / "home"
    program.write_text(_PROGRAM)

    def start(mode: str, hold: float) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(program), str(home), mode, str(hold)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip

    def open_items() -> list[int]:
        with DeadLetterStore(home) as store:
            return sorted(int(letter.item) for letter in store.read(states=[LetterState.OPEN]))

    assert start("run", 0).communicate(timeout=HELD_S)[0] == ""
    assert open_items() == list(range(40))
    for lines in (1, 4):
        process = start("retry", 0.05)
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait(HELD_S)
        process.stdout.close()
        with DeadLetterStore(home) as store:
            states = Counter(letter.state for letter in store.read())
        assert states[LetterState.RETRIED] == 0
        assert states[LetterState.VOID] > 0  # it had set some aside again
        assert open_items() == list(range(40))  # each once
    out, _ = start("retry", 0).communicate(timeout=HELD_S)
    assert out.splitlines()[-1] == "done 40 8"
    assert sorted(map(int, out.splitlines()[:-1])) == [n for n in range(40) if n % 5]
    assert open_items() == list(range(0, 40, 5))


# -- the budget


@pytest.mark.parametrize(
    ("limit", "fails"), [(None, False), (10, False), (9, True), (0, True), ("10", False), ("5", True)]
)
def test_a_number_of_dead_letters(gate: Gate, limit: int | str | None, fails: bool) -> None:
    env = gate.env(max_dead_letters=limit)
    env.from_collection(range(100)).map(gate.check, name="check").sink(gate.out.append)
    gate.refused = lambda n: n % 10 == 0
    if not fails:
        assert env.submit().wait().dead_letters == 10
        return
    told = (
        r"more dead letters than max_dead_letters allows: \d+, the limit is \d; the commonest error "
        r"\(\d+ of \d+\) is that of operator 'check', the first time ValueError: 0 is refused"
    )
    with pytest.raises(JobFailedError, match=told):
        env.submit()
    assert len(gate.letters()) >= int(limit or 0) + 1


@pytest.mark.parametrize(
    ("limit", "fails"), [("10%", False), ("9.9%", True), ("100%", False), ("0%", True), (" 12.5 %", False)]
)
def test_a_share_of_dead_letters(gate: Gate, limit: str, fails: bool) -> None:
    env = gate.env(max_dead_letters=limit)
    env.from_collection(range(1000)).map(gate.check, name="check").sink(gate.out.append)
    # The last of each ten: the share is never above its final value, whenever somebody looks.
    gate.refused = lambda n: n % 10 == 9
    if fails:
        with pytest.raises(JobFailedError, match=r"the limit is [\d.]+% of [\d,]+ items"):
            env.submit()
    else:
        env.submit()


def test_a_share_stops_an_endless_job(gate: Gate) -> None:
    env = gate.env(max_dead_letters="1%")

    def endless() -> Any:
        n = 0
        while True:
            yield n
            n += 1
            time.sleep(0.0005)

    env.from_source(endless).map(gate.check, name="check").sink(gate.out.append)
    with pytest.raises(JobFailedError, match="the limit is 1% of"):
        env.submit()


@pytest.mark.parametrize("limit", [-1, 1.5, "x", "101%", "-1%", True, "", "%", [1]])
def test_budgets_that_are_none(gate: Gate, limit: Any) -> None:
    with pytest.raises(Exception, match="max_dead_letters"):
        gate.env(max_dead_letters=limit)
