"""Services of an environment, and pipelines that are one: `register_service`, `from_requests`, `respond`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from sage.kernel.graph import (
    BaseTransformation,
    Contract,
    Execution,
    LogicalGraph,
    OperatorKind,
    PipelineError,
)
from sage.kernel.operators import FunctionFactory, Requests, RespondSink, ServiceFunction, ServiceSpec, validate_config
from sage.kernel.runtime import JobHandle

from .base_stream import BaseStream
from .declare import user_location
from .environment import Environment

__all__ = ["StreamAnswers", "service_spec"]

_CONCURRENCY = 64
_ONE_TO_ONE = frozenset(
    {
        OperatorKind.SOURCE,
        OperatorKind.MAP,
        OperatorKind.FILTER,
        OperatorKind.FLATMAP,
        OperatorKind.KEY_BY,
        OperatorKind.SPLIT,
        OperatorKind.SINK,
    }
)


_FOLD = (
    "a fold knows no single request: it would mix those of all callers, and what it emits at the end of the stream "
    "comes when nobody waits any more. Fold what one request is made of inside a map, and keep what requests have in "
    "common in a ServiceFunction"
)
_WHY: Final[Mapping[str, str]] = {
    "reduce": _FOLD,
    "aggregate": _FOLD,
    "join": "an answer would wait for a second item, which may never come: have a map call a service that looks it up",
    "comap": "its two streams have to come of one request: put a map on each, and a union behind",
    "interleave": "a request would wait for its turn until another one comes: use union",
    "batch": "a list of requests has no answer for each: use map(function, batch=...), which gives one for each item",
    "ordered": "an answer goes to who has asked, so it needs no place: leave it out",
    "limit": "it would end the service, and who calls it then would get an error: count where it is called",
    "future": "how often a request goes round would keep its caller waiting without bound: go round inside a map, or "
    "put the loop where the service is called",
}
"""Why an operator cannot stand in the pipeline of a service, and what to do instead."""


class StreamAnswers(BaseStream):
    """`respond` of a stream."""

    def respond(self, *, name: str | None = None) -> Environment:
        """Ends the pipeline of a service: each item is the answer to the request that it was made of; returns the
        environment. The pipeline begins with `env.from_requests()`.

        Example:
            >>> from sage.kernel.api import LocalEnvironment
            >>> service = LocalEnvironment("shout")
            >>> service.from_requests().map(str.upper).respond().name
            'shout'
        """
        self._add(OperatorKind.SINK, RespondSink(), default_name="respond", name=name, options={"responds": True})
        return self._env


def service_spec(
    name: str, service: Any, config: Mapping[str, Any] | None, concurrency: int | None, known: Mapping[str, Any]
) -> ServiceSpec:
    """What was registered, checked.

    Raises:
        PipelineError: it cannot be a service.
        ConfigError: a config key is missing, unknown or of the wrong type.
    """
    where = f"(service {name!r}, {user_location()})"
    if not isinstance(name, str) or not name.strip():
        raise PipelineError(f"a service needs a name that is not empty, got {name!r} {where}")
    if name in known:
        raise PipelineError(
            f"service names must be unique, got {name!r} twice {where}; the first is {known[name].where}"
        )
    if concurrency is not None and (
        isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1
    ):
        raise PipelineError(f"concurrency must be a whole number >= 1, got {concurrency!r} {where}")
    is_class = isinstance(service, type) and issubclass(service, ServiceFunction)
    if config is not None and not is_class:
        raise PipelineError(f"config goes with a service class; {service!r} is not one {where}")
    facts: dict[str, Any] = {"name": name, "target": service, "config": None, "pipeline": None, "where": where}
    if is_class:
        abstract = sorted(getattr(service, "__abstractmethods__", ()))
        if abstract:
            raise PipelineError(f"{service.__name__} does not define {', '.join(abstract)}() {where}")
        facts["config"] = validate_config(f"{service.__name__} {where}", service.Config, config)
    elif isinstance(service, Environment):
        _check_pipeline(service, where)
        facts |= {"target": None, "pipeline": partial(_start, service)}
    elif not isinstance(service, ServiceFunction) and (not callable(service) or isinstance(service, type)):
        raise PipelineError(
            f"a service is a ServiceFunction class or instance, a function, or an environment whose pipeline begins "
            f"with from_requests(), got {service!r} {where}"
        )
    function = service if facts["pipeline"] is None else None
    for method in ("setup", "teardown"):
        if inspect.iscoroutinefunction(getattr(function, method, None)):
            raise PipelineError(f"{method}() must be a plain method, an `async` one would never be awaited {where}")
    spec = ServiceSpec(**facts, concurrency=1)
    many = spec.is_async or spec.pipeline is not None
    return replace(spec, concurrency=concurrency or (_CONCURRENCY if many else 1))


def _is_requests(operator: BaseTransformation) -> bool:
    return isinstance(operator.factory, FunctionFactory) and isinstance(operator.factory.target, Requests)


def _check_pipeline(env: Environment, where: str) -> None:
    """Refuse a pipeline that cannot give each request one answer."""
    operators = env.graph.transformations
    begins = [operator for operator in operators if _is_requests(operator)]
    ends = [operator for operator in operators if operator.options.get("responds")]
    if len(begins) != 1 or len(ends) != 1:
        raise PipelineError(
            f"the pipeline of a service has one from_requests() and one respond(), {env.name!r} has {len(begins)} and "
            f"{len(ends)} {where}"
        )
    path = _path(env.graph)
    for operator in operators:
        what = str(operator.options.get("shape") or operator.kind)
        if operator.kind not in _ONE_TO_ONE or what == "limit":
            raise PipelineError(
                f"each request has one answer, so {what} cannot stand in the pipeline of a service: {_WHY[what]} "
                f"{operator.where}"
            )
    for operator in operators:
        if operator.kind is OperatorKind.SOURCE and operator is not begins[0]:
            raise PipelineError(f"the pipeline of a service has no source but from_requests() {operator.where}")
        if operator.contract.execution is Execution.PROCESS:
            raise PipelineError(
                f"operators of a service run on threads and event loops, execution PROCESS is not possible "
                f"{operator.where}"
            )
        if operator.kind is not OperatorKind.SPLIT:
            if env.graph.branches_of(operator.name):
                raise PipelineError(f"there are no side outputs in the pipeline of a service {operator.where}")
            onward = [taker.name for taker, _ in env.graph.consumers(operator.name) if taker.name in path]
            if operator.name in path and len(onward) > 1:
                raise PipelineError(
                    f"each request has one answer, but two streams of {operator.name!r} lead to respond(): "
                    f"{', '.join(onward)} {operator.where}"
                )
    if begins[0].name not in path:
        raise PipelineError(f"respond() does not answer what from_requests() gives {ends[0].where}")


def _path(graph: LogicalGraph) -> frozenset[str]:
    """The operators that lead to the answer."""
    path: set[str] = set()
    for operator in reversed(graph.transformations):
        if operator.options.get("responds") or operator.name in path:
            path.add(operator.name)
            path.update(operator.inputs)
    return frozenset(path)


def _start(env: Environment, requests: Requests) -> JobHandle:
    """Run the pipeline of a service on these requests."""
    path, graph = _path(env.graph), LogicalGraph(env.name)
    graph.services.update(env.graph.services)
    for operator in env.graph.transformations:
        role = "path" if operator.name in path else "side"
        changed = replace(operator, options={**operator.options, "requests": role}, contract=_in_process(operator))
        if _is_requests(operator):
            changed = replace(
                changed, factory=FunctionFactory.build(OperatorKind.SOURCE, requests, None, operator.where)
            )
        elif operator.options.get("responds"):
            changed = replace(
                changed, factory=FunctionFactory.build(OperatorKind.SINK, RespondSink(), None, operator.where)
            )
        graph.add(changed)
    return env.run_graph(graph, answers=path)


def _in_process(operator: BaseTransformation) -> Contract:
    """The contract for an operator whose items stay in this process."""
    return replace(operator.contract, cpu_bound=False) if operator.contract.cpu_bound else operator.contract
