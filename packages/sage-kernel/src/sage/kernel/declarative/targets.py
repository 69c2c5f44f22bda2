"""What the names in a file stand for: classes, functions, conditions on a field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from sage.kernel.api import PipelineError
from sage.kernel.operators import Function

from .document import KeyPath, PipelineDocument
from .findings import explain_validation
from .kinds import ARGUMENTS, FOLDS, PARTS, SHORT_FORMS
from .registry import OperatorRegistry
from .specification import OperatorSpec

__all__ = ["Target", "Targets"]

Target = tuple[Any, dict[str, Any] | None, KeyPath]
"""What the DSL gets as the operator, its config, and where the config stands; None twice where it cannot be told."""


class Targets:
    """Resolves the names of one document; what is wrong is reported there.

    Args:
        document: the file.
        registry: the operators that it may name.
    """

    def __init__(self, document: PipelineDocument, registry: OperatorRegistry) -> None:
        self._document = document
        self._registry = registry

    def of(self, spec: OperatorSpec) -> Target:
        """What one operator is, imported."""
        path = spec.path(spec.kind)
        if spec.kind in ARGUMENTS or (spec.kind in PARTS and isinstance(spec.what, dict)):
            arguments = self._arguments(spec)
            return (None, None, path) if arguments is None else (arguments, {}, path)
        if spec.kind in ("collection", "print", *FOLDS):
            return spec.kind, {}, path
        if isinstance(spec.what, dict):
            target, config, where = self.named(SHORT_FORMS[spec.kind], path), dict(spec.what), path
        else:
            target, config, where = self.named(spec.what, path), dict(spec.config or {}), spec.path("config")
        if target is None or not self.config_fits(target, config, where):
            return None, None, path
        return target, config, where

    def _arguments(self, spec: OperatorSpec) -> dict[str, Any] | None:
        forms = ARGUMENTS.get(spec.kind) or PARTS.get(spec.kind, {})
        before = len(self._document.findings)
        resolved = {
            key: self._argument(forms[key], value, spec.path(spec.kind, key)) for key, value in spec.what.items()
        }
        return resolved if len(self._document.findings) == before else None

    def _argument(self, form: str, value: Any, path: KeyPath) -> Any:
        match form:
            case "function":
                return self.named(value, path)
            case "key":
                return self._function("key_by", value, path)
            case "times" if isinstance(value, list):
                return tuple(self._function("key_by", each, (*path, index)) for index, each in enumerate(value))
            case "times":
                return self._function("key_by", value, path)
            case "numbers":
                return tuple(value)
            case "branches" if isinstance(value, dict):
                return {name: self._function("filter", each, (*path, name)) for name, each in value.items()}
            case "branches":
                return self.named(value, path)
            case "create" if isinstance(value, dict):
                return value["value"]
            case "create" if isinstance(value, str):
                return self.named(value, path)
        return value

    def _function(self, kind: str, value: Any, path: KeyPath) -> Any:
        """A function by its name, or the one that the config of `field_key` or `field_filter` makes."""
        if isinstance(value, str):
            return self.named(value, path)
        target = self.named(SHORT_FORMS[kind], path)
        if target is None or not self.config_fits(target, value, path):
            return None
        return target(value).execute

    def named(self, name: str, path: KeyPath) -> Any:
        """A class or function by its registered name or import path; None where there is none, which is reported."""
        try:
            return self._registry.resolve(name)
        except PipelineError as error:
            self._document.report(path, str(error))
            return None

    def config_fits(self, target: Any, config: Mapping[str, Any], path: KeyPath) -> bool:
        """Whether a class takes this config; what is wrong with it is reported."""
        model = target.Config if isinstance(target, type) and issubclass(target, Function) else None
        if model is None:
            return True
        try:
            model.model_validate(config)
        except ValidationError as error:
            for below, message in explain_validation(error, config, model):
                self._document.report((*path, *below), message)
            return False
        except Exception as error:  # a validator is an operator's own code and may raise anything
            self._document.report(path, f"{type(error).__name__}: {error}")
            return False
        return True
