"""What a process logs: handled by the loggers of its parent, with the parent's levels, handlers and filters.

A record travels as a line of JSON: names, numbers and texts, formatted where it was made, so that nothing of the
user's has to be unpickled. It has a pipe of its own and so never waits behind items, and what was logged before a
process was killed arrives all the same.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["LogIntake", "LogLevels", "begin_logging", "follow_levels", "levels_now"]

logger = logging.getLogger("sage.platform.processes")

TEXT_MAX: Final = 256 << 10
"""Characters of a message or traceback; what is longer is cut."""
LINE_MAX: Final = 8 << 20
_DEPTH_MAX: Final = 8
# Everything else that a record has by itself follows from these, or is the message.
_SENT: Final = (
    *("name", "created", "process", "thread", "threadName", "taskName"),
    *("pathname", "filename", "module", "lineno", "funcName", "stack_info"),
)
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


@dataclass(frozen=True, slots=True)
class LogLevels:
    """Which records are wanted.

    Attributes:
        levels: of the loggers that have one of their own; the root logger is "".
        disabled: the level up to which nothing at all is wanted (`logging.disable`).
    """

    levels: Mapping[str, int]
    disabled: int


def levels_now() -> LogLevels:
    """The levels of this process.

    Example:
        >>> logging.getLogger("chatty").setLevel("DEBUG")
        >>> levels_now().levels["chatty"]
        10
        >>> logging.getLogger("chatty").setLevel("NOTSET")
        >>> "chatty" in levels_now().levels
        False
    """
    levels = {"": logging.root.level}
    for name, found in logging.root.manager.loggerDict.copy().items():
        if isinstance(found, logging.Logger) and found.level:
            levels[name] = found.level
    return LogLevels(levels, logging.root.manager.disable)


# -- in the process


class _Forwarding(logging.Handler):
    """Hands records to the parent."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._formatter = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = memoryview(self._line(record))
        except Exception:  # the user's arguments do not fit the message, or their __str__ raises
            self.handleError(record)
            return
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except OSError:
            # The parent has closed its end or is gone: this process is about to end, and nobody is left to tell.
            return

    def _line(self, record: logging.LogRecord) -> bytes:
        attributes = vars(record)
        sent = {name: _plain(attributes.get(name)) for name in _SENT}
        sent["levelno"] = int(record.levelno)
        sent["msg"] = _cut(record.getMessage())
        if record.exc_info and not record.exc_text:
            record.exc_text = self._formatter.formatException(record.exc_info)
        sent["exc_text"] = record.exc_text and _cut(record.exc_text)
        extra = {name: _plain(value) for name, value in attributes.items() if name not in _STANDARD}
        line = json.dumps({**extra, **sent})
        if len(line) > LINE_MAX:
            line = json.dumps(sent)
        return line.encode() + b"\n"


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]}... ({len(text) - TEXT_MAX} characters more)"


def _plain(value: Any, depth: int = 0) -> Any:
    """What JSON has as it is, of anything else its text: a formatter shows no more of it either."""
    kind = type(value)
    if value is None or kind in (bool, float):
        return value
    if kind is int:
        return value if value.bit_length() <= 64 else hex(value)
    if kind is str:
        return _cut(value)
    if depth < _DEPTH_MAX:
        if kind is dict:
            return {_key(name): _plain(item, depth + 1) for name, item in value.items()}
        if kind in (list, tuple):
            return [_plain(item, depth + 1) for item in value]
    return _cut(str(value))


def _key(name: Any) -> str:
    return name if type(name) is str else str(name)


_applied: dict[str, int] = {}


def begin_logging(descriptor: int) -> None:
    """Send all records of this process to the parent from now on.

    Args:
        descriptor: where to.
    """
    logging.root.addHandler(_Forwarding(descriptor))


def follow_levels(wanted: LogLevels) -> None:
    """Take over the parent's levels. Those that the code here has set by itself stay."""
    if wanted.levels != _applied:
        for name in _applied.keys() - wanted.levels.keys():
            logging.getLogger(name).setLevel(logging.NOTSET)
        for name, level in wanted.levels.items():
            logging.getLogger(name or None).setLevel(level)
        _applied.clear()
        _applied.update(wanted.levels)
    logging.disable(wanted.disabled)


# -- in the parent


class LogIntake:
    """Puts the pieces that arrive from one process together and gives the records to the loggers here.

    Args:
        pid: the process.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._rest = bytearray()
        # Whoever has read a piece has handled it before the next one: a job ends only when its records are through.
        self.lock = threading.RLock()

    def take(self, piece: bytes) -> None:
        """Handle the records that are whole with this piece; its lock must be held."""
        if b"\n" not in piece:
            self._rest += piece
            if len(self._rest) > 2 * LINE_MAX:
                self._rest.clear()
            return
        *lines, rest = bytes(self._rest + piece).split(b"\n")
        self._rest = bytearray(rest)
        for line in lines:
            self._handle(line)

    def _handle(self, line: bytes) -> None:
        try:
            record = _record(json.loads(line))
        except (ValueError, TypeError, KeyError, OverflowError):
            # Only a child of the process can do that, by writing into the middle of another one's record.
            logger.warning("process %s has sent a log record that cannot be read", self._pid)
            return
        target = logging.getLogger(record.name)
        try:
            if target.isEnabledFor(record.levelno):
                target.handle(record)
        except Exception:  # a filter or handler of the user's may raise anything; where it is called says no more of it
            logging.Handler().handleError(record)


def _record(sent: dict[str, Any]) -> logging.LogRecord:
    record = logging.makeLogRecord({})
    began_ms = record.created * 1000 - record.relativeCreated
    vars(record).update(sent)
    record.name = "root" if not sent["name"] else str(sent["name"])
    record.levelname = logging.getLevelName(record.levelno)
    record.processName = f"sage-process-{record.process}"
    record.msecs = float(int(record.created % 1 * 1000))
    record.relativeCreated = record.created * 1000 - began_ms
    return record
