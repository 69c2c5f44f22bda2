"""Logging with quiet defaults, key=value fields and no secrets.

Unless `configure` was called nothing is set up: warnings and errors reach stderr by Python's last resort, or
whatever handlers the application has. Fields are given by the standard ``extra``::

    log = get_logger(__name__)
    log.info("indexed", extra={"documents": 12, "seconds": 0.4})     # ... indexed documents=12 seconds=0.4

Secrets are masked in fields, arguments and messages of every logger that `get_logger` returned, and of
everything that passes the handler of `configure`. The mask knows the usual names (``api_key``,
``authorization``, ...); it is a net under code that does not log secrets, not a licence to log them.
"""

from __future__ import annotations

import datetime as dt
import json as json_module
import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

from sage.common.errors import InvalidArgumentError

__all__ = ["BoundLogger", "bind", "configure", "get_logger", "redact", "reset"]

_ROOT = "sage"
_MASK = "***"
_FIELDS = "sage_fields"
_SENSITIVE_NAMES = (  # names, not secrets
    "api_key|apikey|access_key|private_key|secret|secret_key|client_secret|token|authorization"
    "|password|passwd|passphrase|cookie|set_cookie|credentials"
)
_SENSITIVE_NAME = re.compile(rf"(?:.*[_.])?(?:{_SENSITIVE_NAMES})")
_SENSITIVE_TEXT = [
    # Authorization: Bearer abc; also alone, in the text of a library's error
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {_MASK}"),
    # api_key=abc, "password": "abc"
    (
        re.compile(
            rf"(?i)(?<![A-Za-z0-9])((?:[A-Za-z0-9]+[_-])*(?:{_SENSITIVE_NAMES.replace('_', '[_-]?')})"
            r"[\"']?\s*[=:]\s*)(?!\*\*\*|(?:bearer|basic)\b)(\"[^\"]*\"|'[^']*'|[^\s,;&)}\]]+)"
        ),
        rf"\1{_MASK}",
    ),
    # https://user:password@host
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://[^\s/:@]*):[^\s/@]+@"), rf"\1:{_MASK}@"),
    # keys as the large model services give them out
    (re.compile(r"\bsk-[A-Za-z0-9_-]{16,}"), _MASK),
]
_PLAIN_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", _FIELDS}
_PLAIN_VALUE = re.compile(r"[^\s\"'=\x00-\x1f\x7f]+\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\x80-\x9f]")


def get_logger(name: str) -> logging.Logger:
    """Return the logger `name` below ``sage`` (where ``__name__`` of our modules is); it masks secrets.

    >>> get_logger("demo").name, get_logger("sage.kernel.api").name
    ('sage.demo', 'sage.kernel.api')
    """
    inside = name == _ROOT or name.startswith(f"{_ROOT}.")
    logger = logging.getLogger(name if inside else f"{_ROOT}.{name}")
    logger.addFilter(_REDACTING)  # adding the same filter again changes nothing
    return logger


class BoundLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger that adds fixed fields to every record; see `bind`.

    >>> bind(get_logger("demo"), operator="embed").extra
    {'operator': 'embed'}
    """

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Put the fixed fields and those of the call together."""
        fields = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        # One attribute of the record: a field may then be called like one of logging's own, "name" for
        # example.
        return msg, {**kwargs, "extra": {_FIELDS: fields}}


def bind(logger: logging.Logger, **fields: object) -> BoundLogger:
    """Return a logger that adds `fields` to every record.

    >>> log = bind(get_logger("demo"), operator="embed", replica=2)
    >>> configure("INFO", stream=sys.stdout)
    >>> log.info("started", extra={"model": "hash 64"})      # doctest: +ELLIPSIS
    20... INFO sage.demo: started operator=embed replica=2 model="hash 64"
    >>> reset()
    """
    return BoundLogger(logger, fields)


def configure(level: str | int = "WARNING", json: bool = False, stream: TextIO | None = None) -> None:
    """Send the records of all SAGE loggers to a stream, instead of to the application's handlers.

    Args:
        level: The least level shown, a name or number of `logging`.
        json: One JSON object per line instead of text.
        stream: Where to; stderr by default (the one of the moment a record is written).

    Calling it again replaces the earlier setting; `reset` takes it back.

    Raises:
        InvalidArgumentError: If there is no such level.

    >>> configure("INFO", json=True, stream=sys.stdout)
    >>> get_logger("demo").info("ready", extra={"port": 80, "api_key": "s3cret"})      # doctest: +ELLIPSIS
    {"time": "20...Z", "level": "INFO", "logger": "sage.demo", "message": "ready", "port": 80, "api_key":
    "***"}
    >>> reset()
    """
    number = logging.getLevelNamesMapping().get(level.upper()) if isinstance(level, str) else level
    if number is None or isinstance(number, bool) or number < 0:
        names = "DEBUG, INFO, WARNING, ERROR, CRITICAL"
        raise InvalidArgumentError(f"level must be one of {names}, got {level!r}")
    reset()
    handler = _Handler(stream)
    handler.setFormatter(_JsonFormatter() if json else _TextFormatter())
    handler.addFilter(_REDACTING)
    root = logging.getLogger(_ROOT)
    root.addHandler(handler)
    root.setLevel(number)
    root.propagate = False


