"""Processes that run entry functions for this one: started once by a fork server, used again by later jobs.

A process belongs to the process that started it alone: it is reached through descriptors that were handed down, never
through a name that somebody else could open. It ends with its parent, however that ends.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .arenas import Arena, create_arena_file
from .errors import LinkClosedError, WorkerError
from .process_links import Link
from .process_logging import levels_now
from .process_output import ProcessOutput, output_descriptors
from .process_server import FORK, REPLY, REQUEST, SIGNAL, STACK_SIGNAL, STATUS

__all__ = ["ProcessPool", "WorkerProcess", "default_process_pool", "widen"]

logger = logging.getLogger("sage.platform.processes")

_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031
_IDLE_MAX = 16
_EXIT_WAIT_S = 5.0


class WorkerProcess:
    """One process of the pool: a link to it, its output, and how it ended.

    Attributes:
        pid: its process id.
        link: this end of the link.
        line_link: this process's end of the line that begins there, if one does; it is closed with the process.
        more_links: this process's ends of links that were added; they belong to who has added them.
    """

    def __init__(
        self,
        pid: int,
        link: Link,
        status_fd: int,
        output: ProcessOutput,
        handing: socket.socket,
        pool: ProcessPool,
    ) -> None:
        self.pid = pid
        self.link = link
        self.line_link: Link | None = None
        self.more_links: list[Link] = []
        self._handing = handing
        self._status_fd = status_fd
        self._output = output
        self._pool = pool
        self._exit_code: int | None = None

    @property
    def has_ended(self) -> bool:
        """Whether it has ended, however that was: also where the fork server has ended and taken it along."""
        if self.exit_code(0) is not None or self._status_fd < 0:
            return True
        # Nothing is written there before the end, but it is closed with the server.
        return bool(select.select([self._status_fd], [], [], 0)[0])

    def begin(self, entry: str, arguments: Any) -> None:
        """Let it call `module:function` with its end of the link and `arguments`, as if it ran here: with our path,
        command line, working directory, environment and levels of the loggers.

        Raises:
            LinkClosedError: it has ended.
        """
        self.link.send((entry, arguments, sys.path, sys.argv, str(Path.cwd()), dict(os.environ), levels_now()))

    @property
    def end_fd(self) -> int:
        """Becomes readable when it has ended."""
        return self._status_fd

    def hand_over(self, descriptors: Sequence[int]) -> None:
        """Give it descriptors that are open here, for `take_descriptors` there; the caller closes its own.

        Raises:
            LinkClosedError: it has ended.
        """
        try:
            socket.send_fds(self._handing, [b"d"], list(descriptors))
        except OSError as error:
            raise LinkClosedError from error

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self._pool.send_signal(self.pid, signal.SIGKILL)

    def exit_code(self, timeout_s: float = _EXIT_WAIT_S) -> int | None:
        """Its exit code, minus the signal where one has killed it; None when it lives on or nobody knows."""
        if self._exit_code is None and self._status_fd >= 0:
            ready, _, _ = select.select([self._status_fd], [], [], timeout_s)
            status = os.read(self._status_fd, STATUS.size) if ready else b""
            if len(status) == STATUS.size:
                (self._exit_code,) = STATUS.unpack(status)
        return self._exit_code

    def describe_end(self) -> str:
        """How it ended and its last words, for an error message."""
        code = self.exit_code()
        if code is None:
            how = "has ended, nobody knows how"
        elif code < 0:
            name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
            hint = " (out of memory? the kernel kills so)" if -code == signal.SIGKILL else ""
            how = f"was killed by {name}{hint}"
        else:
            how = f"ended by itself with exit code {code}"
        self._output.drain()
        words = self._output.tail().strip()
        return f"process {self.pid} {how}" + (f"; its last words:\n{words}" if words else "")

    def stack(self, timeout_s: float = 0.5) -> str:
        """Where its Python code is at this moment; empty when it does not answer."""
        with self._output.captured() as captured:
            self._pool.send_signal(self.pid, STACK_SIGNAL)
            return captured.wait(timeout_s)

    def drain_output(self) -> None:
        """Pass on what it has printed and logged so far."""
        self._output.drain()

    def forget_output(self) -> None:
        """Forget its last words: they were of an earlier job."""
        self._output.drain()
        self._output.forget()

    @property
    def descriptors(self) -> frozenset[int]:
        """What this process holds open for it."""
        line = () if self.line_link is None else self.line_link.descriptors
        held = (
            *self.link.descriptors,
            *line,
            self._status_fd,
            self._handing.fileno(),
            *self._output.descriptors,
        )
        return frozenset(descriptor for descriptor in held if descriptor >= 0)

    def close(self) -> None:
        """Close everything that belongs to it here; an idle process then ends by itself."""
        self._output.drain()
        self._output.close()
        self.leave_line()
        self.link.close()
        self._handing.close()
        self._close_status()

    def leave_line(self) -> None:
        """Close this process's end of the line that began there."""
        if self.line_link is not None:
            self.line_link.close()
            self.line_link = None

    def abandon(self) -> None:
        """After a fork, in the child: close what it has got of this process, which belongs to its parent."""
        self.link.abandon()
        for link in (self.line_link, *self.more_links):
            if link is not None:
                link.abandon()
        self._handing.close()
        self._output.abandon()
        self._close_status()

    def _close_status(self) -> None:
        if self._status_fd >= 0:
            os.close(self._status_fd)
            self._status_fd = -1


