"""JSON with the place of every key; Python's own reader tells neither places nor duplicate keys."""

from __future__ import annotations

import json
import re
from typing import Any

from sage.common.config._tree import DEPTH_MAX, Path, Places, Tree, duplicate_key, too_deep
from sage.common.errors import ConfigError

_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_WORDS = {"true": True, "false": False, "null": None}
_DIGITS_MAX = 4000
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')


def parse(text: str, source: str) -> Tree:
    """Read a JSON object.

    Raises:
        ConfigError: If it is none, or breaks a limit; with its location.

    >>> parse('{"top_k": 5}', "a.json").values
    {'top_k': 5}
    """
    reader = _Reader(text, source)
    return reader.document()


class _Reader:
    def __init__(self, text: str, source: str) -> None:
        self._text = text
        self._places = Places(text, source)
        self._position = 0
        self._tree = Tree()

    def document(self) -> Tree:
        if self._next() != "{":
            raise self._error("a configuration must be a JSON object at its top")
        self._tree.values = self._object(())
        if self._next():
            raise self._error("not JSON: more text after the end")
        return self._tree

    def _error(self, message: str) -> ConfigError:
        return ConfigError(message, location=str(self._places.at(self._position)))

    def _next(self) -> str:
        """Skip white space and return the next character, empty at the end."""
        match = _SPACE.match(self._text, self._position)
        assert match is not None
        self._position = match.end()
        return self._text[self._position : self._position + 1]

    def _expect(self, character: str, where: str) -> None:
        found = self._next()
        if found != character:
            raise self._error(f"not JSON: expected {character!r} {where}, got {found or 'the end'!r}")
        self._position += 1

    def _value(self, path: Path) -> Any:
        if len(path) >= DEPTH_MAX:
            raise too_deep(self._places.at(self._position))
        character = self._next()
        if character == "{":
            return self._object(path)
        if character == "[":
            return self._array(path)
        if character == '"':
            return self._string()
        number = _NUMBER.match(self._text, self._position)
        if number is not None and number.end() - number.start() <= _DIGITS_MAX:
            self._position = number.end()
            return json.loads(number.group())
        for word, value in _WORDS.items():
            if self._text.startswith(word, self._position):
                self._position += len(word)
                return value
        raise self._error(f"not JSON: expected a value, got {character or 'the end'!r}")

    def _string(self) -> str:
        match = _STRING.match(self._text, self._position)
        if match is None:
            raise self._error("not JSON: the text does not end, or holds a control character")
        try:
            value: str = json.loads(match.group())
        except json.JSONDecodeError as error:
            self._position += error.pos
            raise self._error(f"not JSON: {error.msg}") from error
        self._position = match.end()
        return value

    def _object(self, path: Path) -> dict[str, Any]:
        self._position += 1
        values: dict[str, Any] = {}
        if self._next() == "}":
            self._position += 1
            return values
        while True:
            if self._next() != '"':
                raise self._error("not JSON: expected a key in double quotes")
            location = self._places.at(self._position)
            key = self._string()
            if key in values:
                raise duplicate_key(key, self._tree.locations[(*path, key)], location)
            self._tree.locations[(*path, key)] = location
            self._expect(":", "after a key")
            values[key] = self._value((*path, key))
            if self._next() == ",":
                self._position += 1
                continue
            self._expect("}", "or ',' in an object")
            return values

    def _array(self, path: Path) -> list[Any]:
        self._position += 1
        values: list[Any] = []
        if self._next() == "]":
            self._position += 1
            return values
        while True:
            self._next()
            self._tree.locations[(*path, len(values))] = self._places.at(self._position)
            values.append(self._value((*path, len(values))))
            if self._next() == ",":
                self._position += 1
                continue
            self._expect("]", "or ',' in an array")
            return values