def reset() -> None:
    """Take back `configure`; harmless when there is nothing to take back.

    >>> reset()
    """
    root = logging.getLogger(_ROOT)
    for handler in [handler for handler in root.handlers if isinstance(handler, _Handler)]:
        root.removeHandler(handler)
        handler.close()
        root.setLevel(logging.NOTSET)
        root.propagate = True


def redact(value: object) -> Any:
    """Return `value` with secrets masked; mappings, lists and tuples are copied, never changed.

    >>> redact({"model": "m", "headers": {"Authorization": "Bearer abcdef123456"}, "max_tokens": 5})
    {'model': 'm', 'headers': {'Authorization': '***'}, 'max_tokens': 5}
    >>> redact("GET https://me:hunter2@host/?api_key=abc&n=1")
    'GET https://me:***@host/?api_key=***&n=1'
    """
    return _redact(value, 0)


def _redact(value: object, depth: int) -> Any:
    if isinstance(value, str):
        return _redact_text(value)
    if depth > 8:
        return value
    if isinstance(value, Mapping):
        return {
            key: _MASK if item is not None and _is_secret(key) else _redact(item, depth + 1)
            for key, item in value.items()
        }
    if type(value) in (list, tuple):
        assert isinstance(value, list | tuple)
        return type(value)(_redact(item, depth + 1) for item in value)
    return value


def _redact_text(text: str) -> str:
    for pattern, replacement in _SENSITIVE_TEXT:
        text = pattern.sub(replacement, text)
    return text


def _is_secret(name: object) -> bool:
    return isinstance(name, str) and _SENSITIVE_NAME.fullmatch(name.lower().replace("-", "_")) is not None


class _RedactingFilter(logging.Filter):
    """Masks secrets in a record and lets it pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.args:
            record.args = _redact(record.args, 0)
        try:
            message = record.getMessage()
        except Exception:  # the handler meets the same failure and reports it in logging's own way
            return True
        masked = _redact_text(message)
        if masked != message:
            record.msg, record.args = masked, None
        attributes = vars(record)
        for name in attributes.keys() - _PLAIN_ATTRIBUTES:
            attributes[name] = _MASK if _is_secret(name) else _redact(attributes[name], 0)
        if _FIELDS in attributes:
            attributes[_FIELDS] = _redact(attributes[_FIELDS], 0)
        return True


_REDACTING = _RedactingFilter()


class _Handler(logging.StreamHandler[TextIO]):
    """Writes to a given stream, or to what `sys.stderr` is at the moment."""

    def __init__(self, stream: TextIO | None) -> None:
        self._given = stream
        super().__init__(stream or sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        if self._given is None:
            self.stream = sys.stderr
        super().emit(record)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields = {name: value for name, value in vars(record).items() if name not in _PLAIN_ATTRIBUTES}
    fields.update(vars(record).get(_FIELDS, {}))
    return fields


def _time_utc(record: logging.LogRecord) -> str:
    moment = dt.datetime.fromtimestamp(record.created, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        # Control characters of a message could forge lines or steer the terminal.
        message = _CONTROL.sub(lambda match: repr(match.group())[1:-1], record.getMessage())
        parts = [f"{_time_utc(record)} {record.levelname} {record.name}: {message}"]
        parts += [f"{name}={_text_of(value)}" for name, value in _fields(record).items()]
        line = " ".join(parts)
        trace = _trace(self, record)
        return f"{line}\n{trace}" if trace else line


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": _time_utc(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in _fields(record).items():
            entry[f"field_{name}" if name in entry else name] = value
        trace = _trace(self, record)
        if trace:
            entry["exception"] = trace
        return json_module.dumps(entry, default=str, ensure_ascii=False)


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    texts = []
    if record.exc_info:
        texts.append(formatter.formatException(record.exc_info))
    elif record.exc_text:  # formatted in another process
        texts.append(record.exc_text)
    if record.stack_info:
        texts.append(formatter.formatStack(record.stack_info))
    return _redact_text("\n".join(texts))


def _text_of(value: object) -> str:
    text = value if isinstance(value, str) else str(value)
    return text if _PLAIN_VALUE.match(text) else json_module.dumps(text, ensure_ascii=False)
