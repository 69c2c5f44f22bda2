"""Pydantic's findings in our words: ``config.yaml:14:5: top_k must be an integer, got 'five'``."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pydantic
from pydantic_core import ErrorDetails

from sage.common.config._tree import Location, Path, dotted
from sage.common.errors import ConfigError

_RULES = {
    "int_type": "an integer",
    "int_parsing": "an integer",
    "int_parsing_size": "an integer of reasonable size",
    "int_from_float": "an integer",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "bytes_type": "bytes",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dataclass_type": "a mapping",
    "path_type": "a path",
    "none_required": "null",
}
_BOUNDS = {
    "greater_than": (">", "gt"),
    "greater_than_equal": (">=", "ge"),
    "less_than": ("<", "lt"),
    "less_than_equal": ("<=", "le"),
}
# Keys of tagged unions, functions and the like that pydantic puts into a location are no keys of the user's.
Locate = Callable[[Path], Location | None]


def without_declared_extras(error: pydantic.ValidationError, values: Any, model: Any) -> list[ErrorDetails]:
    """Return the findings without those about unknown keys in models that declare to take such keys.

    Pydantic's ``extra="forbid"`` for one validation overrides what nested models declare.
    """
    return [
        finding
        for finding in error.errors()
        if finding["type"] != "extra_forbidden"
        or not any(
            candidate.model_config.get("extra") in ("allow", "ignore")
            for candidate in _models_at(model, user_path(finding["loc"], values)[:-1])
        )
    ]


def explain(findings: list[ErrorDetails], section: Path, values: Any, locate: Locate, model: Any) -> ConfigError:
    """Turn all findings into one error, one line each, the location of the first one being the error's.

    Args:
        findings: What pydantic found, at least one thing.
        section: The path of what was validated.
        values: What was validated.
        locate: Finds the location of a path, or of what contains it.
        model: What it was validated into.
    """
    lines: list[tuple[Location | None, str]] = []
    for finding in findings:
        path = user_path(finding["loc"], values)
        where = (*section, *path)
        lines.append((locate(where), _message(finding, where, path, model)))
    first, message = lines[0]
    rest = [f"{place}: {text}" if place else text for place, text in lines[1:]]
    return ConfigError("\n".join([message, *rest]), location=str(first) if first else None)


def suggestion(key: str, known: Iterable[str]) -> str:
    """Return ``, did you mean 'x'?`` for the known key that is most alike, or the list of all when few.

    >>> suggestion("topk", ["top_k", "model"])
    ", did you mean 'top_k'?"
    """
    names = sorted(set(known))
    close = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
    if close:
        return f", did you mean {close[0]!r}?"
    if names and len(names) <= 12:
        return f" (known: {', '.join(names)})"
    return ""


def user_path(location: tuple[str | int, ...], values: Any) -> Path:
    """`location`, as pydantic gives it for an error in `values`, without the parts that name no key but a member of a
    union.

    Example:
        >>> user_path(("port", "int"), {"port": "x"})
        ('port',)
    """
    path: list[str | int] = []
    current = values
    for index, part in enumerate(location):
        is_last = index == len(location) - 1
        if isinstance(current, Mapping) and isinstance(part, str) and (part in current or is_last):
            current = current.get(part)
        elif isinstance(current, list) and isinstance(part, int) and part < len(current):
            current = current[part]
        else:
            continue
        path.append(part)
    return tuple(path)


def _message(finding: ErrorDetails, where: Path, path: Path, model: Any) -> str:
    kind, name = finding["type"], dotted(where) or "the configuration"
    got = finding.get("input")
    context = finding.get("ctx", {})
    if kind == "missing":
        section = dotted(where[:-1])
        inside = f" in section '{section}'" if section else ""
        return f"missing required key '{where[-1] if where else ''}'{inside}"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown key '{name}'{suggestion(str(path[-1]), _fields_at(model, path[:-1]))}"
    if kind in _RULES:
        return f"{name} must be {_RULES[kind]}, got {_shown(got)}"
    if kind in _BOUNDS:
        sign, key = _BOUNDS[kind]
        return f"{name} must be {sign} {context[key]}, got {_shown(got)}"
    if kind in ("literal_error", "enum"):
        return f"{name} must be {context['expected']}, got {_shown(got)}{_closest(got, context['expected'])}"
    if kind in ("value_error", "assertion_error"):
        return f"{name}: {context['error']}, got {_shown(got)}"
    text = finding["msg"]
    return f"{name}: {text[:1].lower()}{text[1:]}, got {_shown(got)}"


def _closest(got: Any, expected: str) -> str:
    if not isinstance(got, str):
        return ""
    close = difflib.get_close_matches(got, expected.replace("'", " ").replace(",", " ").split(), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _fields_at(model: Any, path: Path) -> list[str]:
    """Return the names of the fields that the model has at a path, as far as its annotations tell."""
    fields = [field for candidate in _models_at(model, path) for field in candidate.model_fields.items()]
    return [field.alias or name for name, field in fields]


def _models_at(model: Any, path: Path) -> list[type[pydantic.BaseModel]]:
    models = _models_in(model)
    for part in path:
        inner: list[type[pydantic.BaseModel]] = []
        for candidate in models:
            if isinstance(part, int):
                inner.append(candidate)
                continue
            for name, field in candidate.model_fields.items():
                if part in (name, field.alias):
                    inner += _models_in(field.annotation)
        models = inner
    return models


def _models_in(annotation: Any) -> list[type[pydantic.BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType, Annotated, list, tuple):
        return [model for argument in get_args(annotation) for model in _models_in(argument)]
    return []
