"""From a pipeline file to the environment that the same pipeline in Python would have made.

Everything is declared through the DSL, so that a rule holds for both alike. What is wrong is gathered: an operator
that cannot be declared does not hide what is wrong with the others.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from sage.common.errors import SageError
from sage.kernel.api import EnvironmentConfig, LocalEnvironment, PipelineError
from sage.kernel.api.declare import declared_at
from sage.kernel.api.loading import apply_settings

from .declaring import OperatorsBuilder, without_place
from .document import KeyPath, PipelineDocument
from .findings import Finding, PipelineFileError, explain_validation, hint
from .registry import OperatorRegistry
from .specification import OperatorSpec, read_operators
from .targets import Targets

__all__ = ["check_pipeline_file", "load_pipeline_file"]

_SERVICE_KEYS: Final = ("service", "config", "concurrency")
_PIPELINE_KEYS: Final = ("pipeline", "environment", "services", "operators", "concurrency")


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
    """Declares the pipeline of one document, and those of its services."""

    def __init__(self, document: PipelineDocument, registry: OperatorRegistry) -> None:
        self.document = document
        self._targets = Targets(document, registry)
        self._specs: list[OperatorSpec] = []

    def build(self) -> LocalEnvironment | None:
        """The environment; None where not even that could be made. What is wrong is in the document."""
        _let_import_from(self.document.path.parent)
        name = self.document.values.get("pipeline")
        if not isinstance(name, str) or not name.strip():
            found = "nothing" if name is None else repr(name)
            self.document.report(("pipeline",), f"a pipeline file begins with `pipeline: NAME`, got {found}")
            name = "unnamed"
        return self._pipeline((), self.document.values, name)

    def _pipeline(self, base: KeyPath, values: Mapping[str, Any], name: str) -> LocalEnvironment | None:
        """The pipeline that stands at `base`."""
        environment = self._environment(base, values, name)
        specs = read_operators(self.document, (*base, "operators"), values.get("operators"))
        env = environment or LocalEnvironment("unnamed")
        self._services(base, values.get("services"), env)
        self._specs += specs
        OperatorsBuilder(self.document, self._targets, env, specs, _unread(values.get("operators"), specs)).build()
        return environment

    def _environment(self, base: KeyPath, values: Mapping[str, Any], name: str) -> LocalEnvironment | None:
        document = self.document
        given = values.get("environment") or {}
        if not isinstance(given, dict):
            document.report((*base, "environment"), f"environment must be a mapping of settings, got {given!r}")
            return None
        try:
            config = EnvironmentConfig.model_validate(given)
        except ValidationError as error:
            for path, message in explain_validation(error, given, EnvironmentConfig):
                document.report((*base, "environment", *path), message)
            return None
        return LocalEnvironment(name, config)

    # -- services

    def _services(self, base: KeyPath, given: Any, env: LocalEnvironment) -> None:
        if given is None:
            return
        path: KeyPath = (*base, "services")
        if not isinstance(given, dict):
            self.document.report(path, f"services must be a mapping of names to services, got {given!r}")
            return
        for name, service in given.items():
            self._service((*path, name), name, {"service": service} if isinstance(service, str) else service, env)

    def _service(self, path: KeyPath, name: str, given: Any, env: LocalEnvironment) -> None:
        document, failed = self.document, len(self.document.findings)
        if not isinstance(given, dict) or ("service" in given) is ("operators" in given):
            document.report(
                path, f"service {name!r} is an import path module:Object, or a mapping with `service` or `operators`"
            )
            return
        keys = _SERVICE_KEYS if "service" in given else _PIPELINE_KEYS
        for key in given:
            if key not in keys:
                document.report((*path, key), f"unknown key {key!r}{hint(key, keys)}")
        target, config = self._service_target(path, name, given)
        if target is None or len(document.findings) > failed:
            return
        concurrency = given.get("concurrency")
        if isinstance(concurrency, str) and concurrency.strip().isdecimal():  # out of a variable
            concurrency = int(concurrency)
        place = document.at(*path)
        token = declared_at.set(place)
        try:
            env.register_service(name, target, config, concurrency=concurrency)
        except SageError as error:
            document.report(path, without_place(str(error), place))
        finally:
            declared_at.reset(token)

    def _service_target(self, path: KeyPath, name: str, given: Mapping[str, Any]) -> tuple[Any, Any]:
        """What `register_service` gets: a class with its config, a function, or the environment of a pipeline."""
        if "operators" in given:
            own = given.get("pipeline", name)
            if not isinstance(own, str) or not own.strip():
                self.document.report((*path, "pipeline"), f"pipeline must be a name, got {own!r}")
                own = name
            return self._pipeline(path, given, own), None
        reference, config = given["service"], given.get("config")
        if not isinstance(reference, str):
            self.document.report((*path, "service"), f"service must be an import path module:Object, got {reference!r}")
            return None, None
        if config is not None and not isinstance(config, dict):
            self.document.report((*path, "config"), f"config must be a mapping of names to values, got {config!r}")
            return None, None
        target = self._targets.named(reference, (*path, "service"))
        if target is not None and not self._targets.config_fits(target, config or {}, (*path, "config")):
            return None, None
        return target, config

    # -- findings

    def report_error(self, path: KeyPath, error: SageError) -> None:
        """Report an error of the compiler at the operator whose place it names."""
        message = str(error)
        for spec in self._specs:
            told = without_place(message, spec.location)
            if told != message:
                path, message = spec.path(spec.kind), told
                break
        self.document.report(path, message)


def _unread(given: Any, specs: Sequence[OperatorSpec]) -> frozenset[str]:
    """Names of operators that are in the list, but too wrong to be read: who takes their outputs is not blamed."""
    entries = given if isinstance(given, list) else []
    names = {entry["name"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("name"), str)}
    return frozenset(names - {spec.name for spec in specs})


def _let_import_from(folder: Path) -> None:
    """Modules beside the file can be imported, as they can by a Python file."""
    text = str(folder.resolve())
    if text not in sys.path:
        sys.path.insert(0, text)