class ProcessPool:
    """Processes for the jobs of this process.

    Args:
        preload: modules that the processes import before they are asked for.

    Example:
        >>> pool = ProcessPool()
        >>> process = pool.acquire()
        >>> process.begin("sage.platform.process_server:answer_pid", None)
        >>> process.link.receive() == process.pid
        True
        >>> pool.release(process); again = pool.acquire(); again is process
        True
        >>> again.kill(); again.describe_end().partition(" was ")[2]
        'killed by SIGKILL (out of memory? the kernel kills so)'
        >>> pool.discard(again); pool.shutdown()
    """

    def __init__(self, preload: Sequence[str] = ()) -> None:
        self._preload = list(preload)
        self._lock = threading.Lock()
        self._idle: deque[WorkerProcess] = deque()
        self._busy: set[WorkerProcess] = set()
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        _pools.add(self)

    def preload(self, modules: Sequence[str]) -> None:
        """Import further modules before the first process is made; later ones import what they lack themselves."""
        with self._lock:
            self._preload += [module for module in modules if module not in self._preload]

    def acquire(self) -> WorkerProcess:
        """An idle process, or a new one.

        Raises:
            WorkerError: none could be started.
        """
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if not process.has_ended:
                    self._busy.add(process)
                    return process
                process.close()
            process = self._start()
            self._busy.add(process)
            return process

    def release(self, process: WorkerProcess) -> None:
        """Give back a process whose entry has returned."""
        process.forget_output()
        process.more_links.clear()
        with self._lock:
            self._busy.discard(process)
            if len(self._idle) < _IDLE_MAX and self._server is not None:
                self._idle.append(process)
                return
        process.close()

    def discard(self, process: WorkerProcess) -> None:
        """Give up a process that has ended or must end; it is killed if it lives."""
        if process.exit_code(0) is None:
            process.kill()
            process.exit_code()
        with self._lock:
            self._busy.discard(process)
        process.close()

    @property
    def processes(self) -> frozenset[int]:
        """Pids of the server and of the idle processes: what it holds while no job runs."""
        with self._lock:
            server = frozenset[int]() if self._server is None else frozenset({self._server.pid})
            return server | frozenset(process.pid for process in self._idle)

    @property
    def descriptors(self) -> frozenset[int]:
        """Descriptors that it holds while no job runs."""
        with self._lock:
            control = frozenset[int]() if self._control is None else frozenset({self._control.fileno()})
            return control.union(output_descriptors(), *(process.descriptors for process in self._idle))

    def send_signal(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to one of its processes; nothing happens when that has ended."""
        with self._lock:
            if self._control is not None:
                try:
                    self._control.sendall(REQUEST.pack(SIGNAL, pid, number))
                except OSError:
                    logger.debug("the fork server is gone, and its processes with it")

    def shutdown(self) -> None:
        """End all of its processes, busy ones too, and the server; it starts anew when it is asked again."""
        with self._lock:
            idle, self._idle = list(self._idle), deque()
            server, self._server = self._server, None
            control, self._control = self._control, None
        for process in idle:
            process.close()
        if control is not None:
            control.close()
        if server is not None:
            server.wait()

    def abandon(self) -> None:
        """After a fork, in the child: what is here belongs to the parent. The child must not hold it open either: the
        server and its processes see by their descriptors that the parent has ended.
        """
        self._lock = threading.Lock()
        for process in (*self._idle, *self._busy):
            process.abandon()
        self._idle, self._busy = deque(), set()
        if self._control is not None:
            self._control.close()
        if self._server is not None:
            self._server.returncode = 0  # it is no child of this process, so there is nothing to wait for
        self._control = self._server = None

    def _start(self) -> WorkerProcess:
        try:
            try:
                return self._fork(self._ensure_server())
            except ConnectionError:
                # The server was killed at this moment: another one can do it.
                self._end_server()
                return self._fork(self._ensure_server())
        except OSError as error:
            raise WorkerError(f"no process could be started: {error}") from error

    def _end_server(self) -> None:
        if self._server is not None:
            self._server.kill()
            self._server.wait()

    def _ensure_server(self) -> socket.socket:
        if self._control is not None and self._server is not None and self._server.poll() is None:
            return self._control
        if self._control is not None:
            self._control.close()
        ours, theirs = socket.socketpair()
        program = (
            f"import sys; sys.path[:] = {sys.path!r}; from sage.platform.process_server import serve; "
            f"serve({theirs.fileno()}, {self._preload!r})"
        )
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                process_group=0,
            )
        self._control = ours
        return ours

    def _fork(self, control: socket.socket) -> WorkerProcess:
        theirs: list[int] = []
        mine: list[int] = []
        handing, handed = socket.socketpair()
        try:
            to_read, from_write = os.pipe2(os.O_CLOEXEC)
            theirs.append(to_read)
            mine.append(from_write)
            to_write, from_read = _reversed_pipe()
            theirs.append(to_write)
            mine.append(from_read)
            for descriptor in (from_write, to_write):
                widen(descriptor)
            theirs += [create_arena_file(), create_arena_file()]
            for what in ("stdout", "stderr", "log", "status"):
                end, kept = _reversed_pipe()
                theirs += [handed.detach(), end] if what == "status" else [end]
                mine.append(kept)
            socket.send_fds(control, [REQUEST.pack(FORK, 0, 0)], theirs)
            reply = control.recv(REPLY.size, socket.MSG_WAITALL)
            if len(reply) < REPLY.size:
                raise ConnectionResetError("the fork server has ended")
            (pid,) = REPLY.unpack(reply)
            if pid < 0:
                raise OSError("the fork server cannot fork")
            arenas = Arena(theirs[3]), Arena(theirs[2])
        except BaseException:
            handing.close()
            for descriptor in mine:
                os.close(descriptor)
            raise
        finally:
            handed.close()
            for descriptor in theirs:
                os.close(descriptor)
        write_fd, read_fd, stdout, stderr, log, status = mine
        link = Link(read_fd, write_fd, *arenas, drains=True, end_fds=[status])
        return WorkerProcess(pid, link, status, ProcessOutput(stdout, stderr, log, pid), handing, self)


_pools: weakref.WeakSet[ProcessPool] = weakref.WeakSet()


def _abandon_pools() -> None:
    for pool in tuple(_pools):
        pool.abandon()


# In a forked child too, `has_ended` and `close` find nothing of the parent's any more.
os.register_at_fork(after_in_child=_abandon_pools)


def _reversed_pipe() -> tuple[int, int]:
    """A pipe: the end that is written, the end that is read."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    return writing, reading


def widen(descriptor: int) -> None:
    """More room in a pipe means fewer switches between processes; where that is not allowed it works as well."""
    if sys.platform == "linux":
        import fcntl

        try:
            fcntl.fcntl(descriptor, _F_SETPIPE_SZ, _PIPE_BYTES)
        except OSError:
            logger.debug("pipe stays as it is", exc_info=True)


@functools.cache
def _pool_of_all() -> ProcessPool:
    pool = ProcessPool()
    atexit.register(pool.shutdown)
    return pool


def default_process_pool(preload: Sequence[str] = ()) -> ProcessPool:
    """The pool that all jobs of this process share; it ends with the process.

    Args:
        preload: modules that its processes will need, for a server that is not started yet.
    """
    pool = _pool_of_all()
    pool.preload(preload)
    return pool
