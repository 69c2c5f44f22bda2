"""A Python pipeline written as YAML is the same pipeline when it is read back."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.common.config import Config
from sage.kernel.api import (
    Backoff,
    Contract,
    ErrorPolicy,
    IOSpec,
    LocalEnvironment,
    MapFunction,
    OnError,
    Resources,
    load_pipeline,
)
from sage.kernel.declarative import PipelineFileError, load_pipeline_file
from sage.kernel.declarative.substitution import Substitution, escape
from sage.kernel.declarative.write import pipeline_to_yaml
from sage.kernel.declarative.yaml_text import to_yaml
from sage.libs.foundation import FieldFilter, FieldKey
from sage.libs.foundation.io import FileSource, TerminalSink

_TRICKY = [
    *(
        "1e3",
        "0o17",
        "0x1f",
        "no",
        "Yes",
        "~",
        ".nan",
        "1:30",
        "a: b",
        "a #b",
        "- x",
        "",
        " ",
        "<<",
        "=",
        "null",
        "1_000",
    ),
    *(
        "2020-01-01",
        "!tag",
        "&a",
        "*a",
        "%x",
        "@",
        "`",
        "a:b",
        "x\n",
        "\tx",
        "...",
        "---",
        1e-7,
        1e16,
        5e-324,
        -0.0,
        0.1,
    ),
]
_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=30)
_SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _TEXT | st.sampled_from(_TRICKY)
)  # fmt: skip
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc-1 ", min_size=1, max_size=4), inner),
)


@given(_VALUES, st.booleans())
def test_our_loader_reads_back_what_is_written(value: Any, flow: bool) -> None:
    text = to_yaml({"value": value}, flow=flow)
    printable = _without_unprintable(value)
    if printable != value:
        return  # YAML has no way to write some control characters that a reader may accept
    assert Config.from_text(text, "x.yaml").to_dict() == {"value": value}


def _without_unprintable(value: Any) -> Any:
    if isinstance(value, str):
        return "".join(c for c in value if c.isprintable() or c in "\n\t")
    if isinstance(value, list):
        return [_without_unprintable(each) for each in value]
    if isinstance(value, dict):
        return {key: _without_unprintable(each) for key, each in value.items()}
    return value


@given(st.text())
def test_what_is_escaped_is_not_substituted(text: str) -> None:
    assert Substitution({"a": 1}, {"A": "x"})(escape(text)) == text


def test_numbers_that_are_none() -> None:
    values = Config.from_text(to_yaml({"a": [math.inf, -math.inf, math.nan]}), "x.yaml").to_dict()["a"]
    assert values[:2] == [math.inf, -math.inf]
    assert math.isnan(values[2])


_PIPELINE = """
from __future__ import annotations
import operator
from sage.kernel.api import *
from sage.libs.foundation import FieldKey
from sage.libs.foundation.io import FileSource, TerminalSink
from sage.middleware.operators.rag import HybridRetriever, QAPromptor

def words(line: str) -> list[str]:
    return line.split()

def lines():
    yield "$HOME ${x}"

def add(total, item):
    return total + 1

class Twice(FlatMapFunction[str, str]):
    def execute(self, item):
        return [item] * self.config["times"]

def build(replicas: int = 2):
    env = LocalEnvironment("all $x", {"queue_capacity": 7, "max_dead_letters": "5%"})
    patient = Contract(io=IOSpec(errors=ErrorPolicy(retries=3, backoff=Backoff.FIXED, on_error=OnError.FAIL)))
    first = env.from_source(FileSource, {"file_path": "x.txt"}, name="lines")
    split = first.flatmap(words, parallelism=replicas, contract=patient)
    given = env.from_collection(["a", "b: c", "${d}"])
    both = split.union(first, env.from_source(lines), given).map(str.upper, name="up")
    keyed = both.key_by(str.lower, parallelism=replicas)
    keyed.count(emit="final").sink(TerminalSink, {"prefix": "$5 "}, name="t")
    keyed.aggregate(0, add, parallelism=3).print()
    keyed.aggregate(list, operator.concat, name="gathered").print()
    keyed.reduce(max, name="largest", contract=Contract(resources=Resources(cpu=0.5))).sum(1).print()
    both.map(HybridRetriever, {"documents": "docs", "embedding": {"model": "minilm"}}).map(QAPromptor).print(">")
    both.distinct(str.lower, max_keys=9).sample(0.5, seed=3).sample(every=2).limit(7).batch(3, 0.5).print()
    both.distinct().batch(2).map(len).print()
    both.flatmap(Twice, {"times": 2}).key_by(FieldKey, {"field": "a.b"}).max("eur").print()
    return env
