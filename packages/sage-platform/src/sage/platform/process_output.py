"""What a process prints and logs: passed on to the parent's streams and loggers, its last words kept.

One thread of the parent reads for all processes, however many there are.
"""

from __future__ import annotations

import codecs
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TextIO

from .process_logging import LogIntake

__all__ = ["OUTPUT_THREAD", "ProcessOutput", "output_descriptors"]

OUTPUT_THREAD: Final = "sage-process-output"
"""Name of the thread; it lives while there are processes."""

_TAIL_BYTES: Final = 8192
_READ_BYTES: Final = 65536


class _Captured:
    """Text that is kept for one caller instead of being passed on."""

    def __init__(self, output: ProcessOutput) -> None:
        self._output = output
        self.parts: list[bytes] = []

    def wait(self, timeout_s: float) -> str:
        """What arrives until it pauses, or until the time is over."""
        give_up = time.monotonic() + timeout_s
        seen = -1
        while time.monotonic() < give_up and (not self.parts or len(self.parts) != seen):
            seen = len(self.parts)
            time.sleep(0.05)
            self._output.drain()
        return b"".join(self.parts).decode(errors="replace")


class ProcessOutput:
    """Stdout, stderr and log of one process, given as the reading ends of its pipes."""

    def __init__(self, stdout: int, stderr: int, log: int, pid: int) -> None:
        self._lock = threading.Lock()
        self._streams = {stdout: "stdout", stderr: "stderr", log: "log"}
        self._intake = LogIntake(pid)
        # A character may come in two pieces.
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {descriptor: decoder("backslashreplace") for descriptor in self._streams}
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self._captured: _Captured | None = None
        for descriptor in self._streams:
            os.set_blocking(descriptor, False)
            _reader.add(descriptor, self)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Descriptors that are open."""
        return tuple(self._streams)

    def drain(self) -> None:
        """Pass on everything that is there now."""
        for descriptor in tuple(self._streams):
            while self.read(descriptor):
                pass

    def read(self, descriptor: int) -> bool:
        """Pass on one piece; False when there is none."""
        if self._streams.get(descriptor) == "log":
            with self._intake.lock:
                piece = self._read(descriptor)
                if piece:
                    self._intake.take(piece)
                return bool(piece)
        with self._lock:
            piece = self._read_locked(descriptor)
            if not piece:
                return False
            name = self._streams[descriptor]
            decode = self._decoders[descriptor].decode
            if name == "stderr" and self._captured is not None:
                self._captured.parts.append(piece)
                return True
            if name == "stderr":
                self._keep(piece)
            text = decode(piece)
        _write(sys.stdout if name == "stdout" else sys.stderr, text)
        return True

    def _read(self, descriptor: int) -> bytes:
        with self._lock:
            return self._read_locked(descriptor)

    def _read_locked(self, descriptor: int) -> bytes:
        """What is there; empty when there is nothing, also where nothing will come any more."""
        if descriptor not in self._streams:
            return b""
        try:
            piece = os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            return b""
        except OSError:
            piece = b""
        if not piece:
            self._end(descriptor)
        return piece

    def _keep(self, piece: bytes) -> None:
        self._tail.append(piece)
        self._tail_bytes += len(piece)
        while len(self._tail) > 1 and self._tail_bytes - len(self._tail[0]) >= _TAIL_BYTES:
            self._tail_bytes -= len(self._tail.popleft())

    def tail(self) -> str:
        """The last of what it wrote to stderr."""
        with self._lock:
            return b"".join(self._tail)[-_TAIL_BYTES:].decode(errors="replace")

    def forget(self) -> None:
        """Forget the tail."""
        with self._lock:
            self._tail.clear()
            self._tail_bytes = 0

    @contextmanager
    def captured(self) -> Iterator[_Captured]:
        """Keep what comes on stderr meanwhile for the caller."""
        self.drain()
        captured = _Captured(self)
        with self._lock:
            self._captured = captured
        try:
            yield captured
        finally:
            with self._lock:
                self._captured = None

    def _end(self, descriptor: int) -> None:
        name = self._streams.pop(descriptor)
        _reader.remove(descriptor)
        os.close(descriptor)
        rest = self._decoders.pop(descriptor).decode(b"", final=True)
        if rest and name != "log":
            _write(sys.stdout if name == "stdout" else sys.stderr, rest)

    def abandon(self) -> None:
        """After a fork, in the child: the thread that reads has stayed in the parent."""
        self._lock = threading.Lock()
        self._intake.lock = threading.RLock()
        for descriptor in self._streams:
            os.close(descriptor)
        self._streams = {}

    def close(self) -> None:
        """Read no more."""
        with self._lock:
            for descriptor in tuple(self._streams):
                self._end(descriptor)


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:
        return
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        # The parent's stream is closed or full: as with its own prints, there is nowhere to say so.
        return


class _Reader:
    """The thread that reads for all processes; it lives while there is something to read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._outputs: dict[int, ProcessOutput] = {}
        self._wake: tuple[int, int] | None = None

    @property
    def descriptors(self) -> frozenset[int]:
        with self._lock:
            return frozenset(self._wake or ())

    def add(self, descriptor: int, output: ProcessOutput) -> None:
        with self._lock:
            self._outputs[descriptor] = output
            if self._wake is not None:
                os.write(self._wake[1], b"+")
                return
            self._wake = os.pipe2(os.O_CLOEXEC)
            threading.Thread(target=self._run, args=(self._wake[0],), name=OUTPUT_THREAD, daemon=True).start()

    def remove(self, descriptor: int) -> None:
        with self._lock:
            del self._outputs[descriptor]
            if self._wake is not None:
                os.write(self._wake[1], b"-")

    def _run(self, wake: int) -> None:
        while True:
            with self._lock:
                outputs = dict(self._outputs)
                if not outputs:
                    for descriptor in self._wake or ():
                        os.close(descriptor)
                    self._wake = None
                    return
            poll = select.poll()
            for descriptor in (wake, *outputs):
                poll.register(descriptor, select.POLLIN)
            changed = False
            while not changed:
                for descriptor, _ in poll.poll():
                    if descriptor == wake:
                        os.read(wake, 4096)
                        changed = True
                    else:
                        outputs[descriptor].read(descriptor)

    def forget(self) -> None:
        """After a fork: the thread stayed in the parent."""
        self._lock = threading.Lock()
        for descriptor in self._wake or ():
            os.close(descriptor)
        self._outputs = {}
        self._wake = None


_reader = _Reader()
os.register_at_fork(after_in_child=_reader.forget)


def output_descriptors() -> frozenset[int]:
    """Descriptors of the thread that reads, while it lives."""
    return _reader.descriptors
