"""TOML: `tomllib` reads the values, a scanner finds the places of the keys, which tomllib does not tell.

The scanner runs over text that tomllib has accepted (or, looking for a duplicate key, over the accepted part
of it), so it needs to know only where keys and values begin and end.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

from sage.common.config._tree import DEPTH_MAX, Location, Path, Places, Tree, duplicate_key, too_deep
from sage.common.errors import ConfigError

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r"""
    \"{3} (?: [^\\] | \\. )*? \"{3,5} (?!\")
    | '{3} .*? '{3,5} (?!')
    | "(?: [^"\\\n] | \\. )*"
    | '[^'\n]*'
    """,
    re.DOTALL | re.VERBOSE,
)
_OTHER_VALUE = re.compile(r"[^,\]}\n#]+")
_POSITION = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)\Z")


def parse(text: str, source: str) -> Tree:
    r"""Read a TOML document.

    Raises:
        ConfigError: If it is none, or breaks a limit; with its location.

    >>> parse("[retriever]\ntop_k = 5", "a.toml").values
    {'retriever': {'top_k': 5}}
    """
    text = text.replace("\r\n", "\n")
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _explain(text, source, str(error)) from error
    except RecursionError as error:
        raise too_deep(Location(source)) from error
    scanner = _Scanner(text, source)
    scanner.scan()
    return Tree(values, scanner.locations)


def _explain(text: str, source: str, message: str) -> ConfigError:
    position = _POSITION.search(message)
    reason = _POSITION.sub("", message)
    if position is None:
        return ConfigError(f"not TOML: {reason}", location=source)
    if position[1] is None:
        lines = text.split("\n")
        line, column = len(lines), len(lines[-1]) + 1
    else:
        line, column = int(position[1]), int(position[2])
    if "overwrite" in reason or "declare" in reason or "twice" in reason:
        scanner = _Scanner("\n".join(text.split("\n")[:line]), source)
        try:
            scanner.scan()
        except ConfigError as error:
            return error
    return ConfigError(f"not TOML: {reason}", location=f"{source}:{line}:{column}")


class _Scanner:
    def __init__(self, text: str, source: str) -> None:
        self._text = text
        self._places = Places(text, source)
        self._position = 0
        self._table: Path = ()
        self._tables_seen: set[Path] = set()
        self._assigned: set[Path] = set()
        self._array_lengths: dict[Path, int] = {}
        self.locations: dict[Path, Location] = {}

    def scan(self) -> None:
        while self._skip_blank():
            if self._text[self._position] == "[":
                self._header()
            else:
                self._assignment(self._table)

    def _skip_blank(self) -> bool:
        match = _BLANK.match(self._text, self._position)
        assert match is not None
        self._position = match.end()
        return self._position < len(self._text)

    def _peek(self) -> str:
        return self._text[self._position : self._position + 1]

    def _error(self, message: str) -> ConfigError:
        return ConfigError(f"not TOML: {message}", location=str(self._places.at(self._position)))

    def _header(self) -> None:
        begin = self._places.at(self._position)
        is_array = self._text.startswith("[[", self._position)
        self._position += 2 if is_array else 1
        path: Path = ()
        keys = self._keys()
        for index, (key, location) in enumerate(keys):
            path = (*path, key)
            self.locations.setdefault(path, location)
            if path in self._array_lengths and index < len(keys) - 1:
                path = (*path, self._array_lengths[path] - 1)
        if is_array:
            length = self._array_lengths.get(path, 0)
            self._array_lengths[path] = length + 1
            path = (*path, length)
            self.locations[path] = begin
        elif path in self._tables_seen or path in self._assigned:
            raise duplicate_key(str(path[-1]), self.locations[path], keys[-1][1])
        else:
            self._tables_seen.add(path)
            self.locations[path] = keys[-1][1]
        self._table = path
        self._position += 2 if is_array else 1

    def _keys(self) -> list[tuple[str, Location]]:
        """Read a dotted key; leave the position behind it."""
        keys = []
        while True:
            self._skip_blank()
            location = self._places.at(self._position)
            bare = _BARE_KEY.match(self._text, self._position)
            quoted = _STRING.match(self._text, self._position)
            match = bare or quoted
            if match is None:
                raise self._error("expected a key")
            self._position = match.end()
            keys.append((bare.group() if bare else _unquote(match.group()), location))
            self._skip_blank()
            if self._peek() != ".":
                return keys
            self._position += 1

    def _assignment(self, table: Path) -> None:
        path = table
        keys = self._keys()
        for key, location in keys:
            path = (*path, key)
            if path in self._assigned:
                raise duplicate_key(key, self.locations[path], location)
            self.locations.setdefault(path, location)
        self._assigned.add(path)
        self._position += 1
        self._value(path)

    def _value(self, path: Path) -> None:
        if len(path) > DEPTH_MAX:
            raise too_deep(self._places.at(self._position))
        self._skip_blank()
        character = self._peek()
        if character == "[":
            self._array(path)
        elif character == "{":
            self._inline_table(path)
        else:
            match = _STRING.match(self._text, self._position) or _OTHER_VALUE.match(self._text, self._position)
            if match is None:
                raise self._error("expected a value")
            self._position = match.end()

    def _array(self, path: Path) -> None:
        self._position += 1
        index = 0
        while self._skip_blank() and self._peek() != "]":
            self.locations[(*path, index)] = self._places.at(self._position)
            self._value((*path, index))
            index += 1
            self._skip_blank()
            if self._peek() == ",":
                self._position += 1
        self._position += 1

    def _inline_table(self, path: Path) -> None:
        self._position += 1
        while self._skip_blank() and self._peek() != "}":
            self._assignment(path)
            self._skip_blank()
            if self._peek() == ",":
                self._position += 1
        self._position += 1


def _unquote(text: str) -> str:
    value: Any = tomllib.loads(f"key = {text}")["key"]
    return str(value)
