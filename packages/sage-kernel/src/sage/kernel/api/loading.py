"""A pipeline out of a Python file, with settings applied: what `sage run` and `sage compile` begin with."""

from __future__ import annotations

import ast
import difflib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from sage.common.errors import SageError
from sage.kernel.graph import PipelineError

from .local_environment import EnvironmentConfig, LocalEnvironment, PipelineCaptured, capture_submit

__all__ = ["apply_settings", "load_pipeline"]


def load_pipeline(path: str | Path, settings: Mapping[str, Any] | None = None) -> LocalEnvironment:
    """Load the pipeline that a Python file declares and apply settings to it.

    The file has a function `build(...)` that returns the environment, or a module-level environment. A file
    that calls `submit()` itself is loaded up to there.

    Args:
        path: the file.
        settings: `parameter` of `build`, `setting` of the environment (`watchdog_s`, `queue_capacity`, ...),
            or `operator.key` of an operator's config.

    Raises:
        PipelineError: the file is not there, cannot be loaded, declares no pipeline or several, or a setting
            fits nothing.
    """
    file = Path(path)
    if not file.is_file():
        raise PipelineError(
            f"pipeline file {str(path)!r} does not exist" if not file.exists() else f"{str(path)!r} is not a file"
        )
    plain = {key: value for key, value in (settings or {}).items() if "." not in key}
    environment, used = _environment(file, plain)
    unused = {key: value for key, value in (settings or {}).items() if key not in used}
    apply_settings(environment, unused, (), file, offered=lambda: _parameters_of(file))
    return environment


def apply_settings(
    environment: LocalEnvironment,
    settings: Mapping[str, Any],
    parameters: Iterable[str],
    file: Path,
    offered: Callable[[], Iterable[str]] | None = None,
) -> None:
    """Apply what is a `setting` of the environment or an `operator.key`; what names one of `parameters` is passed over.

    Args:
        environment: what to change.
        settings: values by key.
        parameters: keys that the file has used itself.
        file: where the pipeline comes from.
        offered: parameters of the file to offer to who misspelt one; `parameters` by default.

    Raises:
        PipelineError: a key fits nothing.
    """
    used = list(parameters)
    for key, value in settings.items():
        if key in used:
            continue
        operator, dot, option = _split_key(environment, key)
        if dot:
            environment.configure_operator(operator, {option: value})
        elif key in EnvironmentConfig.model_fields:
            environment.configure(**{key: value})
        else:
            raise _unknown_setting(file, key, used if offered is None else offered())


def _split_key(environment: LocalEnvironment, key: str) -> tuple[str, str, str]:
    """`operator.key`, where both may have dots in them: the longest name of an operator counts."""
    names = [each.name for each in environment.graph.transformations if key.startswith(f"{each.name}.")]
    if not names:
        return key.partition(".")
    operator = max(names, key=len)
    return operator, ".", key[len(operator) + 1 :]


def _environment(file: Path, plain: Mapping[str, Any]) -> tuple[LocalEnvironment, set[str]]:
    module = _new_module(file)
    used: set[str] = set()
    token = capture_submit.set(True)
    try:
        _execute(module, file)
        build = getattr(module, "build", None)
        if inspect.isfunction(build):
            arguments = _arguments_of(build, plain, file)
            used = set(inspect.signature(build).parameters) & set(plain)
            built = _guarded(lambda: build(**arguments), file)
            if not isinstance(built, LocalEnvironment):
                raise PipelineError(f"build() must return the environment, got {built!r} ({file})")
            return built, used
    except PipelineCaptured as captured:
        _refuse_second_submit(file)
        return captured.environment, used
    finally:
        capture_submit.reset(token)
    found = {id(value): value for value in vars(module).values() if isinstance(value, LocalEnvironment)}
    if len(found) != 1:
        what = "no environment" if not found else f"{len(found)} environments"
        raise PipelineError(
            f"{file} declares {what} at module level: one is needed, or a function build() that returns it"
        )
    return next(iter(found.values())), set()


def _refuse_second_submit(file: Path) -> None:
    """A file is loaded up to its first `submit()`; what a second one would run must not be dropped without a word."""
    calls = [
        node.lineno
        for statement in ast.parse(file.read_bytes()).body
        if not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.If))
        for node in ast.walk(statement)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "submit"
    ]
    if len(calls) > 1:
        lines = ", ".join(map(str, calls))
        raise PipelineError(
            f"{file} calls submit() more than once (lines {lines}): a pipeline file declares one pipeline"
        )


def _new_module(file: Path) -> ModuleType:
    name = f"sage_pipeline_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise PipelineError(f"{file} is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    # Classes of the file must be found by pickle, and its neighbours by import, as when it is run by itself.
    sys.modules[name] = module
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return module


def _execute(module: ModuleType, file: Path) -> None:
    spec = module.__spec__
    assert spec is not None
    assert spec.loader is not None
    loader = spec.loader
    _guarded(lambda: loader.exec_module(module), file)


def _guarded(call: Any, file: Path) -> Any:
    try:
        return call()
    except SageError:
        raise
    except SyntaxError as error:  # of the file itself, or of one that it imports
        raise PipelineError(f"{error.filename or file}:{error.lineno}: {type(error).__name__}: {error.msg}") from error
    except (Exception, SystemExit) as error:  # the user's file may raise anything; the message names its line
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == str(file.resolve()) or frame.filename == str(file)
        ]
        line = frames[-1].lineno if frames else "?"
        raise PipelineError(f"{file}:{line}: {type(error).__name__}: {error}") from error


def _arguments_of(build: Any, plain: Mapping[str, Any], file: Path) -> dict[str, Any]:
    parameters = inspect.signature(build).parameters
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty and name not in plain and parameter.kind in named
    ]
    if missing:
        raise PipelineError(f"build() of {file} needs --set {missing[0]}=...")
    return {name: value for name, value in plain.items() if name in parameters}


def _parameters_of(file: Path) -> Iterable[str]:
    build = getattr(sys.modules.get(f"sage_pipeline_{file.stem}"), "build", None)
    return inspect.signature(build).parameters if inspect.isfunction(build) else ()


def _unknown_setting(file: Path, key: str, parameters: Iterable[str]) -> PipelineError:
    known = [*parameters, *EnvironmentConfig.model_fields]
    close = difflib.get_close_matches(key, known, n=1)
    hint = (
        f"did you mean {close[0]!r}?"
        if close
        else f"there are: {', '.join(known)}, and OPERATOR.KEY for an operator's config"
    )
    return PipelineError(f"unknown setting {key!r} for {file}; {hint}")
