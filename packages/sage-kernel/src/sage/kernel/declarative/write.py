"""A pipeline as a YAML file that declares the same one.

Operators must have a name that means the same to who reads the file: a registered one, or an import path. A lambda,
a function inside a function or an instance has none.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from sage.kernel.api import LocalEnvironment, PipelineError
from sage.kernel.api.feedback import MAX_IN_FLIGHT
from sage.kernel.graph import BaseTransformation, Emit, LogicalGraph, OperatorKind
from sage.kernel.operators import (
    AggregateSpec,
    CallableSource,
    CoMapSpec,
    DistinctSpec,
    Function,
    FunctionFactory,
    FutureSpec,
    InterleaveSpec,
    IntervalJoinSpec,
    IterableSource,
    JoinSpec,
    LimitSpec,
    OperatorSpec,
    OrderedSpec,
    Requests,
    RespondSink,
    SampleSpec,
    ServiceSpec,
    SplitSpec,
)
from sage.kernel.operators.batching import BatchSpec
from sage.kernel.operators.folds import same

from .findings import Finding, PipelineFileError
from .kinds import ARGUMENTS, SHORT_FORMS, WITHOUT_CONTRACT, WITHOUT_PARALLELISM
from .registry import OperatorRegistry
from .substitution import escape
from .write_inputs import InputWriter
from .yaml_text import to_yaml

__all__ = ["pipeline_to_yaml"]

_FILE_MODULE = "sage_pipeline_"
_ITEMS_MAX = 1000
_PLAIN = (str, int, float, bool, type(None))


def pipeline_to_yaml(environment: LocalEnvironment, registry: OperatorRegistry | None = None) -> str:
    """The YAML file of a pipeline.

    What is imported from the pipeline's own Python file is named by that file, so the YAML file belongs beside it.

    Raises:
        PipelineFileError: operators that cannot be named, each with its line.

    Example:
        >>> env = LocalEnvironment("lengths")
        >>> _ = env.from_collection(["a", "bb"]).map(len).print("> ")
        >>> print(pipeline_to_yaml(env, OperatorRegistry([])), end="")
        pipeline: lengths
        operators:
        - collection:
          - a
          - bb
          name: collection
        - map: builtins:len
          name: len
        - print: "> "
          name: print
    """
    known = registry or OperatorRegistry()
    findings: list[Finding] = []
    whole = {"pipeline": environment.name, **_body(environment, known, findings)}
    if findings:
        raise PipelineFileError(findings)
    return to_yaml(_escaped(whole))


def _body(environment: LocalEnvironment, registry: OperatorRegistry, findings: list[Finding]) -> dict[str, Any]:
    """Settings, services and operators of a pipeline."""
    body: dict[str, Any] = {}
    settings = environment.config.model_dump(mode="json", exclude_unset=True)
    if settings:
        body["environment"] = settings
    services = {}
    for service in environment.graph.services.values():
        try:
            services[service.name] = _service(service, registry, findings)
        except PipelineError as error:
            place = service.where.rpartition(", ")[2].rstrip(")")
            findings.append(Finding(place, f"service {service.name!r} cannot be written as YAML: {error}"))
    if services:
        body["services"] = services
    body["operators"] = _entries(environment.graph, registry, findings)
    return body


def _service(service: ServiceSpec, registry: OperatorRegistry, findings: list[Finding]) -> Any:
    concurrency: dict[str, Any] = {"concurrency": service.concurrency}
    if isinstance(service.pipeline, functools.partial):
        environment = service.pipeline.args[0]
        name = {} if environment.name == service.name else {"pipeline": environment.name}
        return {**name, **concurrency, **_body(environment, registry, findings)}
    config = _plain_config(service.config)
    return {"service": _reference(service.target, registry), **({"config": config} if config else {}), **concurrency}


def _entries(graph: LogicalGraph, registry: OperatorRegistry, findings: list[Finding]) -> list[dict[str, Any]]:
    """The list of operators."""
    inputs = InputWriter(graph)
    entries: list[dict[str, Any]] = []
    for operator in graph.transformations:
        if inputs.is_hidden(operator):
            continue
        try:
            entries.append(_entry(operator, inputs, registry))
        except PipelineError as error:
            place = str(operator.location) if operator.location is not None else f"operator {operator.name!r}"
            findings.append(Finding(place, f"operator {operator.name!r} cannot be written as YAML: {error}"))
        inputs.before = operator.name
        for future in inputs.filled_behind(operator):
            entries.append(_fill(future, inputs))
            inputs.before = None
    return entries


def _fill(future: BaseTransformation, inputs: InputWriter) -> dict[str, Any]:
    bounds: dict[str, Any] = {}
    if future.options["max_in_flight"] != MAX_IN_FLIGHT:
        bounds["max_in_flight"] = future.options["max_in_flight"]
    if future.options["max_rounds"] is not None:
        bounds["max_rounds"] = future.options["max_rounds"]
    what: Any = {"future": future.name, **bounds} if bounds else future.name
    return {"fill": what, **inputs.of_future(future)}


def _entry(operator: BaseTransformation, inputs: InputWriter, registry: OperatorRegistry) -> dict[str, Any]:
    factory = operator.factory
    if not isinstance(factory, FunctionFactory):
        raise PipelineError("it was not made by the DSL")
    kind, what = _what(operator, factory, registry)
    entry: dict[str, Any] = {kind: what, "name": operator.name, **inputs.of(operator)}
    if operator.options.get("in_order"):
        entry["ordered"] = True
    config = {} if kind in ("print", *ARGUMENTS) else _plain_config(factory.config)
    if config:
        entry["config"] = config
    if operator.options.get("emit") is Emit.FINAL:
        entry["emit"] = "final"
    if operator.parallelism is not None and kind not in (*WITHOUT_PARALLELISM, "limit"):
        entry["parallelism"] = operator.parallelism
    contract = operator.contract
    batching = contract.io.batching
    if batching is not None and operator.kind is OperatorKind.MAP:
        entry["batch"] = {"size": batching.size, "max_wait_s": batching.max_wait_s}
        contract = replace(contract, io=replace(contract.io, batching=factory.contract.io.batching))
    changes = _changes(contract, factory.contract)
    if changes and kind not in WITHOUT_CONTRACT:
        entry["contract"] = changes
    return entry


def _what(operator: BaseTransformation, factory: FunctionFactory, registry: OperatorRegistry) -> tuple[str, Any]:
    """The key of its kind and the value of that key."""
    target, kind = factory.target, operator.kind.value
    if isinstance(target, IterableSource):
        return "collection", _items(target.iterable)
    if isinstance(target, CallableSource):
        return kind, _reference(target.make, registry)
    if isinstance(target, Requests):
        return "requests", None
    if isinstance(target, RespondSink):
        return "respond", None
    if isinstance(target, AggregateSpec):
        if target.ready_made is not None:
            return _ready_made(*target.ready_made, registry)
        parts = {"add": target.add, "result": target.result}
        named = {name: _reference(part, registry) for name, part in parts.items() if part is not None}
        return kind, {"create": _first(target.create, registry), **named}
    if isinstance(target, OperatorSpec):
        return _made_by_library(target, operator, registry)
    if operator.kind is OperatorKind.SINK and isinstance(factory.config, dict) and _is_print(target):
        return "print", factory.config["prefix"]
    return kind, _reference(target, registry)


def _made_by_library(target: OperatorSpec, operator: BaseTransformation, registry: OperatorRegistry) -> tuple[str, Any]:
    """An operator that the library itself makes, out of functions of the user at most."""
    arguments: dict[str, Any]
    match target:
        case LimitSpec(items=items):
            return "limit", items
        case BatchSpec(size=size, max_wait_s=max_wait_s):
            return "batch", {"size": size, "max_wait_s": max_wait_s}
        case SampleSpec(fraction=fraction, every=every, seed=seed):
            arguments = {"fraction": fraction, "every": every, "seed": seed}
        case DistinctSpec(key=key, max_keys=max_keys):
            arguments = {"key": None if key is None else _function(key, registry), "max_keys": max_keys}
        case OrderedSpec():
            arguments = {"max_ahead": operator.options["max_ahead"]}
        case InterleaveSpec(ahead=ahead):
            arguments = {"ahead": ahead}
        case CoMapSpec(first=first, second=second):
            arguments = {"map1": _reference(first, registry), "map2": _reference(second, registry)}
        case JoinSpec() | IntervalJoinSpec():
            arguments = _join(target, registry)
        case SplitSpec():
            arguments = _split(target, registry)
        case FutureSpec():
            arguments = {}
        case _:
            raise PipelineError(f"YAML has no key for {operator.kind}")
    kind = operator.options.get("shape", operator.kind.value)
    return kind, {name: value for name, value in arguments.items() if value is not None} or None


def _join(target: JoinSpec | IntervalJoinSpec, registry: OperatorRegistry) -> dict[str, Any]:
    function = None if target.function is None else _reference(target.function, registry)
    if isinstance(target, JoinSpec):
        return {"function": function, "kind": "left" if target.keeps_left else None}
    left, right = (_function(time, registry) for time in target.times)
    return {
        "function": function,
        "within": [target.lower_s, target.upper_s],
        "time": left if target.times[0] is target.times[1] else [left, right],
        "lateness_s": target.lateness_s,
    }


def _split(target: SplitSpec, registry: OperatorRegistry) -> dict[str, Any]:
    if target.chooser is not None:
        return {"by": _reference(target.chooser, registry), "into": list(target.names)}
    conditions = zip(target.names, target.predicates, strict=True)
    return {"by": {name: _function(predicate, registry) for name, predicate in conditions}}


def _function(target: Any, registry: OperatorRegistry) -> Any:
    """A function by its name; or the config of `field_key` or `field_filter`, if it is the method of one."""
    owner = getattr(target, "__self__", None)
    if isinstance(owner, Function) and registry.name_of(type(owner)) in SHORT_FORMS.values():
        return _plain_config(owner.config)
    return _reference(target, registry)


def _ready_made(fold: str, field: Any, registry: OperatorRegistry) -> tuple[str, Any]:
    return fold, {"function": _reference(field, registry)} if callable(field) else field


def _first(create: Any, registry: OperatorRegistry) -> Any:
    """What makes an accumulator: a number, or the import path of a function."""
    if isinstance(create, functools.partial) and create.func is same:
        (value,) = create.args
        if type(value) in (int, float):
            return value
        return {"value": _plain(value, "its first accumulator")}
    return _reference(create, registry)


def _is_print(target: Any) -> bool:
    # The sink behind `.print()` is private to the DSL: it is known by its name, which this test pins down.
    return getattr(target, "__qualname__", "") == "_PrintSink"


def _items(items: Any) -> list[Any]:
    if not isinstance(items, (list, tuple, range)):
        raise PipelineError(f"its items come from a {type(items).__name__}, which cannot be written down")
    if len(items) > _ITEMS_MAX:
        raise PipelineError(f"its {len(items):,} items are more than the {_ITEMS_MAX:,} that are written into a file")
    return [_plain(item, f"item {number}") for number, item in enumerate(items)]


def _reference(target: Any, registry: OperatorRegistry) -> str:
    """The registered name or the import path of a class or function."""
    registered = registry.name_of(target)
    if registered is not None:
        return registered
    if isinstance(target, Function):
        raise PipelineError(f"it is an instance of {type(target).__name__}: pass the class with its config")
    if isinstance(target, functools.partial):
        raise PipelineError("it is a functools.partial: write a function, or a class with a config")
    if not inspect.isroutine(target) and not isinstance(target, type):
        raise PipelineError(f"it is an instance of {type(target).__name__}, which has no name: write a function")
    bound_to = getattr(target, "__self__", None)
    if bound_to is not None and not isinstance(bound_to, (type, ModuleType)):
        raise PipelineError(f"it is a method of a {type(bound_to).__name__} instance: write a function")
    module, name = getattr(target, "__module__", None), target.__qualname__
    owner = getattr(target, "__objclass__", None)  # of a method of a built-in type, such as str.upper
    module = module or (owner.__module__ if owner is not None else None)
    if "<lambda>" in name:
        raise PipelineError("it is a lambda, which has no name: write a function with def")
    if "<locals>" in name:
        raise PipelineError(f"{name} is defined inside a function: move it to the level of its module")
    if module is None or module == "__main__" or module not in sys.modules:
        raise PipelineError(f"{name} has no module that another program could import")
    found: Any = sys.modules[module]
    for part in name.split("."):
        found = getattr(found, part, None)
    # A class method is a new object each time that it is looked up.
    if found is not target and not (inspect.ismethod(found) and found == target):
        raise PipelineError(f"{module}:{name} is another object by now: its name was used again")
    return f"{_public_module(module)}:{name}"


def _public_module(module: str) -> str:
    """The module under the name that an import statement beside the pipeline file uses."""
    if not module.startswith(_FILE_MODULE):
        return module
    stem = Path(sys.modules[module].__file__ or "").stem
    if not stem.isidentifier():
        raise PipelineError(f"the file {stem}.py cannot be imported under its name: rename it, or move the operator")
    return stem


def _plain_config(config: Any) -> dict[str, Any]:
    if not config and not isinstance(config, BaseModel):
        return {}
    if not isinstance(config, BaseModel):
        return {key: _plain(value, f"config key {key!r}") for key, value in config.items()}
    try:
        dumped: dict[str, Any] = config.model_dump(mode="json", exclude_unset=True)
        again = type(config).model_validate(dumped)
    except (PydanticSerializationError, ValueError) as error:
        keys = ", ".join(sorted(config.model_fields_set))
        raise PipelineError(f"its config has values that YAML has no form of (keys: {keys})") from error
    if again.model_dump() != config.model_dump():
        raise PipelineError("its config would not be read back as it is: it has values that YAML has no form of")
    return dumped


def _plain(value: Any, what: str) -> Any:
    """`value` if it is read back as it is."""
    if type(value) in _PLAIN:
        return value
    if type(value) is list:
        return [_plain(inner, what) for inner in value]
    if type(value) is dict and all(type(key) is str for key in value):
        return {key: _plain(inner, what) for key, inner in value.items()}
    raise PipelineError(f"{what} has a {type(value).__name__} in it, which YAML has no form of")


def _changes(given: Any, usual: Any) -> dict[str, Any]:
    """The fields of a contract that differ, in their sections."""
    changes: dict[str, Any] = {}
    for field in fields(given):
        value: Any = getattr(given, field.name)
        other = getattr(usual, field.name)
        if is_dataclass(value) and other is None:
            changes[field.name] = {part.name: getattr(value, part.name) for part in fields(value)}
        elif is_dataclass(value):
            inner = _changes(value, other)
            if inner:
                changes[field.name] = inner
        elif value != other:
            changes[field.name] = value.value if isinstance(value, Enum) else value
    return changes


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, Mapping):
        return {key: _escaped(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_escaped(inner) for inner in value]
    return value
