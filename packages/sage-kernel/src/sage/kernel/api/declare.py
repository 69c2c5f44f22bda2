"""Adds one operator to a logical graph: its name, its location in the user's file, its checked factory."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any

from sage.kernel.graph import (
    BaseTransformation,
    Batching,
    Contract,
    LogicalGraph,
    OperatorKind,
    PipelineError,
    Routing,
    SourceLocation,
)
from sage.kernel.operators import CallableSource, Function, FunctionFactory, IterableSource, SourceFunction

__all__ = ["declare", "declared_at", "user_location"]

_OWN = str(Path(__file__).parent)

declared_at: ContextVar[SourceLocation | None] = ContextVar("sage_declared_at", default=None)
"""Where operators are declared that stand in no Python file; set by whoever declares them for somebody else."""


def user_location() -> SourceLocation | None:
    """File and line of the innermost caller outside of this package, or what `declared_at` says."""
    given = declared_at.get()
    if given is not None:
        return given
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_OWN):
        frame = frame.f_back  # type: ignore[assignment]  # None at the outermost frame, tested above
    return None if frame is None else SourceLocation(frame.f_code.co_filename, frame.f_lineno)


def declare(
    graph: LogicalGraph,
    kind: OperatorKind,
    target: Any,
    config: Mapping[str, Any] | None = None,
    *,
    inputs: tuple[str, ...] = (),
    keyed_input: bool = False,
    parallelism: int | None = None,
    contract: Contract | None = None,
    name: str | None = None,
    default_name: str | None = None,
    options: Mapping[str, Any] | None = None,
    branches: tuple[str | None, ...] = (),
    routings: tuple[Routing | None, ...] = (),
    batching: Batching | None = None,
) -> BaseTransformation:
    """Add an operator; everything that can be wrong about it is found here, on the line that declares it.

    Raises:
        PipelineError: name, parallelism, contract or the user's code cannot be used.
        ConfigError: a config key is missing, unknown or of the wrong type.
    """
    location = user_location()
    if name is not None and not (isinstance(name, str) and re.fullmatch(r"[\w][\w .:-]*", name)):
        raise PipelineError(
            f"an operator name is made of letters, digits, '_', '-', '.', ':' and blanks, got {name!r} ({location})"
        )
    final = name or _free_name(graph, default_name or _default_name(kind, target))
    where = f"(operator {final!r}, {location})"
    if parallelism is not None and (
        isinstance(parallelism, bool) or not isinstance(parallelism, int) or parallelism < 1
    ):
        raise PipelineError(f"parallelism must be a whole number >= 1, got {parallelism!r} {where}")
    if contract is not None and not isinstance(contract, Contract):
        raise PipelineError(f"contract must be a Contract, got {contract!r} {where}")
    factory = FunctionFactory.build(kind, target, config, where)
    _refuse_second_use(graph, target, where)
    promised = contract or factory.contract
    if batching is not None:
        promised = replace(promised, io=replace(promised.io, batching=batching))
    transformation = BaseTransformation(
        name=final,
        kind=kind,
        factory=factory,
        contract=promised,
        inputs=inputs,
        parallelism=parallelism,
        keyed_input=keyed_input,
        location=location,
        options={
            "entry": factory.entry,
            "entries": factory.entries,
            "is_method": factory.is_method,
            **_source_options(kind, factory),
            **(options or {}),
        },
        branches=branches,
        routings=routings,
    )
    graph.add(transformation)
    return transformation


def _refuse_second_use(graph: LogicalGraph, target: Any, where: str) -> None:
    if not isinstance(target, Function):
        return
    for other in graph.transformations:
        if isinstance(other.factory, FunctionFactory) and other.factory.target is target:
            raise PipelineError(
                f"one {type(target).__name__} instance cannot be two operators, they would share its state: pass "
                f"the class, or a second instance {where}; the first use is {other.where}"
            )


def _source_options(kind: OperatorKind, factory: FunctionFactory) -> dict[str, Any]:
    if kind is not OperatorKind.SOURCE:
        return {}
    target = factory.target
    if isinstance(target, IterableSource):
        # What has its items already cannot make anybody wait; an iterator may.
        ready = isinstance(target.iterable, (list, tuple, range, set, frozenset, dict, str))
        return {"blocking": not ready, "timed": False, "records": False}
    source: type[SourceFunction[Any]] = target if isinstance(target, type) else type(target)
    return {
        "blocking": source.blocking,
        "timed": source.timed,
        "records": True,
    }


def _default_name(kind: OperatorKind, target: Any) -> str:
    if isinstance(target, IterableSource):
        return "collection"
    if isinstance(target, CallableSource):
        target = target.make
    name = getattr(target, "__name__", None)
    if name is None and isinstance(target, Function):
        name = type(target).__name__
    if name is None or name == "<lambda>":
        return kind.value
    return re.sub(r"[^\w]", "_", name)


def _free_name(graph: LogicalGraph, name: str) -> str:
    if name not in graph:
        return name
    number = 2
    while f"{name}-{number}" in graph:
        number += 1
    return f"{name}-{number}"
