"""Random pipelines of operators that have a name: written as YAML and read back they are the same pipeline."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import event, given
from hypothesis import strategies as st
from pydantic import BaseModel

from sage.kernel.api import (
    Batching,
    CoMapFunction,
    Contract,
    DataStream,
    ErrorPolicy,
    FlatMapFunction,
    IOSpec,
    KeyedStream,
    LocalEnvironment,
    MapFunction,
    PipelineError,
    Resources,
    ServiceFunction,
)
from sage.kernel.declarative import load_pipeline_file
from sage.kernel.declarative.write import pipeline_to_yaml
from sage.libs.foundation import FieldFilter, FieldKey
from sage.libs.foundation.io import FileSource, TerminalSink

# -- operators that a file can name


def same(item: Any) -> Any:
    return item


async def awaited(item: Any) -> Any:
    return item


def larger(one: Any, two: Any) -> Any:
    return max(one, two)


def keep(item: Any) -> bool:
    return bool(item)


def outputs(item: Any) -> list[Any]:
    return [item]


def each(items: list[Any]) -> list[Any]:
    return items


def branch(item: Any) -> str:
    return "a" if item else "b"


def when(item: Any) -> float:
    return float(item)


def source() -> list[int]:
    return [1, 2]


class Aside(MapFunction[Any, Any]):
    class Config(BaseModel, extra="forbid"):
        factor: int = 2
        words: list[str] = []

    Config = Config  # type: ignore[misc]  # a nested class is the model

    def execute(self, item: Any) -> Any:
        self.ctx.side_output("odd/one", item)
        return item


class Free(FlatMapFunction[Any, Any]):
    def execute(self, item: Any) -> list[Any]:
        return [item]


class Both(CoMapFunction[Any, Any, Any]):
    def execute1(self, item: Any) -> Any:
        return item

    def execute2(self, item: Any) -> Any:
        return item


class Ask(ServiceFunction[Any, Any]):
    class Config(BaseModel):
        model: str = "small"

    Config = Config  # type: ignore[misc]  # a nested class is the model

    def execute(self, request: Any) -> Any:
        return request


# -- drawing

PARALLELISM = st.sampled_from([None, None, 1, 2, 3])
SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.text("a$ {}:'\n", max_size=4) | st.floats(-1, 1)
ITEMS = st.lists(SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text("ab$", max_size=2), SCALARS))


def fields_of(path: str = "a.b") -> Callable[[Any], Any]:
    return FieldKey({"field": path}).execute


@st.composite
def contracts(draw: st.DrawFn, base: Contract | None = None) -> Contract | None:
    if draw(st.integers(0, 2)):
        return None
    base = base or Contract()
    errors = ErrorPolicy(retries=draw(st.integers(0, 3)), jitter=draw(st.sampled_from([0.0, 0.5])))
    io = IOSpec(queue_capacity=draw(st.sampled_from([None, 5])), errors=errors)
    return replace(base, io=io, resources=Resources(concurrency=draw(st.sampled_from([None, 3]))))


class Builder:
    """Declares a random pipeline; every stream that is left over ends in a sink."""

    def __init__(self, data: st.DataObject) -> None:
        self.draw = data.draw
        settings: dict[str, Any] = {"fusion": self.draw(st.booleans())}
        self.env = LocalEnvironment("$random: {}", settings)
        self.number = 0
        self.streams: list[DataStream] = []
        self.futures: list[Any] = []

    def facts(self, *, parallelism: bool = True, contract: bool = True) -> dict[str, Any]:
        self.number += 1
        named = self.draw(st.booleans())
        facts: dict[str, Any] = {"name": f"op {self.number}.x"} if named else {}
        if parallelism:
            facts["parallelism"] = self.draw(PARALLELISM)
        if contract:
            facts["contract"] = self.draw(contracts())
        return facts

    def build(self) -> LocalEnvironment:
        draw = self.draw
        for _ in range(draw(st.integers(1, 2))):
            self.add_source()
        for stream in tuple(self.streams):
            if draw(st.booleans()):
                self.streams.append(stream.key_by(same, **self.facts()))
        for _ in range(draw(st.integers(1, 10))):
            # Mostly the newest stream goes on, so that long chains come about.
            self.step(draw(st.sampled_from([self.streams[-1], self.streams[-1], *self.streams])))
        self.add_services()
        taken = {name for each in self.env.graph.transformations for name in each.inputs}
        for stream in self.streams:
            if any(feed.operator not in taken or feed.branch is not None for feed in stream._feeds):
                self.end(stream)
        return self.env

    def add_source(self) -> None:
        match self.draw(st.sampled_from(["items", "function", "file"])):
            case "items":
                facts = self.facts()
                self.streams.append(self.env.from_collection(self.draw(ITEMS), **facts))
            case "function":
                self.streams.append(self.env.from_source(source, **self.facts(parallelism=False, contract=False)))
            case _:
                config = {"file_path": "${x} $y"}
                facts = self.facts(parallelism=False, contract=False)
                self.streams.append(self.env.from_source(FileSource, config, **facts))

    def step(self, stream: DataStream) -> None:
        draw = self.draw
        names = [*PLAIN, *(FOLDS * 3 if isinstance(stream, KeyedStream) else ())]
        name = draw(st.sampled_from(names))
        event(name)
        if name in FOLDS:
            self.fold(stream, name)
            return
        other = draw(st.sampled_from(self.streams))
        match name:
            case "map" | "flatmap" | "filter" | "key_by":
                self.call(stream, name)
            case "batched":
                batch = Batching(size=draw(st.integers(1, 3)), max_wait_s=draw(st.sampled_from([None, 0.0, 0.5])))
                self.streams.append(stream.map(each, batch=batch, **self.facts()))
            case "sided":
                sided = stream.map(Aside, draw(st.sampled_from([{}, {"factor": 3}, {"words": ["$", "a"]}])))
                self.streams += [sided, sided.side_output("odd/one")]
            case "split":
                self.split(stream)
            case "union":
                self.streams.append(stream.union(*draw(st.sampled_from([(), (other,)]))))
            case "routed":
                self.streams.append(draw(st.sampled_from([stream.broadcast, stream.rebalance]))())
            case "comap":
                self.comap(stream, other)
            case "join" if isinstance(stream, KeyedStream) and isinstance(other, KeyedStream):
                self.join(stream, other)
            case "interleave":
                facts = {**self.facts(parallelism=False), "ahead": draw(st.sampled_from([1, 1024]))}
                self.streams.append(stream.interleave(other, **facts))
            case "loop":
                self.loop(stream)
            case "shape":
                self.shape(stream)

    def call(self, stream: DataStream, kind: str) -> None:
        choices: dict[str, list[tuple[Any, Any]]] = {
            "map": [(same, None), (awaited, None), (str.upper, None), (Aside, {"factor": 4}), (len, None)],
            "flatmap": [(outputs, None), (Free, {"any": [1, "$x", None]}), (Free, None)],
            "filter": [(keep, None), (FieldFilter, {"field": "a", "one_of": [1, "b"]})],
            "key_by": [(same, None), (FieldKey, {"field": "a.0"})],
        }
        function, config = self.draw(st.sampled_from(choices[kind]))
        routed = any(feed.routing is not None for feed in stream._feeds)
        if kind == "key_by" and routed:
            return
        self.streams.append(getattr(stream, kind)(function, config, **self.facts()))

    def split(self, stream: DataStream) -> None:
        condition = FieldFilter({"field": "n", "above": 1.5}).execute
        if self.draw(st.booleans()):
            parts = stream.split({"a": keep, "b c/d": condition}, **self.facts())
        else:
            parts = stream.split(branch, into=["a", "b c/d"], **self.facts())
        self.streams += [parts["a"], *self.draw(st.sampled_from([[], [parts["rest"], parts["b c/d"]]]))]

    def comap(self, stream: DataStream, other: DataStream) -> None:
        if isinstance(stream, KeyedStream) is not isinstance(other, KeyedStream):
            stream, other = stream.union(), other.union()
        connected = stream.connect(other)
        pair: tuple[Any, ...] = self.draw(st.sampled_from([(same, str), (Both,), (awaited, awaited)]))
        self.streams.append(connected.comap(*pair, **self.facts()))

    def join(self, stream: KeyedStream, other: KeyedStream) -> None:
        function = self.draw(st.sampled_from([None, larger]))
        if self.draw(st.booleans()):
            self.streams.append(stream.join(other, function, kind=self.draw(KIND), **self.facts()))
            return
        key = fields_of()
        time = self.draw(st.sampled_from([when, (when, float), key, (key, when)]))
        self.streams.append(
            stream.join(other, function, within=(-1, 2.5), time=time, lateness_s=self.draw(LATE), **self.facts())
        )

    def loop(self, stream: DataStream) -> None:
        again = self.env.from_future(self.draw(st.sampled_from([None, f"again {self.number}"])))
        self.number += 1
        body = stream.union(again).map(same, **self.facts())
        back = body.filter(keep, **self.facts())
        bound = self.draw(st.sampled_from([{}, {"max_in_flight": 7}, {"max_rounds": 3}]))
        if self.draw(st.booleans()):
            parts = back.split({"x": keep})
            again.fill(parts["x"].union(back), **bound)
        else:
            again.fill(back, **bound)
        self.streams += [body, again.side_output("exhausted")] if "max_rounds" in bound else [body]

    def shape(self, stream: DataStream) -> None:
        draw = self.draw
        keyed = isinstance(stream, KeyedStream)
        match draw(st.sampled_from(["limit", "batch", "sample", "distinct", "ordered"])):
            case "limit":
                self.streams.append(stream.limit(draw(st.integers(0, 5)), **self.facts(parallelism=False)))
            case "batch":
                waits = draw(st.sampled_from([None, 0.5]))
                self.streams.append(stream.batch(draw(st.integers(1, 3)), waits, **self.facts(parallelism=keyed)))
            case "sample":
                how = draw(st.sampled_from([{"fraction": 0.25}, {"every": 3}, {"fraction": 1, "seed": 4}]))
                self.streams.append(stream.sample(**how, **self.facts()))
            case "distinct":
                key = draw(st.sampled_from([None, str, fields_of("x.1")]))
                max_keys = draw(st.sampled_from([None, 9]))
                self.streams.append(stream.distinct(key, max_keys=max_keys, **self.facts(parallelism=keyed)))
            case _:
                bound = draw(st.sampled_from([{}, {"max_ahead": 5}]))
                self.streams.append(stream.ordered(**bound, **self.facts(parallelism=False, contract=False)))

    def fold(self, stream: DataStream, name: str) -> None:
        assert isinstance(stream, KeyedStream)
        facts = {**self.facts(), "emit": self.draw(st.sampled_from(["each", "final"]))}
        match name:
            case "reduce":
                self.streams.append(stream.reduce(larger, **facts))
            case "aggregate":
                create = self.draw(st.sampled_from([0, 1.5, "", None, True, list, dict]))
                result = self.draw(st.sampled_from([None, str]))
                self.streams.append(stream.aggregate(create, larger, result, **facts))
            case "count":
                self.streams.append(stream.count(**facts))
            case _:
                field = self.draw(st.sampled_from([None, "eur", 1, when]))
                self.streams.append(getattr(stream, name)(field, **facts))

    def add_services(self) -> None:
        draw = self.draw
        if draw(st.integers(0, 3)):
            return
        self.env.register_service("plain", same, concurrency=draw(st.sampled_from([None, 3])))
        self.env.register_service("asked", Ask, draw(st.sampled_from([None, {"model": "$large"}])))
        answering = LocalEnvironment(draw(st.sampled_from(["answers", "other name"])), {"queue_capacity": 3})
        answering.register_service("inner", awaited)
        answering.from_requests().map(same, contract=Contract(services=("inner",))).respond(name="answer")
        self.env.register_service("answers", answering)
        self.streams.append(self.streams[0].map(same, contract=Contract(services=("plain", "answers"))))

    def end(self, stream: DataStream) -> None:
        match self.draw(st.sampled_from(["print", "sink", "ordered"])):
            case "print":
                stream.print(self.draw(st.sampled_from(["", "$> "])), **self.facts())
            case "sink":
                stream.sink(TerminalSink, {"prefix": "a: "}, **self.facts())
            case _:
                stream.sink(TerminalSink, ordered=True, **self.facts(parallelism=False))


PLAIN = ("map", "flatmap", "filter", "key_by", "key_by", "batched", "sided", "split", "union", "routed", "comap",
         "join", "join", "interleave", "loop", "shape", "shape")  # fmt: skip
FOLDS = ("reduce", "aggregate", "count", "sum", "max")
KIND = st.sampled_from(["inner", "left"])
LATE = st.sampled_from([0.0, 0.5])


def plan_of(env: LocalEnvironment) -> Any:
    """The plan; or, where a rule forbids it, which one (with the places left out)."""
    try:
        return env.compile()
    except PipelineError as error:
        return str(error).partition(" (operator ")[0]


@given(st.data())
def test_what_is_written_is_read_back_as_the_same_pipeline(data: st.DataObject) -> None:
    env = Builder(data).build()
    text = pipeline_to_yaml(env)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.yaml"
        path.write_text(text)
        again = load_pipeline_file(path, environ={})
    plan, second = plan_of(env), plan_of(again)
    if isinstance(plan, str):
        event("refused")
        assert plan == second
    else:
        assert plan.diff(second) == (), text
    assert again.config == env.config
    assert len(again.graph.transformations) == len(env.graph.transformations)
    for one, other in zip(env.graph.transformations, again.graph.transformations, strict=True):
        for fact in ("name", "kind", "inputs", "branches", "routings", "keyed_input", "parallelism", "contract"):
            assert getattr(one, fact) == getattr(other, fact), (one.name, fact, text)
        assert options_of(one) == options_of(other), (one.name, text)
        assert getattr(one.factory, "config", None) == getattr(other.factory, "config", None)
    assert list(again.graph.services) == list(env.graph.services)
    assert pipeline_to_yaml(again) == text


def options_of(operator: Any) -> dict[str, Any]:
    """What an operator has of its own, without functions and places."""
    return {key: value for key, value in operator.options.items() if key not in ("entry", "entries", "filled_at")}
