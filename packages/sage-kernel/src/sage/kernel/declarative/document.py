"""A pipeline file as plain values that know their places, with parameters and variables put in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sage.common.config import Config, load_config
from sage.common.errors import ConfigError
from sage.kernel.graph import SourceLocation

from .findings import Finding, PipelineFileError, hint
from .substitution import MissingVariableError, Substitution

__all__ = ["TOP_KEYS", "PipelineDocument", "is_yaml"]

TOP_KEYS = ("pipeline", "environment", "parameters", "services", "operators")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_SUFFIXES = (".yaml", ".yml")

KeyPath = tuple[str | int, ...]


def is_yaml(path: str | Path) -> bool:
    """Whether the name of a file says that it is YAML.

    Example:
        >>> is_yaml("a.yaml"), is_yaml("a.YML"), is_yaml("a.py")
        (True, True, False)
    """
    return Path(path).suffix.lower() in _SUFFIXES


class PipelineDocument:
    """One pipeline file: what it says, where it says it, and what has been found wrong so far.

    Args:
        path: the file.
        settings: values that beat the defaults of the file's parameters; other keys are left alone.
        environ: environment variables; those of the process by default.

    Attributes:
        values: the file's values, parameters and variables put in.
        parameters: the file's parameters with their values.
        findings: what is wrong.

    Raises:
        PipelineFileError: the file cannot be read, or is no YAML mapping.
    """

    def __init__(
        self, path: str | Path, settings: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        self.path = Path(path)
        self.findings: list[Finding] = []
        try:
            self._config: Config = load_config(path)
        except ConfigError as error:
            raise PipelineFileError([Finding(error.location or str(path), error.message)]) from None
        raw = self._config.to_dict()
        self._substitution = Substitution({}, environ)
        self.parameters = self._parameters(raw.get("parameters"), settings or {})
        self._substitution = Substitution(self.parameters, environ)
        self.values: dict[str, Any] = {
            key: value if key == "parameters" else self._put_in(value, (key,)) for key, value in raw.items()
        }
        for key in raw:
            if key not in TOP_KEYS:
                self.report((key,), f"unknown key {key!r}{hint(key, TOP_KEYS)}")

    def at(self, *path: str | int) -> SourceLocation:
        """The place of a key, or of the innermost thing around it that has one."""
        found = self._config.location(path)
        return (
            SourceLocation(str(self.path), 1, 1)
            if found is None
            else SourceLocation(found.source, found.line, found.column)
        )

    def report(self, path: KeyPath, message: str) -> None:
        """Note that something is wrong with what stands at `path`."""
        finding = Finding(str(self.at(*path)), self._substitution.scrub(message))
        if finding not in self.findings:
            self.findings.append(finding)

    def scrub(self, message: str) -> str:
        """`message` without the values of environment variables."""
        return self._substitution.scrub(message)

    def _parameters(self, declared: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
        if declared is None:
            return {}
        if not isinstance(declared, dict):
            self.report(("parameters",), "parameters must be a mapping of names to default values")
            return {}
        values = {}
        for name, default in declared.items():
            if not _NAME.match(name):
                self.report(("parameters", name), f"a parameter is named by letters, digits and '_', got {name!r}")
            elif name in settings:
                values[name] = settings[name]
            elif default is None:
                self.report(("parameters", name), f"parameter {name!r} has no default: give it with --set {name}=...")
                values[name] = ""
            else:
                values[name] = self._put_in(default, ("parameters", name))
        return values

    def _put_in(self, value: Any, path: KeyPath) -> Any:
        if isinstance(value, str):
            try:
                return self._substitution(value)
            except MissingVariableError as error:
                self.report(path, str(error))
                return ""
        if isinstance(value, dict):
            return {key: self._put_in(inner, (*path, key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._put_in(inner, (*path, index)) for index, inner in enumerate(value)]
        return value
