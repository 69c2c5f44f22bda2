"""One end of the two-way connection between a parent and its process: messages as pickles over two pipes, large
buffers beside them through shared memory.

A frame is `size of the pickle, number of buffers | position and size of each buffer | pickle`, in the machine's own
byte order: both ends run on one machine, and only ever unpickle what the other one, their own child or parent, wrote
to a descriptor that was handed down. A large pickle is in shared memory itself, behind its buffers: the size that the
frame gives is then 0, and the last of the table is no buffer but the pickle.
"""

from __future__ import annotations

import os
import pickle
import select
import struct
import threading
from collections.abc import Sequence
from typing import Any

from .arenas import Arena
from .errors import LinkClosedError

__all__ = ["OUT_OF_BAND_BYTES", "Link", "UnreadableMessageError"]

OUT_OF_BAND_BYTES = 64 << 10
"""Buffers from this size on travel through shared memory; smaller ones are quicker inside the pickle."""

_HEAD = struct.Struct("@QI")
_BUFFER = struct.Struct("@QQ")
_WRITABLE = 1 << 63
# Memory of this size comes from the heap; larger pieces would be mapped and unmapped for each message.
_READ_BYTES = 64 << 10
_pack_head = _HEAD.pack
_unpack_head = _HEAD.unpack_from
_HEAD_BYTES = _HEAD.size


class UnreadableMessageError(Exception):
    """A message arrived whole and could not be unpickled; the link goes on with the next one.

    Attributes:
        pickled: the message, for a reader that can do with parts of it.
        buffers: what was beside it.
    """

    def __init__(self, reason: str, pickled: bytes = b"", buffers: Sequence[bytes | bytearray] = ()) -> None:
        super().__init__(reason)
        self.pickled = pickled
        self.buffers = buffers


