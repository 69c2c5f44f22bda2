"""Sink that writes to the terminal."""

from __future__ import annotations

import re
import sys
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, field_validator

from sage.kernel.operators import SinkFunction
from sage.libs.errors import SinkError
from sage.libs.foundation.records import encode_json

__all__ = ["TerminalSink"]

# Documents and model answers are strangers' text: an escape sequence in one must not steer the reader's
# terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class _TerminalConfig(BaseModel, extra="forbid"):
    format: Literal["text", "json"] = "text"
    prefix: str = ""
    separator: str = "\n"

    @field_validator("separator")
    @classmethod
    def _ends(cls, separator: str) -> str:
        if not separator:
            raise ValueError("separator must not be empty, or items run together")
        return separator


def _visible(found: re.Match[str]) -> str:
    return f"\\x{ord(found[0]):02x}"


class TerminalSink(SinkFunction[Any]):
    """Writes each item to standard output: as text (`str(item)`) or as one line of JSON.

    Control characters other than tab and newline are shown as `\\x1b`; characters that the terminal's
    encoding does not have, as escapes.

    Config:
        format: "text" or "json".
        prefix: written before each item.
        separator: written behind each item.

    Raises:
        SinkError: the reader of the output is gone, or the item has no JSON form.

    Example:
        >>> sink = TerminalSink({"prefix": "> "})
        >>> sink.setup(); sink.execute("hello"); sink.execute(None); sink.teardown()
        > hello
        > None
        >>> sink = TerminalSink({"format": "json"})
        >>> sink.execute({"a": 1})
        {"a":1}
    """

    Config: ClassVar[type[BaseModel] | None] = _TerminalConfig

    def execute(self, item: Any) -> None:
        """Write `item` with one call, so that lines of several replicas do not mix."""
        if self.config.format == "json":
            try:
                text = encode_json(item).decode()
            except (TypeError, ValueError, RecursionError) as error:
                raise SinkError(f"TerminalSink: item cannot be written as JSON: {error}") from error
        else:
            text = _CONTROL.sub(_visible, str(item))
        self._write(f"{self.config.prefix}{text}{self.config.separator}")

    def teardown(self) -> None:
        """Flush, so that everything is out when the job says that it is done."""
        try:
            sys.stdout.flush()
        except OSError as error:
            raise SinkError(f"TerminalSink: cannot write to standard output: {error.strerror or error}") from error

    def _write(self, text: str) -> None:
        # Looked up for each item: tests and notebooks replace sys.stdout.
        output = sys.stdout
        encoding = getattr(output, "encoding", None) or "utf-8"
        try:
            output.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except OSError as error:
            raise SinkError(f"TerminalSink: cannot write to standard output: {error.strerror or error}") from error
        except ValueError as error:  # "I/O operation on closed file"
            raise SinkError(f"TerminalSink: standard output is closed: {error}") from error
