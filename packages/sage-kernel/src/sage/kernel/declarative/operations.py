"""Calls the DSL as a pipeline file says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sage.kernel.api import (
    Batching,
    DataStream,
    FutureStream,
    KeyedStream,
    LocalEnvironment,
    PipelineError,
    SplitStreams,
)
from sage.kernel.operators import Function

from .kinds import FOLDS
from .specification import OperatorSpec

__all__ = ["Made", "add_operator"]

Made = DataStream | SplitStreams[Any] | None
"""The stream behind an operator, or the streams of a split; None behind a sink."""


def add_operator(
    env: LocalEnvironment,
    streams: Sequence[DataStream],
    spec: OperatorSpec,
    target: Any,
    config: Mapping[str, Any],
    facts: dict[str, Any],
) -> Made:
    """Declare one operator.

    Args:
        env: the environment.
        streams: what goes into it: none, one, or several where its kind takes several.
        spec: what the file says.
        target: the class or function; or the arguments of what the library makes itself.
        config: of a class.
        facts: name, parallelism and contract.

    Raises:
        SageError: a rule of the DSL.
    """
    given = config if config or _is_class(target) else None
    if not streams:
        return _add_source(env, spec, target, given, facts)
    if spec.is_sink:
        _end(streams[0], spec, target, given, facts)
        return None
    if len(streams) > 1:
        return _add_of_several(streams, spec, target, given, facts)
    stream = streams[0]
    if spec.kind in (*FOLDS, "reduce", "aggregate"):
        return _add_fold(stream, spec, target, given, facts)
    match spec.kind:
        case "map":
            batch = None if spec.batch is None else Batching(**spec.batch)
            return stream.map(target, given, batch=batch, **facts)
        case "flatmap" | "filter" | "key_by":
            made: DataStream = getattr(stream, spec.kind)(target, given, **facts)
            return made
        case "split":
            return stream.split(target["by"], target.get("into"), **facts)
        case "limit":
            if facts.pop("parallelism") not in (None, 1):
                raise PipelineError("limit counts all items, so it has one replica: leave out parallelism")
        case "ordered":
            return stream.ordered(**target, name=facts["name"])
    shaped: DataStream = getattr(stream, spec.kind)(**target, **facts)
    return shaped


def _is_class(target: Any) -> bool:
    return isinstance(target, type) and issubclass(target, Function)


def _add_source(env: LocalEnvironment, spec: OperatorSpec, target: Any, config: Any, facts: dict[str, Any]) -> Made:
    match spec.kind:
        case "collection":
            return env.from_collection(tuple(spec.what), **facts)
        case "future":
            return env.from_future(facts["name"])
        case "requests":
            return env.from_requests(name=facts["name"])
    return env.from_source(target, config, **facts)


def _end(stream: DataStream, spec: OperatorSpec, target: Any, config: Any, facts: dict[str, Any]) -> None:
    match spec.kind:
        case "print":
            stream.print(spec.what or "", **facts)
        case "respond":
            stream.respond(name=facts["name"])
        case "fill":
            bounds = {name: bound for name, bound in target.items() if name != "future" and bound is not None}
            assert isinstance(target["future"], FutureStream)
            target["future"].fill(stream, **bounds)
        case _:
            stream.sink(target, config, ordered=spec.ordered, **facts)


def _add_of_several(
    streams: Sequence[DataStream], spec: OperatorSpec, target: Any, config: Any, facts: dict[str, Any]
) -> DataStream:
    first, *others = streams
    if spec.kind == "interleave":
        del facts["parallelism"]
        return first.interleave(*others, **target, **facts)
    (second,) = others
    if spec.kind == "comap":
        connected = first.connect(second)
        if isinstance(target, dict):
            return connected.comap(target["map1"], target["map2"], **facts)
        return connected.comap(target, config=config, **facts)
    if not isinstance(first, KeyedStream):
        raise PipelineError("join needs a key on both streams: put key_by before the first one")
    return first.join(second, **target, **facts)


def _add_fold(stream: DataStream, spec: OperatorSpec, target: Any, config: Any, facts: dict[str, Any]) -> DataStream:
    if not isinstance(stream, KeyedStream):
        raise PipelineError(f"{spec.kind} works on items with a key: put key_by before it")
    facts["emit"] = spec.emit or "each"
    if spec.kind == "count":
        return stream.count(**facts)
    if spec.kind in FOLDS:
        field = target["function"] if isinstance(target, dict) else spec.what
        made: DataStream = getattr(stream, spec.kind)(field, **facts)
        return made
    if spec.kind == "reduce":
        return stream.reduce(target, config, **facts)
    if isinstance(target, dict):
        return stream.aggregate(target["create"], target["add"], target.get("result"), **facts)
    return stream.aggregate(target, config=config, **facts)