class Link:
    """One end. Any thread may send; one thread receives.

    Args:
        read_fd: pipe that the other end writes.
        write_fd: pipe that the other end reads.
        inward: arena that the other end fills.
        outward: arena that this end fills.
        drains: while this end waits for room to write it reads what has arrived, so that two ends that both write
            much cannot wait for each other; one end of a link must do so.
        end_fds: each becomes readable when a process has ended without which nothing comes any more: the pipe does not
            tell while somebody else, such as a child of that process, holds it open. They belong to the caller.
    """

    def __init__(
        self,
        read_fd: int,
        write_fd: int,
        inward: Arena,
        outward: Arena,
        *,
        drains: bool = False,
        end_fds: Sequence[int] = (),
    ) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._inward = inward
        self._outward = outward
        self._buffered = bytearray()
        self._send_lock = threading.Lock()
        self._drains = drains
        self._closed = False
        self._end_fds = frozenset(end_fds)
        self._arrivals = select.poll()
        if end_fds:
            for descriptor in (read_fd, *end_fds):
                self._arrivals.register(descriptor, select.POLLIN)
        self._table: list[tuple[int, int]] = []
        # Made once: this is on the way of each message.
        self._keep_in_pickle = self._keep
        os.set_blocking(write_fd, not drains)

    # -- sending

    def send(self, message: Any, *, draining: bool = False) -> int:
        """Send a message, waits while the pipe is full; its size in bytes.

        Args:
            message: any picklable object.
            draining: the caller is the thread that receives, so it may read while it waits.

        Raises:
            LinkClosedError: the other end is gone, or this one is closed.
            Exception: whatever pickling `message` raises; nothing has been sent then.
        """
        with self._send_lock:
            frame, beside = self._frame(message)
            self._write(frame, draining=draining)
        return len(frame) + beside

    def _frame(self, message: Any) -> tuple[bytes, int]:
        """The frame, and how many bytes stay in shared memory."""
        outward, table = self._outward, self._table
        begun = outward.position
        try:
            pickled = pickle.dumps(message, 5, buffer_callback=self._keep_in_pickle)
        except BaseException:
            outward.rewind(begun)
            table.clear()
            raise
        if len(pickled) >= OUT_OF_BAND_BYTES:
            position = outward.put(memoryview(pickled))
            if position is not None:
                table.append((position, len(pickled)))
                pickled = b""
        if not table:
            return _pack_head(len(pickled), 0) + pickled, 0
        beside = sum(marked & ~_WRITABLE for _, marked in table)
        packed = [_BUFFER.pack(position, marked) for position, marked in table]
        table.clear()
        return b"".join((_pack_head(len(pickled), len(packed)), *packed, pickled)), beside

    def _keep(self, buffer: pickle.PickleBuffer) -> bool:
        """Put a buffer into shared memory, or say that it stays in the pickle."""
        try:
            data = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if data.nbytes < OUT_OF_BAND_BYTES:
            return True
        position = self._outward.put(data)
        if position is None:
            return True
        self._table.append((position, data.nbytes | (0 if data.readonly else _WRITABLE)))
        return False

    def _write(self, frame: bytes, *, draining: bool) -> None:
        if self._closed:
            raise LinkClosedError
        try:
            if not self._drains:
                written = os.write(self._write_fd, frame)
                while written < len(frame):
                    written += os.write(self._write_fd, memoryview(frame)[written:])
                return
            try:
                written = os.write(self._write_fd, frame)
            except BlockingIOError:
                written = 0
            if written < len(frame):
                self._write_rest(memoryview(frame)[written:], draining=draining)
        except OSError as error:
            raise LinkClosedError from error

    def _write_rest(self, rest: memoryview, *, draining: bool) -> None:
        poll = select.poll()
        poll.register(self._write_fd, select.POLLOUT)
        if draining:
            poll.register(self._read_fd, select.POLLIN)
        for descriptor in self._end_fds:
            poll.register(descriptor, select.POLLIN)
        while rest:
            for descriptor, _ in poll.poll():
                if descriptor in self._end_fds:
                    raise LinkClosedError
                if descriptor == self._write_fd:
                    try:
                        rest = rest[os.write(self._write_fd, rest) :]
                    except BlockingIOError:
                        continue
                else:
                    arrived = os.read(self._read_fd, _READ_BYTES)
                    if not arrived:
                        raise LinkClosedError
                    self._buffered += arrived

    # -- receiving

    def receive(self) -> Any:
        """The next message; waits for it.

        Raises:
            LinkClosedError: the other end is gone and all that it had sent whole has been received.
            UnreadableMessageError: it cannot be unpickled here; its cause says why.
        """
        if not self._buffered:
            # Mostly one read brings exactly one message without buffers.
            data = self._read()
            if len(data) >= _HEAD_BYTES:
                size, buffers = _unpack_head(data)
                if not buffers and len(data) == _HEAD_BYTES + size:
                    return _load(memoryview(data)[_HEAD_BYTES:], ())
            self._buffered += data
        while True:
            buffered = self._buffered
            if len(buffered) >= _HEAD_BYTES:
                size, buffers = _unpack_head(buffered)
                end = _HEAD_BYTES + _BUFFER.size * buffers + size
                if len(buffered) >= end:
                    break
                if end - len(buffered) > _READ_BYTES:
                    self._read_large(end)
                    continue
            buffered += self._read()
        if not size:
            return self._receive_beside(end, buffers)
        start = end - size
        table = [_BUFFER.unpack_from(buffered, _HEAD_BYTES + _BUFFER.size * index) for index in range(buffers)]
        if len(buffered) == end:
            pickled, self._buffered = memoryview(buffered)[start:], bytearray()
        else:
            pickled = memoryview(bytes(memoryview(buffered)[start:end]))
            del buffered[:end]
        return _load(pickled, self._taken(table) if table else ())

    def _receive_beside(self, end: int, buffers: int) -> Any:
        """The message of a frame whose pickle is in shared memory."""
        table = [_BUFFER.unpack_from(self._buffered, _HEAD_BYTES + _BUFFER.size * index) for index in range(buffers)]
        del self._buffered[:end]
        position, size = table.pop()
        taken = self._taken(table, keep=True)
        try:
            with self._inward.take(position, size) as pickled:
                return _load(pickled, taken)
        finally:
            self._inward.release(position, size)

    def _wait(self) -> None:
        """Wait for something to read, where the pipe alone does not tell that nothing will come any more."""
        if not self._end_fds:
            return
        ready = self._arrivals.poll()
        if all(descriptor != self._read_fd for descriptor, _ in ready) and not self._has_arrived():
            raise LinkClosedError

    def _has_arrived(self) -> bool:
        """Whether something came between the last look at the pipe and the end of the process."""
        return any(descriptor == self._read_fd for descriptor, _ in self._arrivals.poll(0))

    def _read(self) -> bytes:
        try:
            self._wait()
            arrived = os.read(self._read_fd, _READ_BYTES)
        except OSError as error:
            raise LinkClosedError from error
        if not arrived:
            raise LinkClosedError
        return arrived

    def _read_large(self, end: int) -> None:
        """Read the rest of a frame that ends at `end` into one piece of memory, which grows once."""
        have = len(self._buffered)
        self._buffered += bytes(end - have)
        with memoryview(self._buffered) as view:
            while have < end:
                try:
                    self._wait()
                    count = os.readv(self._read_fd, [view[have:end]])
                except OSError as error:
                    raise LinkClosedError from error
                if not count:
                    raise LinkClosedError
                have += count

    def _taken(self, table: list[tuple[int, int]], *, keep: bool = False) -> list[bytes | bytearray]:
        """The buffers of a message as memory of this process; where they are is free again, unless to `keep`."""
        taken: list[bytes | bytearray] = []
        for position, marked in table:
            size = marked & ~_WRITABLE
            data = self._inward.take(position, size)
            taken.append(bytearray(data) if marked & _WRITABLE else bytes(data))
            data.release()
        for position, marked in () if keep else table[-1:]:
            self._inward.release(position, marked & ~_WRITABLE)
        return taken

    @property
    def reading(self) -> tuple[int, bool]:
        """The descriptor on which messages arrive, and whether some of it has been read beyond the last message: for
        who waits for several links.
        """
        return self._read_fd, bool(self._buffered)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Descriptors of this end while it is open; the arenas hold one each of their own."""
        return (
            ()
            if self._closed
            else (self._read_fd, self._write_fd, *self._inward.descriptors, *self._outward.descriptors)
        )

    def abandon(self) -> None:
        """After a fork, in the child: close what it has got of this end, which its parent uses on."""
        self._send_lock = threading.Lock()
        self.close()

    def close(self) -> None:
        """Close this end; the other one sees the end of what was sent."""
        with self._send_lock:
            if self._closed:
                return
            self._closed = True
        os.close(self._read_fd)
        os.close(self._write_fd)
        self._inward.close()
        self._outward.close()


def _load(pickled: memoryview, buffers: Any) -> Any:
    try:
        return pickle.loads(pickled, buffers=buffers)
    except (Exception, SystemExit) as error:  # a __setstate__ of the user's, or an import, may raise anything
        raise UnreadableMessageError(f"{type(error).__name__}: {error}", bytes(pickled), buffers) from error
