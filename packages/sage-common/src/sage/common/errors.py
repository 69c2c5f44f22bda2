"""Every exception that SAGE raises on purpose.

Hierarchy::

    SageError
    ├── InvalidArgumentError   (also ValueError)   an argument breaks a rule
    ├── ConfigError                                a configuration is wrong; knows file:line:column
    ├── MissingExtraError      (also ImportError)  an optional dependency is not installed
    ├── SerializationError                         an object or its bytes cannot be converted
    ├── SizeLimitError                             an input is larger than its reader accepts
    └── StoreError                                 a durable store failed; knows its path
        └── StoreFullError                         disk full, quota or file size limit reached

Upper packages derive their own errors from `SageError`, so that one `except SageError` at the edge (the
command line) prints a message instead of a traceback. All of them survive pickling: they travel between
processes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = [
    "ConfigError",
    "InvalidArgumentError",
    "MissingExtraError",
    "SageError",
    "SerializationError",
    "SizeLimitError",
    "StoreError",
    "StoreFullError",
]


class SageError(Exception):
    """Base of all exceptions of this project.

    >>> issubclass(InvalidArgumentError, SageError) and issubclass(InvalidArgumentError, ValueError)
    True
    """


class InvalidArgumentError(SageError, ValueError):
    """An argument breaks a rule; the message names the rule, the value and the likely mistake.

    >>> raise InvalidArgumentError("parallelism must be >= 1, got 0 (operator 'embed')")
    Traceback (most recent call last):
        ...
    sage.common.errors.InvalidArgumentError: parallelism must be >= 1, got 0 (operator 'embed')
    """


class ConfigError(SageError):
    """A configuration cannot be read or breaks a rule.

    Args:
        message: What is wrong, without the place.
        location: ``file:line:column``, ``file`` or the name of another origin; None where there is none.

    >>> str(ConfigError("top_k must be an integer, got 'five'", location="config.yaml:14:5"))
    "config.yaml:14:5: top_k must be an integer, got 'five'"
    """

    def __init__(self, message: str, *, location: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.location = location

    def __str__(self) -> str:
        return self.message if self.location is None else f"{self.location}: {self.message}"


class MissingExtraError(SageError, ImportError):
    """An optional dependency is needed and not installed.

    Args:
        package: The package that could not be imported.
        extra: The distribution with the extra that brings it, for example ``sage-middleware[minilm]``.

    >>> str(MissingExtraError("tokenizers", "sage-middleware[minilm]"))
    "needs the package 'tokenizers': pip install 'sage-middleware[minilm]'"
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"needs the package {package!r}: pip install '{extra}'", name=package)
        self.package = package
        self.extra = extra

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickle would call the class with the finished message, its only `args`.
        return type(self), (self.package, self.extra), self.__dict__


class SerializationError(SageError):
    """An object cannot be turned into bytes, or bytes are not what they should be.

    >>> raise SerializationError("cannot pickle 'lock' at .client._lock of MyOperator")
    Traceback (most recent call last):
        ...
    sage.common.errors.SerializationError: cannot pickle 'lock' at .client._lock of MyOperator
    """


class SizeLimitError(SageError):
    """An input is larger than its reader accepts; the message names size and limit.

    >>> raise SizeLimitError("record has 2048 bytes, the limit is 1024 bytes")
    Traceback (most recent call last):
        ...
    sage.common.errors.SizeLimitError: record has 2048 bytes, the limit is 1024 bytes
    """


class StoreError(SageError):
    """A durable store cannot be opened, read or written.

    Args:
        message: What failed, without the path.
        path: The file or directory concerned; None for a store without one.

    The exception that led to it is `cause` (set by ``raise StoreError(...) from error``); its text should be
    in the message, since a cause does not survive pickling.

    >>> str(StoreError("is not a SAGE store", path="/var/lib/app.db"))
    '/var/lib/app.db: is not a SAGE store'
    """

    def __init__(self, message: str, *, path: str | Path | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.path = None if path is None else str(path)

    @property
    def cause(self) -> BaseException | None:
        """The lower-level exception, or None."""
        return self.__cause__

    def __str__(self) -> str:
        return self.message if self.path is None else f"{self.path}: {self.message}"


class StoreFullError(StoreError):
    """A store has no room left: disk full, quota or file size limit; what was asked for has not been written.

    >>> issubclass(StoreFullError, StoreError)
    True
    """
