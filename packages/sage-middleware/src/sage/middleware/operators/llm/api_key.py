"""The API key of a server: where it comes from, and how it stays out of every message."""

from __future__ import annotations

import json
import os
from urllib.parse import quote

from sage.common.errors import ConfigError

__all__ = ["ApiKey"]

_CHARACTERS_MIN = 6


class ApiKey:
    """A key that shows itself in one header only.

    Args:
        value: the key; whitespace around it (the newline of a file) is left out. Empty means that there is none.
        origin: where it came from, for messages.

    Raises:
        ConfigError: a character that cannot stand in a header; the message has no part of the key.

    Example:
        >>> key = ApiKey("sk-12345678\\n", "OPENAI_API_KEY")
        >>> key, key.blot("Incorrect key sk-12345678")
        (ApiKey(***), 'Incorrect key ***')
        >>> key.headers()
        {'authorization': 'Bearer sk-12345678'}
    """

    __slots__ = ("_forms", "_value")

    def __init__(self, value: str, origin: str) -> None:
        value = value.strip()
        # An HTTP library repeats a header that it refuses, escaped, so that no search for the key would find it.
        if not all("!" <= character <= "~" for character in value):
            raise ConfigError(
                f"{origin} must be printable ASCII without spaces, and has another character in it; the likely"
                " mistake: a second line, or a typographic character, was copied along with the key"
            )
        self._value = value
        # A "key" of a few letters is none (local servers take anything), and blotting it out would garble messages.
        written = {value, json.dumps(value)[1:-1], value.replace("/", "\\/"), repr(value)[1:-1], quote(value, safe="")}
        self._forms = sorted(written, key=len, reverse=True) if len(value) >= _CHARACTERS_MIN else []

    @classmethod
    def from_environment(cls, variable: str) -> ApiKey:
        """The key in an environment variable."""
        return cls(os.environ.get(variable, ""), variable)

    def __repr__(self) -> str:
        return "ApiKey(***)" if self._value else "ApiKey()"

    def headers(self) -> dict[str, str]:
        """What a request must carry."""
        return {"authorization": f"Bearer {self._value}"} if self._value else {}

    def blot(self, text: str) -> str:
        """`text` without the key, as it is or escaped."""
        for form in self._forms:
            text = text.replace(form, "***")
        return text
