"""Checks the form of what stands behind the key of an operator, before anything is imported for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .document import KeyPath, PipelineDocument
from .findings import hint
from .kinds import ARGUMENTS, FOLDS, PARTS, REQUIRED, SHORT_FORMS

__all__ = ["read_what", "type_of"]

_TEXTS: Final = {
    "number": "a number",
    "numbers": "a list of two numbers",
    "text": "text",
    "names": "a list of names",
    "function": "an import path module:Object",
    "key": "an import path module:Object or {field: ...}",
    "times": "an import path module:Object or {field: ...}, or a list of two of them",
    "branches": "conditions by branch name, or an import path module:Object that gives the name of a branch",
    "condition": "an import path module:Object or tests of a field such as {field: eur, below: 100}",
    "create": "a number, an import path such as builtins:list, or {value: ...}",
}
_PLAIN: Final = (str, int, float, bool, type(None))


def read_what(document: PipelineDocument, path: KeyPath, kind: str, what: Any) -> tuple[bool, Any]:
    """Whether the value of a kind has a form that it can have, and that value with its arguments by name.

    What is wrong is reported to the document.
    """
    if kind in ARGUMENTS:
        return _read_arguments(document, path, kind, what)
    if kind in PARTS and isinstance(what, dict):
        return _check_arguments(document, path, kind, PARTS[kind], what), what
    problem = None
    if kind == "collection":
        if not isinstance(what, list):
            problem = f"collection must be a list of items, got {type_of(what)}"
    elif kind == "count":
        if what is not None:
            problem = f"count counts items and takes no field, got {what!r}"
    elif kind in FOLDS:
        if what is not None and (isinstance(what, bool) or not isinstance(what, (str, int))):
            problem = f"{kind} takes the name of a field, or nothing for the item itself, got {what!r}"
    elif kind == "print":
        if what is not None and not isinstance(what, str):
            problem = f"print takes the text to put before each item, or nothing, got {what!r}"
    elif not (isinstance(what, dict) and kind in SHORT_FORMS) and (not isinstance(what, str) or not what):
        problem = f"{kind} takes a registered name or an import path module:Object, got {type_of(what)}"
    if problem is not None:
        document.report(path, problem)
    return problem is None, what


def _read_arguments(document: PipelineDocument, path: KeyPath, kind: str, what: Any) -> tuple[bool, dict[str, Any]]:
    forms = ARGUMENTS[kind]
    if not isinstance(what, dict):
        if what is not None and not forms:
            document.report(path, f"{kind} takes nothing, got {type_of(what)}")
            return False, {}
        what = {} if what is None else {next(iter(forms)): what}
    # A number out of a variable is text.
    given = {key: _number(value) if forms.get(key) == "number" else value for key, value in what.items()}
    fine = _check_arguments(document, path, kind, forms, given)
    return fine, {key: value for key, value in given.items() if value is not None}


def _check_arguments(
    document: PipelineDocument, path: KeyPath, kind: str, forms: Mapping[str, str], given: Mapping[str, Any]
) -> bool:
    """Whether all arguments are known, there, and of their form; what is not is reported."""
    fine = True
    for key, value in given.items():
        if key not in forms:
            document.report((*path, key), f"unknown key {key!r}{hint(key, forms)}")
        elif forms[key] == "branches" and isinstance(value, dict):
            wrong = [name for name, each in value.items() if not _fits("condition", each)]
            for name in wrong:
                document.report(
                    (*path, key, name), f"branch {name!r} must be {_TEXTS['condition']}, got {_shown(value[name])}"
                )
            if not wrong:
                continue
        elif value is not None and not _fits(forms[key], value):
            document.report((*path, key), f"{key} must be {_TEXTS[forms[key]]}, got {_shown(value)}")
        else:
            continue
        fine = False
    for key in REQUIRED.get(kind, ()):
        if given.get(key) is None:
            document.report(path, f"{kind} needs {key}")
            fine = False
    return fine


def _fits(form: str, value: Any) -> bool:
    match form:
        case "number":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case "numbers":
            return isinstance(value, list) and len(value) == 2 and all(_fits("number", each) for each in value)
        case "names":
            return isinstance(value, list) and all(isinstance(each, str) for each in value)
        case "key":
            return isinstance(value, str) or (isinstance(value, dict) and "field" in value)
        case "times":
            if isinstance(value, list):
                return len(value) == 2 and all(_fits("key", each) for each in value)
            return _fits("key", value)
        case "condition":
            return isinstance(value, (str, dict))
        case "create":
            if isinstance(value, dict):
                return list(value) == ["value"] and isinstance(value["value"], _PLAIN)
            return isinstance(value, str) or _fits("number", value)
    return isinstance(value, str)


def _shown(value: Any) -> str:
    return type_of(value) if isinstance(value, dict) else repr(value)


def _number(value: Any) -> Any:
    """The number that a text out of a variable says; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return int(value) if value.strip().isdecimal() else float(value)
    except ValueError:
        return value


def type_of(value: Any) -> str:
    """What a value is, in words of YAML; text and numbers as they are."""
    names = {dict: "a mapping", list: "a list", type(None): "nothing", str: repr(value)}
    return names.get(type(value), repr(value))
