"""Objects to bytes and back: pickle for packets, cloudpickle for code, JSON for records.

Packets use pickle protocol 5 with out-of-band buffers (PEP 574), so that arrays are not copied into the
pickle. Pickles are for our own processes only: loading one runs whatever it says. What comes from outside is
JSON.

A message on the wire is ``magic, version, number of buffers, crc32 | sizes | pickle | buffers``,
little-endian.
"""

from __future__ import annotations

import pickle
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import cloudpickle  # type: ignore[import-untyped]
import msgspec

from sage.common._unpicklable import explain_unpicklable
from sage.common.errors import InvalidArgumentError, SerializationError, SizeLimitError

__all__ = [
    "JSON_BYTES_MAX",
    "MESSAGE_BYTES_MAX",
    "Frames",
    "dump",
    "dump_code",
    "explain_unpicklable",
    "from_json",
    "load",
    "load_code",
    "to_json",
]

T = TypeVar("T")

MESSAGE_BYTES_MAX = 1 << 30
JSON_BYTES_MAX = 16 << 20
_MAGIC = b"SGFR"
_VERSION = 1
_HEAD = struct.Struct("<4sHHII")  # magic, version, reserved, number of buffers, crc32 of all that follows
_SIZE = struct.Struct("<Q")
_WRITABLE = 1 << 63  # set in the size of a buffer that the receiver must be able to change in place
_BUFFERS_MAX = 1 << 20
_LOAD_ERRORS = (
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    ImportError,
    LookupError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Frames:
    """A pickle and the buffers it left out.

    Args:
        pickled: The pickle (protocol 5).
        buffers: The memory of arrays, not copied: whoever changes them before they are sent changes the
            message.

    >>> load(Frames.from_bytes(dump([1, "a"]).to_bytes()))
    [1, 'a']
    """

    pickled: bytes
    buffers: tuple[memoryview, ...] = ()

    @property
    def nbytes(self) -> int:
        """Size in bytes without the few for framing."""
        return len(self.pickled) + sum(buffer.nbytes for buffer in self.buffers)

    def to_bytes(self, limit_bytes: int = MESSAGE_BYTES_MAX) -> bytes:
        """Return everything as one message.

        Raises:
            SizeLimitError: If it is larger than `limit_bytes`.
        """
        if len(self.buffers) > _BUFFERS_MAX:
            raise SizeLimitError(f"message has {len(self.buffers)} buffers, the limit is {_BUFFERS_MAX}")
        parts: list[bytes | memoryview] = [_SIZE.pack(len(self.pickled))]
        parts += [_SIZE.pack(b.nbytes | (0 if b.readonly else _WRITABLE)) for b in self.buffers]
        parts.append(self.pickled)
        parts += self.buffers
        size = _HEAD.size + sum(len(part) for part in parts)
        if size > limit_bytes:
            raise SizeLimitError(f"message has {size} bytes, the limit is {limit_bytes}")
        checksum = 0
        for part in parts:
            checksum = zlib.crc32(part, checksum)
        return b"".join([_HEAD.pack(_MAGIC, _VERSION, 0, len(self.buffers), checksum), *parts])

    @classmethod
    def from_bytes(cls, message: bytes | bytearray | memoryview, limit_bytes: int = MESSAGE_BYTES_MAX) -> Frames:
        """Take a message apart, checking magic, version, sizes and checksum.

        Buffers are views of `message`; only those that were writable and would not be any more are copied.

        Raises:
            SizeLimitError: If the message is larger than `limit_bytes`.
            SerializationError: If it is torn, damaged or no message at all.
        """
        data = memoryview(message).cast("B")
        if data.nbytes > limit_bytes:
            raise SizeLimitError(f"message has {data.nbytes} bytes, the limit is {limit_bytes}")
        if data.nbytes < _HEAD.size + _SIZE.size:
            raise SerializationError(f"torn message: {data.nbytes} bytes are less than its head")
        magic, version, _, buffer_count, checksum = _HEAD.unpack_from(data)
        if magic != _MAGIC:
            raise SerializationError(f"not a message of SAGE: it begins with {bytes(magic)!r}")
        if version != _VERSION:
            raise SerializationError(f"message of version {version}, this version reads {_VERSION}")
        position = _HEAD.size + _SIZE.size * (buffer_count + 1)
        if buffer_count > _BUFFERS_MAX or position > data.nbytes:
            raise SerializationError(f"torn message: {data.nbytes} bytes cannot hold {buffer_count} buffers")
        sizes = struct.unpack_from(f"<{buffer_count + 1}Q", data, _HEAD.size)
        needed = position + sum(size & ~_WRITABLE for size in sizes)
        if needed != data.nbytes:
            raise SerializationError(f"torn message: {data.nbytes} bytes instead of {needed}")
        if zlib.crc32(data[_HEAD.size :]) != checksum:
            raise SerializationError("damaged message: the checksum is wrong")
        parts = []
        for size in sizes:
            end = position + (size & ~_WRITABLE)
            part = data[position:end]
            parts.append(memoryview(bytearray(part)) if size & _WRITABLE and part.readonly else part)
            position = end
        return cls(bytes(parts[0]), tuple(parts[1:]))


def dump(obj: object) -> Frames:
    """Pickle `obj` (protocol 5), leaving large buffers where they are.

    Raises:
        SerializationError: If it cannot be pickled; names the attribute that cannot.

    >>> import threading
    >>> dump({"lock": threading.Lock()})
    Traceback (most recent call last):
        ...
    sage.common.errors.SerializationError: cannot pickle 'lock' at ['lock'] of dict
    """
    buffers: list[pickle.PickleBuffer] = []
    try:
        pickled = pickle.dumps(obj, protocol=5, buffer_callback=buffers.append)
        return Frames(pickled, tuple(buffer.raw() for buffer in buffers))
    except Exception as error:  # a __reduce__ or __getstate__ of the user's may raise anything
        raise SerializationError(explain_unpicklable(obj) or f"cannot pickle: {error}") from error


def load(frames: Frames) -> Any:
    """Rebuild the object of `dump`. Only for pickles of our own processes.

    Raises:
        SerializationError: If the pickle is damaged or names a class that is not importable here.

    >>> load(dump((1, None)))
    (1, None)
    """
    return _loads(frames, "load the pickle")


def _loads(frames: Frames, what: str) -> Any:
    try:
        return pickle.loads(frames.pickled, buffers=frames.buffers)
    except _LOAD_ERRORS as error:
        raise SerializationError(f"cannot {what}: {type(error).__name__}: {error}") from error


class _BoundedFile:
    """Takes what a pickler writes, up to a limit: nobody waits for a gigabyte that is then refused."""

    def __init__(self, limit_bytes: int) -> None:
        self.parts: list[bytes] = []
        self._limit_bytes = self._left = limit_bytes

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self._left -= size
        if self._left < 0:
            raise SizeLimitError(f"message has more than {self._limit_bytes} bytes, which is the limit")
        self.parts.append(bytes(data))
        return size


def dump_code(obj: object, limit_bytes: int = MESSAGE_BYTES_MAX) -> bytes:
    """Serialise functions, lambdas and classes by cloudpickle, with what they refer to.

    What is importable travels as a reference; what is defined in a script or notebook travels with its code.

    Raises:
        SerializationError: If something in it cannot be pickled; names the attribute.
        SizeLimitError: If the result is larger than `limit_bytes`.

    >>> load_code(dump_code(lambda x: x + 1))(41)
    42
    """
    file = _BoundedFile(limit_bytes)
    try:
        cloudpickle.Pickler(file, protocol=5).dump(obj)
        pickled = b"".join(file.parts)
    except SizeLimitError:
        raise
    except Exception as error:  # a __reduce__ or __getstate__ of the user's may raise anything
        reason = explain_unpicklable(obj, code=True) or f"cannot pickle: {error}"
        raise SerializationError(reason) from error
    return Frames(pickled).to_bytes(limit_bytes)


def load_code(data: bytes, limit_bytes: int = MESSAGE_BYTES_MAX) -> Any:
    """Rebuild the object of `dump_code`. Only for bytes of our own processes.

    Raises:
        SerializationError: If the bytes are damaged or name a module that is not importable here.
        SizeLimitError: If they are more than `limit_bytes`.

    >>> load_code(dump_code(len)) is len
    True
    """
    return _loads(Frames.from_bytes(data, limit_bytes), "load the code")


def to_json(record: object) -> bytes:
    """Encode plain values, dataclasses and msgspec structs as JSON (UTF-8, one line).

    Raises:
        SerializationError: For a type JSON has no form for, and for NaN and infinite numbers, which JSON
            cannot say.

    >>> to_json({"answer": 42, "tags": ["a"]})
    b'{"answer":42,"tags":["a"]}'
    """
    try:
        encoded = msgspec.json.encode(record)
        # msgspec writes NaN as null. Whoever reads it back would never know, so look for it where there is a
        # null.
        if b"null" in encoded:
            _refuse_not_finite(msgspec.to_builtins(record), "")
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise SerializationError(f"cannot write as JSON: {error}") from error
    return encoded


def _refuse_not_finite(value: object, path: str) -> None:
    if isinstance(value, float) and value - value != 0:
        raise SerializationError(f"JSON has no form for {value!r}, found at {path or 'the top'}")
    if isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_not_finite(item, f"{path}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _refuse_not_finite(item, f"{path}[{index}]")


def from_json(data: bytes | str, kind: type[T], limit_bytes: int = JSON_BYTES_MAX) -> T:
    """Decode JSON into a value of type `kind`, strictly (``"1"`` is no int).

    Args:
        data: The JSON text; bytes must be UTF-8.
        kind: A type that msgspec knows: plain types, dataclasses, `msgspec.Struct`.
        limit_bytes: Largest input accepted.

    Raises:
        SizeLimitError: If the input is larger.
        SerializationError: If it is not JSON, or not of that type; names the path.
        InvalidArgumentError: If msgspec does not know `kind`.

    >>> from_json(b'{"a": 1}', dict[str, int])
    {'a': 1}
    >>> from_json(b'{"a": "1"}', dict[str, int])
    Traceback (most recent call last):
        ...
    sage.common.errors.SerializationError: cannot read JSON: Expected `int`, got `str` - at `$[...]`
    """
    # A character has at least one byte, so counting characters first spares encoding something huge.
    size = len(data)
    if isinstance(data, str) and size <= limit_bytes:
        size = len(data.encode(errors="replace"))
    if size > limit_bytes:
        raise SizeLimitError(f"JSON has more than the limit of {limit_bytes} bytes")
    try:
        return msgspec.json.decode(data, type=kind, strict=True)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise SerializationError(f"cannot read JSON: {error}") from error
    except TypeError as error:
        raise InvalidArgumentError(f"cannot read JSON into {kind!r}: {error}") from error
