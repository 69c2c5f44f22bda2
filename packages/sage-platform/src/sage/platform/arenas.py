"""Shared memory for the large buffers of one direction of a link: a ring that one side fills and the other empties.

The memory has no name in the file system (memfd, or a file that is unlinked at once), so nothing is left behind
however its users end. Positions only grow: bytes put in, bytes taken out; the difference is what is in the ring.
Each is written by one side alone, in one aligned word, so no lock is needed. Nobody ever waits here: what does not
fit goes the other way, through the pipe.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path

__all__ = ["ARENA_BYTES", "Arena", "create_arena_file"]

ARENA_BYTES = 16 << 20
_HEAD_BYTES = 4096


def create_arena_file(ring_bytes: int = ARENA_BYTES) -> int:
    """A descriptor of shared memory for an `Arena` with a ring of `ring_bytes`; pages are only there once used."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("sage-arena", os.MFD_CLOEXEC)
    else:  # no Linux: an unlinked file does the same, on disk
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, _HEAD_BYTES + ring_bytes)
    return descriptor


class Arena:
    """One side's view of the shared memory.

    Args:
        descriptor: from `create_arena_file`; it may be closed afterwards.

    Example:
        >>> descriptor = create_arena_file(1 << 16)
        >>> writer, reader = Arena(descriptor), Arena(descriptor)
        >>> os.close(descriptor)
        >>> writer.put(memoryview(b"large"))
        0
        >>> bytes(reader.take(0, 5))
        b'large'
        >>> writer.put(memoryview(bytes(1 << 20))) is None
        True
        >>> writer.close(); reader.close()
    """

    def __init__(self, descriptor: int) -> None:
        self._identity = _identity(descriptor)
        self._memory = mmap.mmap(descriptor, 0)
        self._view = memoryview(self._memory)
        self._taken = self._view[:8].cast("Q")
        self._ring = self._view[_HEAD_BYTES:]
        self._size = len(self._ring)
        self._put = 0

    @property
    def position(self) -> int:
        """Bytes put in so far; give it to `rewind` to take back what was put after it."""
        return self._put

    def rewind(self, position: int) -> None:
        """Forget what was put since `position` and was not sent."""
        self._put = position

    def put(self, data: memoryview) -> int | None:
        """Copy `data` in; the position by which the other side finds it, None when there is no room now."""
        size = data.nbytes
        put, taken = self._put, self._taken[0]
        offset = put % self._size
        if offset + size > self._size:
            put += self._size - offset
            offset = 0
        if put + size - taken > self._size:
            return None
        self._ring[offset : offset + size] = data
        self._put = put + (size + 7 & ~7)
        return put

    def take(self, position: int, size: int) -> memoryview:
        """The `size` bytes that were put at `position`; valid until `release`."""
        offset = position % self._size
        return self._ring[offset : offset + size]

    def release(self, position: int, size: int) -> None:
        """What was put up to the end of this piece is no longer needed."""
        self._taken[0] = position + (size + 7 & ~7)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What of this process is open on the memory: `mmap` keeps a descriptor of its own, which it does not tell."""
        folder = "/proc/self/fd" if Path("/proc/self/fd").is_dir() else "/dev/fd"
        return tuple(number for number in map(int, os.listdir(folder)) if _identity(number) == self._identity)

    def close(self) -> None:
        """Unmap it."""
        self._taken.release()
        self._ring.release()
        self._view.release()
        self._memory.close()


def _identity(descriptor: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(descriptor)
    except OSError:  # closed meanwhile
        return None
    return status.st_dev, status.st_ino
