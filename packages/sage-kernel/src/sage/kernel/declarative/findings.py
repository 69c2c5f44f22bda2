"""What is wrong with a pipeline file: all of it at once, each finding with its place."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from sage.common.config import user_path
from sage.kernel.graph import PipelineError

__all__ = ["Finding", "PipelineFileError", "explain_validation", "hint"]

_RULES = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "dataclass_type": "a mapping",
}
_KNOWN_MAX = 12
_SHOWN_MAX = 80


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        location: `file:line:column`, or the file alone.
        message: what is wrong, without the place.

    Example:
        >>> str(Finding("a.yaml:3:5", "unknown key 'nmae'"))
        "a.yaml:3:5: unknown key 'nmae'"
    """

    location: str
    message: str

    def __str__(self) -> str:
        return f"{self.location}: {self.message}"


class PipelineFileError(PipelineError):
    """A pipeline file is wrong; `findings` has all of it, the message a line for each."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__("\n".join(map(str, findings)))
        self.findings = tuple(findings)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.findings,)


def hint(wrong: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the known name that is most alike, the list of all when there are few.

    Example:
        >>> hint("top", ["top_k", "model"]), hint("zzz", ["a", "b"])
        ("; did you mean 'top_k'?", '; there are: a, b')
    """
    names = sorted(set(known))
    close = difflib.get_close_matches(wrong, names, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are: {', '.join(names)}" if names and len(names) <= _KNOWN_MAX else ""


def explain_validation(error: ValidationError, values: Any, model: Any) -> list[tuple[tuple[str | int, ...], str]]:
    """Pydantic's findings in our words, each with the path of the key that it is about.

    Args:
        error: what pydantic found.
        values: what was validated.
        model: the pydantic model or dataclass that it was validated into.
    """
    found = []
    for detail in error.errors():
        path = user_path(detail["loc"], values)
        found.append((path, _message(detail, path, model)))
    return found


def _message(detail: Any, path: tuple[str | int, ...], model: Any) -> str:
    kind, name, got = detail["type"], ".".join(map(str, path)), _shown(detail["input"])
    if kind == "missing":
        return f"missing required key {name!r}"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown key {name!r}{hint(str(path[-1]), _fields_at(model, path[:-1]))}"
    about = f"{name} " if name else ""
    if kind in _RULES:
        return f"{about}must be {_RULES[kind]}, got {got}"
    if kind in ("literal_error", "enum"):
        expected = str(detail["ctx"]["expected"])
        close = difflib.get_close_matches(str(detail["input"]), expected.replace("'", "").replace(",", " ").split(), 1)
        return f"{about}must be {expected}, got {got}" + (f"; did you mean {close[0]!r}?" if close else "")
    if kind in ("value_error", "assertion_error"):
        # The rule's own words; they name the value where it matters.
        return f"{name + ': ' if name else ''}{detail['ctx']['error']}"
    text = detail["msg"].removeprefix("Input ")
    return f"{about}{text[:1].lower()}{text[1:]}, got {got}"


def _shown(value: Any) -> str:
    if isinstance(value, (Mapping, BaseModel)):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= _SHOWN_MAX else text[: _SHOWN_MAX - 3] + "..."


def _fields_at(model: Any, path: tuple[str | int, ...]) -> list[str]:
    models = _models_in(model)
    for part in path:
        if isinstance(part, str):
            models = [inner for each in models for inner in _models_in(_annotations_of(each).get(part))]
    return [name for each in models for name in _annotations_of(each)]


def _annotations_of(model: Any) -> dict[str, Any]:
    if issubclass(model, BaseModel):
        return {field.alias or name: field.annotation for name, field in model.model_fields.items()}
    # Ours only: pydantic has resolved the annotations of a dataclass, whose own are text.
    fields: Mapping[str, Any] = getattr(model, "__dataclass_fields__", {})
    return {name: _resolved(model, field.type) for name, field in fields.items()}


def _resolved(model: Any, annotation: Any) -> Any:
    import sys

    return vars(sys.modules[model.__module__]).get(annotation) if isinstance(annotation, str) else annotation


def _models_in(annotation: Any) -> list[type]:
    if isinstance(annotation, type) and (
        issubclass(annotation, BaseModel) or "__dataclass_fields__" in vars(annotation)
    ):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType, Annotated, list, tuple):
        return [model for argument in get_args(annotation) for model in _models_in(argument)]
    return []
