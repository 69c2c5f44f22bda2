"""The error hierarchy, its messages, and that errors survive a trip between processes."""

from __future__ import annotations

import copy
import pickle

import pytest

from sage.common import errors
from sage.common.errors import (
    ConfigError,
    InvalidArgumentError,
    MissingExtraError,
    SageError,
    SerializationError,
    SizeLimitError,
    StoreError,
    StoreFullError,
)

SAMPLES = [
    SageError("base"),
    InvalidArgumentError("parallelism must be >= 1, got 0"),
    ConfigError("wrong", location="config.yaml:14:5"),
    ConfigError("wrong"),
    MissingExtraError("tokenizers", "sage-middleware[minilm]"),
    SerializationError("no"),
    SizeLimitError("too large"),
    StoreError("broken", path="/a/b.db"),
    StoreFullError("full"),
]


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_errors_survive_pickling_and_copying(error: SageError) -> None:
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert vars(other) == vars(error)


def test_every_error_is_exported_and_a_sage_error() -> None:
    defined = {name for name, value in vars(errors).items() if isinstance(value, type) and name.endswith("Error")}
    assert defined == set(errors.__all__)
    assert all(issubclass(getattr(errors, name), SageError) for name in defined)
    assert {type(error).__name__ for error in SAMPLES} == defined


def test_errors_are_also_the_builtin_kinds_that_callers_expect() -> None:
    assert issubclass(InvalidArgumentError, ValueError)
    assert issubclass(MissingExtraError, ImportError)
    assert issubclass(StoreFullError, StoreError)


def test_missing_extra_names_the_command() -> None:
    error = MissingExtraError("tokenizers", "sage-middleware[minilm]")
    assert str(error) == "needs the package 'tokenizers': pip install 'sage-middleware[minilm]'"
    assert (error.package, error.extra, error.name) == ("tokenizers", "sage-middleware[minilm]", "tokenizers")


def test_store_error_keeps_path_and_cause() -> None:
    with pytest.raises(StoreError) as caught:
        raise StoreError("broken", path="/a") from OSError("disk")
    assert str(caught.value) == "/a: broken"
    assert isinstance(caught.value.cause, OSError)
    assert StoreError("alone").cause is None
