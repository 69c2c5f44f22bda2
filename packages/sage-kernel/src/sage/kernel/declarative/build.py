"""From a pipeline file to the environment that the same pipeline in Python would have made.

Everything is declared through the DSL, so that a rule holds for both alike. What is wrong is gathered: an operator
that cannot be declared does not hide what is wrong with the others.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sage.common.errors import SageError
from sage.kernel.api import DataStream, EnvironmentConfig, KeyedStream, LocalEnvironment, PipelineError
from sage.kernel.api.declare import declared_at
from sage.kernel.api.loading import apply_settings
from sage.kernel.graph import Contract
from sage.kernel.operators import Function

from .document import KeyPath, PipelineDocument
from .findings import Finding, PipelineFileError, explain_validation, hint
from .registry import OperatorRegistry
from .specification import FOLDS, SHAPES, SHORT_FORMS, OperatorSpec, read_operators

__all__ = ["check_pipeline_file", "contract_adapter", "load_pipeline_file"]


@cache
def contract_adapter() -> TypeAdapter[Contract]:
    """What checks a contract that is given as a mapping."""
    return TypeAdapter(Contract)


def load_pipeline_file(
    path: str | Path,
    settings: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    registry: OperatorRegistry | None = None,
) -> LocalEnvironment:
    """The pipeline that a YAML file declares, with settings applied.

    Args:
        path: the file; modules beside it can be named in it.
        settings: `parameter` of the file, `setting` of the environment, or `operator.key` of an operator's config.
        environ: environment variables; those of the process by default.
        registry: the operators that may be named; those that are installed by default.

    Raises:
        PipelineFileError: the file is wrong; with all that is, each with line and column.
        PipelineError: a setting fits nothing.
    """
    builder = _Builder(PipelineDocument(path, settings, environ), registry or OperatorRegistry())
    environment = builder.build()
    if environment is None or builder.document.findings:
        raise PipelineFileError(builder.document.findings)
    try:
        apply_settings(environment, settings or {}, builder.document.parameters, Path(path))
    except SageError as error:
        raise _scrubbed(error, builder.document) from None
    return environment


def check_pipeline_file(
    path: str | Path,
    settings: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    registry: OperatorRegistry | None = None,
) -> tuple[Finding, ...]:
    """All that is wrong with a pipeline file, in the order of its lines; it is compiled and not run."""
    try:
        document = PipelineDocument(path, settings, environ)
    except PipelineFileError as error:
        return error.findings
    builder = _Builder(document, registry or OperatorRegistry())
    environment = builder.build()
    if environment is not None and not document.findings:
        try:
            apply_settings(environment, settings or {}, document.parameters, Path(path))
            environment.compile()
        except SageError as error:
            builder.report_error((), error)
    return tuple(sorted(document.findings, key=lambda finding: _line_and_column(finding.location)))


def _line_and_column(location: str) -> tuple[int, int]:
    _, line, column = ("::" + location).rsplit(":", 2)
    return (int(line), int(column)) if line.isdecimal() and column.isdecimal() else (0, 0)


def _scrubbed(error: SageError, document: PipelineDocument) -> SageError:
    message = document.scrub(str(error))
    return error if message == str(error) else PipelineError(message)


class _Builder:
    """Declares the operators of one document."""

    def __init__(self, document: PipelineDocument, registry: OperatorRegistry) -> None:
        self.document = document
        self._registry = registry
        # By name of the operator; None where it could not be declared, which its consumers are not blamed for.
        self._streams: dict[str, DataStream | None] = {}
        self._specs: dict[str, OperatorSpec] = {}
        self._taken: set[str] = set()

    def build(self) -> LocalEnvironment | None:
        """The environment; None where not even that could be made. What is wrong is in the document."""
        environment = self._environment()
        specs = read_operators(self.document)
        _let_import_from(self.document.path.parent)
        later = [spec.name for spec in specs if spec.name is not None]
        known = {spec.index for spec in specs}
        before: str | None = None
        for spec in specs:
            if spec.index and spec.index - 1 not in known:
                before = None
            before = self._declare(environment or LocalEnvironment("unnamed"), spec, before, known, later)
        if not self.document.findings:
            self._report_loose_ends()
        return environment

    def _environment(self) -> LocalEnvironment | None:
        document = self.document
        name = document.values.get("pipeline")
        if not isinstance(name, str) or not name.strip():
            found = "nothing" if name is None else repr(name)
            document.report(("pipeline",), f"a pipeline file begins with `pipeline: NAME`, got {found}")
            name = "unnamed"
        given = document.values.get("environment") or {}
        if not isinstance(given, dict):
            document.report(("environment",), f"environment must be a mapping of settings, got {given!r}")
            return None
        try:
            config = EnvironmentConfig.model_validate(given)
        except ValidationError as error:
            for path, message in explain_validation(error, given, EnvironmentConfig):
                document.report(("environment", *path), message)
            return None
        return LocalEnvironment(name, config)

    # -- one operator

    def _declare(
        self, env: LocalEnvironment, spec: OperatorSpec, before: str | None, known: set[int], later: list[str]
    ) -> str | None:
        """Declare one operator; its name, which the next one may take as its input."""
        name = self._name(spec)
        inputs = self._inputs(spec, before, known, later)
        target, config, config_path = self._target(spec)
        contract = self._contract(spec, target)
        self._specs[name] = spec
        self._streams[name] = None
        failed = len(self.document.findings)
        if target is not None and config is not None and self._config_fits(target, config, config_path):
            streams = [self._streams.get(each) for each in inputs or ()]
            complete = [stream for stream in streams if stream is not None]
            if spec.is_source or (complete and len(complete) == len(streams)):
                self._call(env, spec, name, complete, target, config, contract)
        if len(self.document.findings) > failed:
            self._streams[name] = None
        return name

    def _name(self, spec: OperatorSpec) -> str:
        if spec.name is not None:
            if spec.name in self._taken:
                first = self._specs.get(spec.name)
                where = f"; the first is in line {first.location.line}" if first is not None else ""
                self.document.report(
                    spec.path("name"), f"names of operators must be unique, got {spec.name!r} twice{where}"
                )
            self._taken.add(spec.name)
            return spec.name
        base = spec.what.rpartition(":")[2] if isinstance(spec.what, str) and spec.kind not in (*FOLDS, "print") else ""
        base = base.replace(".", "_") or spec.kind
        name, number = base, 2
        while name in self._taken:
            name, number = f"{base}-{number}", number + 1
        self._taken.add(name)
        return name

    def _inputs(
        self, spec: OperatorSpec, before: str | None, known: set[int], later: list[str]
    ) -> tuple[str, ...] | None:
        """Names of its inputs, those that are there; None where that is not known."""
        if spec.is_source:
            return ()
        if spec.inputs is None:
            if before is None:
                if not spec.index:
                    self.document.report(spec.path(), f"the first operator must be a source, got {spec.kind}")
                return None
            if self._specs[before].is_sink:
                self.document.report(
                    spec.path(), f"nothing comes out of the sink {before!r} before it: say `input: NAME`"
                )
                return None
            return (before,)
        for given in spec.inputs:
            if given not in self._specs:
                after = "; it must stand above" if given in later else hint(given, self._specs)
                self.document.report(spec.path("input"), f"there is no operator {given!r} above this one{after}")
            elif self._specs[given].is_sink:
                self.document.report(spec.path("input"), f"{given!r} is a sink: nothing comes out of it")
        return spec.inputs

    def _target(self, spec: OperatorSpec) -> tuple[Any, dict[str, Any] | None, KeyPath]:
        """What the DSL gets as the operator, its config, and where the config stands; None where that failed."""
        path = spec.path(spec.kind)
        if spec.kind in ("collection", "print", *FOLDS):
            return spec.kind, {}, path
        try:
            if spec.kind in SHAPES:
                resolved = {
                    key: self._registry.resolve(value) if SHAPES[spec.kind][key] == "path" else value
                    for key, value in spec.what.items()
                }
                return resolved, {}, path
            if isinstance(spec.what, dict) and spec.kind in SHORT_FORMS:
                return self._registry.resolve(SHORT_FORMS[spec.kind]), dict(spec.what), path
            if isinstance(spec.what, dict):
                return {part: self._part(part, value) for part, value in spec.what.items()}, {}, path
            return self._registry.resolve(spec.what), dict(spec.config or {}), spec.path("config")
        except PipelineError as error:
            self.document.report(path, str(error))
            return None, None, path

    def _part(self, part: str, value: Any) -> Any:
        """A part of an aggregate: an import path, or the first value of the accumulator."""
        if isinstance(value, str):
            return self._registry.resolve(value)
        if part == "create" and isinstance(value, (int, float)):
            return value
        raise PipelineError(f"{part} must be an import path such as builtins:list, got {value!r}")

    def _config_fits(self, target: Any, config: dict[str, Any], path: KeyPath) -> bool:
        model = target.Config if isinstance(target, type) and issubclass(target, Function) else None
        if model is None:
            return True
        try:
            model.model_validate(config)
        except ValidationError as error:
            for below, message in explain_validation(error, config, model):
                self.document.report((*path, *below), message)
            return False
        except Exception as error:  # a validator is an operator's own code and may raise anything
            self.document.report(path, f"{type(error).__name__}: {error}")
            return False
        return True

    def _contract(self, spec: OperatorSpec, target: Any) -> Contract | None:
        """What the file says over what the operator declares; None where the file says nothing."""
        if not spec.contract:
            return None
        base = target.contract if isinstance(target, type) and issubclass(target, Function) else Contract()
        merged = _merged(asdict(base), spec.contract)
        try:
            return contract_adapter().validate_python(merged, extra="forbid")
        except ValidationError as error:
            for path, message in explain_validation(error, merged, Contract):
                self.document.report(spec.path("contract", *path), message)
            return None

    def _call(
        self,
        env: LocalEnvironment,
        spec: OperatorSpec,
        name: str,
        inputs: list[DataStream],
        target: Any,
        config: dict[str, Any],
        contract: Contract | None,
    ) -> None:
        token = declared_at.set(spec.location)
        try:
            stream = inputs[0].union(*inputs[1:]) if len(inputs) > 1 else inputs[0] if inputs else None
            made = _add(env, stream, spec, target, config, {"name": name, "contract": contract})
        except SageError as error:
            self.report_error(spec.path(spec.kind), error)
        else:
            self._streams[name] = made
        finally:
            declared_at.reset(token)

    # -- findings

    def report_error(self, path: KeyPath, error: SageError) -> None:
        """Report an error of the DSL or the compiler at the operator whose place it names."""
        message = str(error)
        for spec in self._specs.values():
            place = str(spec.location)
            if f", {place})" in message or f"({place})" in message:
                path = spec.path(spec.kind)
                message = message.replace(f" ({place})", "").replace(f", {place})", ")")
                break
        self.document.report(path, message)

    def _report_loose_ends(self) -> None:
        names, specs = list(self._specs), list(self._specs.values())
        taken = {name for spec in specs for name in spec.inputs or ()}
        taken.update(
            before for before, spec in zip(names, specs[1:], strict=False) if spec.inputs is None and not spec.is_source
        )
        for name, spec in self._specs.items():
            if not spec.is_sink and name not in taken:
                self.document.report(
                    spec.path(), f"the stream of {name!r} goes nowhere: put a sink behind it, or take it with `input:`"
                )


def _add(
    env: LocalEnvironment, stream: Any, spec: OperatorSpec, target: Any, config: dict[str, Any], facts: dict[str, Any]
) -> DataStream | None:
    """Call the DSL; the stream behind the operator, None behind a sink."""
    facts["parallelism"] = spec.parallelism
    is_class = isinstance(target, type) and issubclass(target, Function)
    given = config if is_class or config else None
    emit = {"emit": spec.emit or "each"}
    match spec.kind:
        case "source":
            return env.from_source(target, given, **facts)
        case "collection":
            return env.from_collection(tuple(spec.what), **facts)
        case "print":
            del facts["contract"]
            if facts.pop("parallelism") is not None:
                raise PipelineError("print has one replica: use sink: terminal_sink for more")
            stream.print(spec.what or "", **facts)
            return None
        case "sink":
            stream.sink(target, given, **facts)
            return None
    if spec.kind in (*FOLDS, "reduce", "aggregate") and not isinstance(stream, KeyedStream):
        raise PipelineError(f"{spec.kind} works on items with a key: put key_by before it")
    if spec.kind in SHAPES:
        return _add_shape(stream, spec, target, facts)
    if spec.kind in FOLDS:
        arguments = {} if spec.kind == "count" else {"field": spec.what}
        made: DataStream = getattr(stream, spec.kind)(**arguments, **emit, **facts)
    elif spec.kind == "aggregate" and isinstance(target, dict):
        made = stream.aggregate(target["create"], target["add"], target.get("result"), **emit, **facts)
    elif spec.kind == "aggregate":
        made = stream.aggregate(target, config=given, **emit, **facts)
    elif spec.kind == "reduce":
        made = stream.reduce(target, given, **emit, **facts)
    else:
        made = getattr(stream, spec.kind)(target, given, **facts)
    return made


def _add_shape(stream: DataStream, spec: OperatorSpec, arguments: dict[str, Any], facts: dict[str, Any]) -> DataStream:
    for needed in {"limit": ("items",), "batch": ("size",)}.get(spec.kind, ()):
        if needed not in arguments:
            raise PipelineError(f"{spec.kind} needs {needed}")
    if spec.kind == "limit" and facts.pop("parallelism") not in (None, 1):
        raise PipelineError("limit counts all items, so it has one replica: leave out parallelism")
    made: DataStream = getattr(stream, spec.kind)(**arguments, **facts)
    return made


def _merged(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in given.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return merged


def _let_import_from(folder: Path) -> None:
    """Modules beside the file can be imported, as they can by a Python file."""
    text = str(folder.resolve())
    if text not in sys.path:
        sys.path.insert(0, text)
