"""`${NAME}` and `${NAME:-default}` in the texts of a pipeline file.

A name is looked up among the file's own parameters first, then in the environment variables of the process. The
value of a variable is text and stays text: it is never read as YAML, so it cannot add keys. `$$` is a dollar sign.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from sage.common.errors import SageError

__all__ = ["MissingVariableError", "Substitution", "escape"]

_REFERENCE = re.compile(r"\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\{")
_WHOLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SECRET_MIN = 4


class MissingVariableError(SageError):
    """A text refers to what is not there, or not in a way that can be read."""


class Substitution:
    """Puts parameters and environment variables into texts, and keeps their values out of messages.

    Args:
        parameters: values by name; they may be of any type.
        environ: variables; those of the process by default.

    Example:
        >>> put = Substitution({"top_k": 4}, {"HOST": "example.org", "EMPTY": ""})
        >>> put("${top_k}"), put("http://${HOST}/${EMPTY:-v1}"), put("costs $$5")
        (4, 'http://example.org/v1', 'costs $5')
        >>> put.scrub("cannot reach example.org")
        'cannot reach ${HOST}'
    """

    def __init__(self, parameters: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> None:
        self.parameters = dict(parameters or {})
        self._environ = os.environ if environ is None else environ
        self._used: dict[str, str] = {}

    def __call__(self, text: str) -> Any:
        """The value of `text`: of any type where it is nothing but one parameter, else text.

        Raises:
            MissingVariableError: a variable is not set and has no default, or `${` begins no reference.
        """
        whole = _WHOLE.fullmatch(text)
        if whole is not None and whole[1] in self.parameters:
            return self.parameters[whole[1]]
        return _REFERENCE.sub(self._replace, text) if "$" in text else text

    def _replace(self, found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        name, default = found[1], found[2]
        if name is None:
            raise MissingVariableError(
                "'${' begins no reference: write ${NAME} or ${NAME:-default}, and $$ for a dollar sign"
            )
        if name in self.parameters:
            return str(self.parameters[name])
        value = self._environ.get(name)
        if value:
            self._used[value] = name
            return value
        if default is not None:
            return default
        if value is not None:
            return value
        raise MissingVariableError(
            f"the environment variable {name!r} is not set: set it, give it a default (${{{name}:-...}}), or declare "
            "it under parameters"
        )

    def scrub(self, message: str) -> str:
        """`message` with the values of environment variables replaced by their names: they may be secrets."""
        for value, name in sorted(self._used.items(), key=lambda each: -len(each[0])):
            if len(value) >= _SECRET_MIN:
                message = message.replace(value, f"${{{name}}}").replace(repr(value)[1:-1], f"${{{name}}}")
        return message


def escape(text: str) -> str:
    """`text` so that substitution gives it back.

    Example:
        >>> Substitution()(escape("${HOME} is $1"))
        '${HOME} is $1'
    """
    return text.replace("$", "$$")
