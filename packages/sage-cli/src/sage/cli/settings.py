"""Loads a pipeline with what `--set` and `--parallelism` say."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sage.common.config import parse_override
from sage.kernel.api import LocalEnvironment, load_pipeline
from sage.kernel.declarative import is_yaml, load_pipeline_file

from .errors import CommandError, CommandInterruptedError

__all__ = ["load_with_settings", "parse_parallelism", "parse_settings"]


def parse_settings(given: Iterable[str]) -> dict[str, Any]:
    """The values of several `--set key=value`; of the same key the last one counts.

    Raises:
        ConfigError: one has no `=`, no key, or a value that is no YAML.

    Example:
        >>> parse_settings(["top_k=4", "docs=notes", "top_k=5"])
        {'top_k': 5, 'docs': 'notes'}
    """
    overrides = [parse_override(text) for text in given]
    return {override.path: override.value for override in overrides}


def parse_parallelism(given: Iterable[str]) -> dict[str, int]:
    """The values of several `--parallelism operator=N`; of the same operator the last one counts.

    Raises:
        CommandError: one is not of this form, or N is not a whole number >= 1.

    Example:
        >>> parse_parallelism(["embed=4"])
        {'embed': 4}
    """
    replicas: dict[str, int] = {}
    for text in given:
        operator, separator, number = text.rpartition("=")
        if not separator or not operator.strip():
            raise CommandError(f"--parallelism {text}: expected operator=N, such as embed=4")
        if not number.strip().isdecimal() or int(number) < 1:
            raise CommandError(f"--parallelism {text}: N must be a whole number >= 1, got {number!r}")
        replicas[operator.strip()] = int(number)
    return replicas


def load_with_settings(pipeline: Path, settings: Iterable[str], parallelism: Iterable[str]) -> LocalEnvironment:
    """The pipeline of a file, with the options of the command line applied.

    Raises:
        CommandInterruptedError: Ctrl-C.
        SageError: an option, the file or its pipeline is wrong.
    """
    replicas = parse_parallelism(parallelism)
    try:
        load = load_pipeline_file if is_yaml(pipeline) else load_pipeline
        environment = load(pipeline, parse_settings(settings))
    except KeyboardInterrupt as error:
        raise CommandInterruptedError(f"interrupted while {pipeline} was loaded") from error
    if replicas:
        environment.configure(parallelism={**environment.config.parallelism, **replicas})
    return environment