"""


@pytest.mark.parametrize("settings", [{}, {"replicas": 3, "t.format": "json", "queue_capacity": 9}])
def test_round_trip(tmp_path: Path, settings: dict[str, Any]) -> None:
    path = tmp_path / "everything.py"
    path.write_text(_PIPELINE)
    env = load_pipeline(path, settings)
    text = pipeline_to_yaml(env)
    written = tmp_path / "everything.yaml"
    written.write_text(text)
    again = load_pipeline_file(written, environ={})
    assert env.compile().diff(again.compile()) == ()
    assert again.config == env.config
    for one, other in zip(env.graph.transformations, again.graph.transformations, strict=True):
        assert (one.name, one.kind, one.inputs, one.contract) == (other.name, other.kind, other.inputs, other.contract)
        assert getattr(one.factory, "config", None) == getattr(other.factory, "config", None)
    assert pipeline_to_yaml(again) == text


class Step(MapFunction[int, int]):
    def execute(self, item: int) -> int:
        return item


def _local() -> Callable[[int], int]:
    def inner(n: int) -> int:
        return n

    return inner


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda stream: stream.map(lambda n: n, name="step"), "it is a lambda, which has no name"),
        (lambda stream: stream.map(_local(), name="step"), "_local.<locals>.inner is defined inside a function"),
        (lambda stream: stream.map(Step(), name="step"), "it is an instance of Step: pass the class with its config"),
        (lambda stream: stream.map(functools.partial(pow, 2), name="step"), "it is a functools.partial"),
        (lambda stream: stream.map(Step, {"a": object()}, name="step"), "config key 'a' has a object in it"),
        (lambda stream: stream.map(Step, {"a": (1, 2)}, name="step"), "config key 'a' has a tuple in it"),
        (lambda stream: stream.distinct(lambda n: n, name="step"), "it is a lambda"),
        (lambda stream: stream.key_by(abs).sum(lambda n: n, name="step"), "it is a lambda"),
        (lambda stream: stream.map("a".join, name="step"), "it is a method of a str instance: write a function"),
        (lambda stream: stream.map(Step().execute, name="step"), "it is a method of a Step instance"),
        (lambda stream: stream.key_by(abs).aggregate((), max, name="step"), "its first accumulator has a tuple in it"),
        (lambda stream: stream.split({"a": lambda n: n}, name="step")["a"], "it is a lambda"),
        (lambda stream: stream.connect(stream).comap(abs, lambda n: n, name="step"), "it is a lambda"),
    ],
)  # fmt: skip
def test_what_has_no_name_is_named_with_its_line(declare: Callable[[Any], Any], message: str) -> None:
    env = LocalEnvironment("unnamed")
    declare(env.from_collection([1], name="in")).print()
    with pytest.raises(PipelineFileError) as raised:
        pipeline_to_yaml(env)
    (finding,) = raised.value.findings
    assert finding.message.startswith(f"operator 'step' cannot be written as YAML: {message}")
    file, _, line = finding.location.rpartition(":")
    assert Path(file).name == "test_writing.py"
    assert int(line) > 100


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (iter([1]), "its items come from a list_iterator"),
        (range(2000), "its 2,000 items are more than the 1,000"),
        ([object()], "item 0 has a object in it"),
        ([(1, 2)], "item 0 has a tuple in it"),
    ],
)
def test_items_that_cannot_be_written(items: Any, message: str) -> None:
    env = LocalEnvironment("items")
    env.from_collection(items).print()
    with pytest.raises(PipelineFileError, match=message):
        pipeline_to_yaml(env)


def test_all_that_has_no_name_is_told_at_once() -> None:
    env = LocalEnvironment("many")
    stream = env.from_collection([1]).map(lambda n: n).filter(lambda n: n).map(abs)
    stream.sink(lambda n: None)
    with pytest.raises(PipelineFileError) as raised:
        pipeline_to_yaml(env)
    assert len(raised.value.findings) == 3


def test_registered_names_are_used() -> None:
    env = LocalEnvironment("names")
    stream = env.from_source(FileSource, {"file_path": "a"}).filter(FieldFilter, {"field": "x", "exists": True})
    stream.key_by(FieldKey, {"field": "x"}).count().sink(TerminalSink)
    text = pipeline_to_yaml(env)
    for line in ("- source: file_source", "- filter: field_filter", "- key_by: field_key", "- count: null",
                 "- sink: terminal_sink"):  # fmt: skip
        assert line in text.splitlines()


def test_only_what_a_contract_changes_is_written() -> None:
    env = LocalEnvironment("contracts")
    errors = ErrorPolicy(retries=2, backoff=Backoff.FIXED, on_error=OnError.FAIL)
    contract = Contract(io=IOSpec(errors=errors), resources=Resources(cpu=1.0))
    env.from_collection([1]).map(abs, contract=contract).print()
    entry = Config.from_text(pipeline_to_yaml(env), "x.yaml").to_dict()["operators"][1]
    assert entry["contract"] == {
        "resources": {"cpu": 1.0},
        "io": {"errors": {"on_error": "fail", "retries": 2, "backoff": "fixed"}},
    }
