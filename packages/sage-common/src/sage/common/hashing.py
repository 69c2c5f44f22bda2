"""A hash of keys that is the same in every process, on every machine and in every Python.

`hash()` is salted per process for strings, so it cannot decide which replica owns a key. `stable_hash` can,
and it agrees with dict equality: keys that are equal hash alike (``1 == 1.0 == True == Decimal(1) ==
Fraction(1)``). Values whose equality is unclear (NaN), changeable (lists) or unknown (arbitrary objects) are
refused.

Keys are mapped to replicas over key groups, contiguous ranges of which belong to a replica (as in Carbone et
al., "State Management in Apache Flink", VLDB 2017): after a rescale a replica takes over whole
groups.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import struct
import uuid
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np

from sage.common.errors import InvalidArgumentError

__all__ = [
    "HasStableKey",
    "groups_of_replica",
    "key_group",
    "replica_for_group",
    "replica_for_key",
    "stable_hash",
]

_MASK = 0xFFFF_FFFF_FFFF_FFFF
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 63) - 1
_DEPTH_MAX = 100
_CACHED_CHARACTERS_MAX = 64
_EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001  # naive on purpose: offsets are taken off before
_MICROSECOND = dt.timedelta(microseconds=1)

# One constant per kind of value that is never equal to another kind; arbitrary 64-bit odd numbers.
_TAG_BYTES = 0x9E37_79B9_7F4A_7C15
_TAG_NONE = 0xD1B5_4A32_D192_ED03
_TAG_BIG = 0x8CB9_2BA7_2F3D_8DD7
_TAG_RATIONAL = 0xAEF1_7502_108E_F2D9
_TAG_COMPLEX = 0xC2B2_AE3D_27D4_EB4F
_TAG_UUID = 0xF135_7AEA_2E62_A9C5
_TAG_DATE = 0xE703_7ED1_A0B4_28DB
_TAG_DATETIME = 0x8EBC_6AF0_9C88_C6E3
_TAG_INSTANT = 0x5896_9F54_A3B9_1C27
_TAG_TIME = 0x1D8E_4E27_C47D_124F
_TAG_OFFSET_TIME = 0xEB44_ACCA_B455_D165
_TAG_DURATION = 0x9FB2_1C65_1E98_DF25


@runtime_checkable
class HasStableKey(Protocol):
    """A class of one's own that can be a key: `stable_key` returns the value that stands for the object.

    Objects that are equal must return equal values.

    >>> class Word:
    ...     def __init__(self, text): self.text = text
    ...     def __eq__(self, other): return self.stable_key() == other.stable_key()
    ...     def __hash__(self): return hash(self.stable_key())
    ...     def stable_key(self): return self.text.casefold()
    >>> stable_hash(Word("Graph")) == stable_hash(Word("GRAPH"))
    True
    """

    def stable_key(self) -> object:
        """Return the value to hash instead of this object."""
        ...


def stable_hash(key: object) -> int:
    """Return a hash of 64 bits (0 to 2**64 - 1) that depends on the value alone.

    Supported: None, bool, int (any size), float, complex, Decimal, Fraction, str, bytes, UUID, date,
        datetime, time, timedelta, Enum members, tuples and NamedTuples, frozenset, frozen dataclasses, numpy
        scalars, and classes with `stable_key` (`HasStableKey`). Enum members and dataclasses are told apart
        by the name of their class without its module, because a script's module is called differently in the
        processes it starts.

    Not meant against attackers who choose keys in order to make them collide.

    Raises:
        InvalidArgumentError: For NaN, changeable or unknown types, and nesting deeper than 100.

    >>> stable_hash("user-7"), stable_hash(7) == stable_hash(7.0)
    (11056362442684682814, True)
    >>> stable_hash(["a"])
    Traceback (most recent call last):
        ...
    sage.common.errors.InvalidArgumentError: a key must not be a list, which can change: use tuple(key)
    """
    kind = type(key)
    if kind is str:
        return _hash_str(cast(str, key))
    if kind is int:
        return _hash_int(cast(int, key))
    return _hash_any(key, 0)


def key_group(key: object, groups: int) -> int:
    """Return the group of `key`, 0 to ``groups - 1``.

    Raises:
        InvalidArgumentError: If `groups` is below 1, or `key` cannot be hashed.

    >>> key_group("user-7", 128)
    76
    """
    if groups < 1:
        raise InvalidArgumentError(f"groups must be >= 1, got {groups}")
    return (stable_hash(key) * groups) >> 64


def replica_for_group(group: int, groups: int, parallelism: int) -> int:
    """Return the replica that owns `group`: contiguous ranges whose sizes differ by at most one.

    Raises:
        InvalidArgumentError: If `group` is not one of `groups`, or `parallelism` not in 1 to `groups`.

    >>> [replica_for_group(group, 8, 3) for group in range(8)]
    [0, 0, 0, 1, 1, 1, 2, 2]
    """
    _check_groups(groups, parallelism)
    if not 0 <= group < groups:
        raise InvalidArgumentError(f"group must be in 0 to {groups - 1}, got {group}")
    return group * parallelism // groups


def groups_of_replica(replica: int, groups: int, parallelism: int) -> range:
    """Return the groups that `replica` owns; the inverse of `replica_for_group`.

    Raises:
        InvalidArgumentError: If `replica` is not in 0 to ``parallelism - 1``, or `parallelism` not in 1 to
            `groups`.

    >>> groups_of_replica(1, 8, 3)
    range(3, 6)
    """
    _check_groups(groups, parallelism)
    if not 0 <= replica < parallelism:
        raise InvalidArgumentError(f"replica must be in 0 to {parallelism - 1}, got {replica}")
    return range(-(-replica * groups // parallelism), -(-(replica + 1) * groups // parallelism))


def replica_for_key(key: object, groups: int, parallelism: int) -> int:
    """Return the replica that owns `key`.

    Raises:
        InvalidArgumentError: As `key_group` and `replica_for_group`.

    >>> replica_for_key("user-7", 128, 4)
    2
    """
    return replica_for_group(key_group(key, groups), groups, parallelism)


def _check_groups(groups: int, parallelism: int) -> None:
    if not 1 <= parallelism <= groups:
        raise InvalidArgumentError(
            f"parallelism must be in 1 to {groups} (the number of key groups), got {parallelism}"
        )


def _mix(bits: int) -> int:
    """Spread 64 bits over 64 bits, one to one (the finaliser of SplitMix64, Steele et al., OOPSLA 2014)."""
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & _MASK
    return bits ^ (bits >> 31)


def _hash_int(number: int) -> int:
    if _INT_MIN <= number <= _INT_MAX:
        return _mix(number & _MASK)
    return _digest(_TAG_BIG, number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True))


def _digest(tag: int, data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little") ^ tag


def _hash_text(text: str) -> int:
    try:
        data = text.encode()
    except UnicodeEncodeError:
        data = text.encode(errors="surrogatepass")
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")


# Streams meet the same keys again and again; long texts are left out, so that the cache stays small.
_cached_text = lru_cache(maxsize=16_384)(_hash_text)


def _hash_str(text: str) -> int:
    return _cached_text(text) if len(text) <= _CACHED_CHARACTERS_MAX else _hash_text(text)


def _hash_any(key: object, depth: int) -> int:
    if depth > _DEPTH_MAX:
        raise InvalidArgumentError(f"a key must not be nested deeper than {_DEPTH_MAX}: use a flat tuple")
    kind = type(key)
    direct = _BY_TYPE.get(kind)
    if direct is not None:
        return direct(key, depth)
    if isinstance(key, HasStableKey) and not isinstance(key, type):
        return _hash_any(key.stable_key(), depth + 1)
    if isinstance(key, np.generic):
        return _hash_any(_plain_scalar(key), depth + 1)
    for base, hasher in _BY_BASE:
        # A subclass with an equality of its own (say, text that ignores case) may not be hashed by its base's
        # value.
        if isinstance(key, base) and _compares_like(kind, base):
            return hasher(key, depth)
    if isinstance(key, enum.Enum) and _method(kind, "__eq__") is _method(object, "__eq__"):
        return _hash_member(key, depth)
    if dataclasses.is_dataclass(key) and not isinstance(key, type):
        return _hash_dataclass(key, depth)
    raise InvalidArgumentError(_refusal(kind))


def _method(kind: type, name: str) -> object:
    return next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)


def _compares_like(kind: type, base: type) -> bool:
    return all(_method(kind, name) is _method(base, name) for name in ("__eq__", "__hash__"))


def _refusal(kind: type) -> str:
    name = kind.__qualname__
    cure = {
        list: "use tuple(key)",
        set: "use frozenset(key)",
        dict: "use tuple(sorted(key.items()))",
        bytearray: "use bytes(key)",
        memoryview: "use bytes(key)",
        np.ndarray: "use tuple(key.tolist())",
    }.get(kind)
    if cure is not None:
        return f"a key must not be a {name}, which can change: {cure}"
    return (
        f"a key must be a plain value, got an object of type '{name}': use one of its fields as the key, "
        f"make it a frozen dataclass, or give it a method stable_key()"
    )


def _plain_scalar(key: np.generic) -> object:
    if isinstance(key, np.bool_):
        return bool(key)
    if key.dtype.kind in "iu":
        return key.item()
    # Longer floats than Python's own would lose digits.
    if (key.dtype.kind == "f" and key.itemsize <= 8) or (key.dtype.kind == "c" and key.itemsize <= 16):
        return key.item()
    if isinstance(key, np.str_):
        return str(key)
    if isinstance(key, np.bytes_):
        return bytes(key)
    raise InvalidArgumentError(f"a key must be a plain value, got numpy.{type(key).__name__}: convert it first")


def _refuse_nan(key: object) -> InvalidArgumentError:
    return InvalidArgumentError(f"a key must not be NaN ({key!r}): it is not equal to itself, filter it out")


_double_bits = struct.Struct("<Q").unpack
_pack_double = struct.Struct("<d").pack


def _hash_float(key: float) -> int:
    if key.is_integer():
        return _hash_int(int(key))
    if key != key:
        raise _refuse_nan(key)
    bits: int = _double_bits(_pack_double(key))[0]
    return _mix(bits ^ _TAG_RATIONAL)


def _hash_ratio(numerator: int, denominator: int) -> int:
    """Hash a fraction in lowest terms that is neither an integer nor equal to a float."""
    return _combine(_TAG_RATIONAL, [_hash_int(numerator), _hash_int(denominator)])


def _hash_fraction(key: Fraction) -> int:
    if key.denominator == 1:
        return _hash_int(key.numerator)
    try:
        nearest = float(key)
    except OverflowError:
        return _hash_ratio(key.numerator, key.denominator)
    return _hash_float(nearest) if nearest == key else _hash_ratio(key.numerator, key.denominator)


_DECIMAL_DIGITS_MAX = 5_000


def _hash_decimal(key: Decimal) -> int:
    if key.is_nan():
        raise _refuse_nan(key)
    if key == 0:
        return _hash_int(0)
    # Decimal("1E+999999999") is short, but the integer it stands for is not.
    if key.is_finite() and max(abs(key.adjusted()), len(key.as_tuple().digits)) > _DECIMAL_DIGITS_MAX:
        raise InvalidArgumentError(f"a Decimal key must not have more than {_DECIMAL_DIGITS_MAX} digits")
    nearest = float(key)
    if nearest == key:
        return _hash_float(nearest)
    numerator, denominator = key.as_integer_ratio()
    return _hash_int(numerator) if denominator == 1 else _hash_ratio(numerator, denominator)


def _hash_complex(key: complex) -> int:
    if key.imag == 0:
        return _hash_float(key.real)
    return _combine(_TAG_COMPLEX, [_hash_float(key.real), _hash_float(key.imag)])


def _combine(tag: int, parts: list[int]) -> int:
    return _digest(tag, struct.pack(f"<{len(parts)}Q", *parts))


def _tag(name: str) -> int:
    return _mix(_hash_text(name) ^ _TAG_NONE)


_TAG_TUPLE = _tag("tuple")
_TAG_FROZENSET = _tag("frozenset")


def _hash_tuple(key: tuple[object, ...], depth: int) -> int:
    return _combine(_TAG_TUPLE, [_hash_any(part, depth + 1) for part in key])


def _hash_frozenset(key: frozenset[object], depth: int) -> int:
    return _combine(_TAG_FROZENSET, sorted([_hash_any(part, depth + 1) for part in key]))


def _hash_member(key: enum.Enum, depth: int) -> int:
    # Combined flags have no name of their own, in some Pythons; plain members may have values that cannot be
    # hashed.
    identity: object = key.value if isinstance(key, enum.Flag) else key.name
    return _combine(_tag(f"enum {type(key).__qualname__}"), [_hash_any(identity, depth + 1)])


@lru_cache(maxsize=1024)
def _dataclass_layout(kind: Any) -> tuple[int, tuple[str, ...]]:
    """Return the tag and the compared fields of a frozen dataclass, or refuse the class."""
    parameters: Any = _method(kind, "__dataclass_params__")  # the flags have no public accessor
    if not (parameters.frozen and parameters.eq):
        raise InvalidArgumentError(
            f"a key must not change, got the dataclass '{kind.__qualname__}': declare it with "
            f"@dataclass(frozen=True), or use one of its fields as the key"
        )
    fields = dataclasses.fields(kind)
    return _tag(f"dataclass {kind.__qualname__}"), tuple(
        field.name for field in fields if (field.compare if field.hash is None else field.hash)
    )


def _hash_dataclass(key: object, depth: int) -> int:
    kind: Any = type(key)  # a class is hashable, which mypy does not see
    tag, names = _dataclass_layout(kind)
    parts = []
    for name in names:
        try:
            parts.append(_hash_any(getattr(key, name), depth + 1))
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"{error} (field '{name}' of '{type(key).__qualname__}')") from None
    return _combine(tag, parts)


def _hash_datetime(key: dt.datetime) -> int:
    # Datetimes with an offset are equal when they are the same instant; `fold` takes no part in equality.
    since_epoch = key.replace(tzinfo=None, fold=0) - _EPOCH
    offset = key.replace(fold=0).utcoffset()
    if offset is None:
        return _mix(since_epoch // _MICROSECOND & _MASK ^ _TAG_DATETIME)
    return _mix((since_epoch - offset) // _MICROSECOND & _MASK ^ _TAG_INSTANT)


def _hash_time(key: dt.time) -> int:
    microseconds = ((key.hour * 60 + key.minute) * 60 + key.second) * 1_000_000 + key.microsecond
    offset = key.replace(fold=0).utcoffset()
    if offset is None:
        return _mix(microseconds ^ _TAG_TIME)
    return _mix((microseconds - offset // _MICROSECOND) & _MASK ^ _TAG_OFFSET_TIME)


def _hash_date(key: dt.date) -> int:
    return _mix(key.toordinal() ^ _TAG_DATE)


def _hash_duration(key: dt.timedelta) -> int:
    return _mix(key // _MICROSECOND & _MASK ^ _TAG_DURATION)


_Hasher = Callable[[Any, int], int]


def _flat(hasher: Callable[[Any], int]) -> _Hasher:
    """Adapt a hasher of values that hold no other values."""

    def ignore_depth(key: Any, depth: int) -> int:
        return hasher(key)

    return ignore_depth


_BY_TYPE: dict[type, _Hasher] = {
    type(None): lambda key, depth: _mix(_TAG_NONE),
    bool: _flat(_hash_int),
    int: _flat(_hash_int),
    float: _flat(_hash_float),
    str: _flat(_hash_str),
    bytes: _flat(lambda key: _digest(_TAG_BYTES, key)),
    tuple: _hash_tuple,
    frozenset: _hash_frozenset,
    complex: _flat(_hash_complex),
    Decimal: _flat(_hash_decimal),
    Fraction: _flat(_hash_fraction),
    uuid.UUID: _flat(lambda key: _digest(_TAG_UUID, key.bytes)),
    dt.datetime: _flat(_hash_datetime),
    dt.date: _flat(_hash_date),
    dt.time: _flat(_hash_time),
    dt.timedelta: _flat(_hash_duration),
}
_BY_BASE: list[tuple[type, _Hasher]] = [(kind, hasher) for kind, hasher in _BY_TYPE.items() if kind is not type(None)]
