"""The fork server and what its children do. Both run in processes of their own.

The server is started once per parent. It imports what the children will need, then forks one child per request:
forking a small process without threads is quick and safe, whatever the parent has become. It reaps the children and
reports how each ended. When the parent goes, however it goes, the server's end of their socket is closed, and it
takes all children with it.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import importlib
import os
import selectors
import signal
import socket
import struct
import sys
import traceback
import warnings
from collections.abc import Sequence
from types import FrameType
from typing import Final

from .arenas import Arena
from .errors import LinkClosedError
from .process_links import Link, UnreadableMessageError
from .process_logging import begin_logging, follow_levels

__all__ = [
    "DESCRIPTORS",
    "FORK",
    "REPLY",
    "REQUEST",
    "SIGNAL",
    "STACK_SIGNAL",
    "STATUS",
    "answer_pid",
    "serve",
    "take_descriptors",
]

REQUEST: Final = struct.Struct("@Bii")
"""What to do, pid, signal."""
REPLY: Final = struct.Struct("@i")
"""Pid of the new child."""
STATUS: Final = struct.Struct("@i")
"""Exit code of a child, minus the signal that killed it."""
FORK: Final = 1
SIGNAL: Final = 2
DESCRIPTORS: Final = 9
"""Of a child: reading end, writing end, inward arena, outward arena, stdout, stderr, log, the socket on which it is
handed further descriptors, status.
"""
STACK_SIGNAL: Final = signal.SIGUSR2
"""Makes a child write its Python stack to its stderr."""


_PR_SET_PDEATHSIG: Final = 1


class _Server:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._statuses: dict[int, int] = {}
        self._pid = os.getpid()

    def run(self) -> None:
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self._descriptors = (wake_read, wake_write)
        with selectors.DefaultSelector() as selector:
            self._selector = selector
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(wake_read, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is not self._control:
                        os.read(wake_read, 4096)
                        self._reap()
                    elif not self._serve_request():
                        for pid in self._statuses:
                            os.kill(pid, signal.SIGKILL)
                        return

    def _serve_request(self) -> bool:
        """Serve one request; False when the parent is gone."""
        try:
            request, descriptors, _, _ = socket.recv_fds(self._control, REQUEST.size, DESCRIPTORS)
        except OSError:
            return False
        if len(request) < REQUEST.size:
            return False
        what, pid, number = REQUEST.unpack(request)
        if what == FORK:
            self._fork(descriptors)
        elif pid in self._statuses:
            # Only what has not been reaped: nobody else can have this pid.
            os.kill(pid, number)
        return True

    def _fork(self, descriptors: Sequence[int]) -> None:
        with warnings.catch_warnings():
            # A library that was preloaded may keep idle threads (BLAS); none of them is of ours.
            warnings.simplefilter("ignore", DeprecationWarning)
            try:
                pid = os.fork()
            except OSError:
                pid = -1
        if pid == 0:
            try:
                self._become_child(descriptors)
            finally:
                os._exit(1)
        *passed_on, status = descriptors
        for descriptor in passed_on:
            os.close(descriptor)
        if pid < 0:
            os.close(status)
        else:
            self._statuses[pid] = status
        self._control.sendall(REPLY.pack(pid))

    def _become_child(self, descriptors: Sequence[int]) -> None:
        _end_with(self._pid)
        signal.set_wakeup_fd(-1)
        _outlive_termination()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._selector.close()
        for descriptor in (*self._descriptors, *self._statuses.values()):
            os.close(descriptor)
        self._control.close()
        _run_child(descriptors)

    def _reap(self) -> None:
        while self._statuses:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            descriptor = self._statuses.pop(pid, None)
            if descriptor is not None:
                try:
                    os.write(descriptor, STATUS.pack(os.waitstatus_to_exitcode(status)))
                except BrokenPipeError:
                    continue  # nobody waits for it any more
                finally:
                    os.close(descriptor)


def serve(control_fd: int, modules: Sequence[str]) -> None:
    """Entry of the fork server.

    Args:
        control_fd: stream socket on which the parent asks.
        modules: what to import before the first fork.
    """
    # Ctrl-C reaches all processes of the terminal; the parent decides what follows from it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    _outlive_termination()
    for module in modules:
        importlib.import_module(module)
    # What is there now stays as long as the children: their collectors need not look at it again and again, and pages
    # that nobody writes to stay shared.
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=control_fd) as control:
        _Server(control).run()


def _outlive_termination() -> None:
    """Leave what follows from SIGTERM to the parent as well: a service manager sends it to all processes of a service,
    and the parent needs these ones to drain. With the parent they end in any case.
    """
    own = os.getpid()

    def leave_to_parent(number: int, frame: FrameType | None) -> None:
        if os.getpid() != own:
            # A process that an operator has forked ends as it would anywhere.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    # No SIG_IGN, which programs that an operator starts would inherit.
    signal.signal(signal.SIGTERM, leave_to_parent)


def _end_with(server: int) -> None:
    """Have the kernel end this process when the server ends: nobody else could, were the server killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != server:
            os._exit(1)


def answer_pid(link: Link, arguments: object) -> None:
    """An entry that answers with the process's pid: the smallest proof of life."""
    link.send(os.getpid())


_handing: list[int] = []
"""In a child, the socket on which its parent hands it descriptors."""


def take_descriptors(count: int) -> Sequence[int]:
    """In a child: `count` descriptors that the parent has handed over; waits for them.

    Raises:
        LinkClosedError: the parent is gone.
    """
    with socket.socket(fileno=os.dup(_handing[0])) as handing:
        _, descriptors, _, _ = socket.recv_fds(handing, 1, count)
    if len(descriptors) < count:
        raise LinkClosedError
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return descriptors


def _run_child(descriptors: Sequence[int]) -> None:
    """Run the parent's entries, one after the other, until the parent closes the link."""
    read_fd, write_fd, inward_fd, outward_fd, stdout, stderr, log, handing, status = descriptors
    os.close(status)
    _handing.append(handing)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.close(stdout)
    os.close(stderr)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
    begin_logging(log)
    faulthandler.enable(2)
    faulthandler.register(STACK_SIGNAL, file=2, all_threads=False)
    inward, outward = Arena(inward_fd), Arena(outward_fd)
    os.close(inward_fd)
    os.close(outward_fd)
    link = Link(read_fd, write_fd, inward, outward)
    code = 0
    try:
        while True:
            _run_entry(link)
    except LinkClosedError:
        code = 0
    except BaseException:  # the last words of the process; whatever it is must be seen
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run_entry(link: Link) -> None:
    try:
        entry, arguments, path, command_line, folder, environment, levels = link.receive()
    except UnreadableMessageError as error:
        link.send(("unreadable", str(error)))
        return
    follow_levels(levels)
    sys.argv[:] = command_line
    if sys.path != path:
        sys.path[:] = path
        importlib.invalidate_caches()
    if dict(os.environ) != environment:
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
    try:
        os.chdir(folder)
    except OSError as error:
        link.send(("unreadable", f"its working directory cannot be entered: {error}"))
        return
    try:
        module, _, name = entry.partition(":")
        call = getattr(importlib.import_module(module), name)
    except Exception as error:  # an import may raise anything
        link.send(("unreadable", f"{type(error).__name__}: {error}"))
        return
    call(link, arguments)
    sys.stdout.flush()
    sys.stderr.flush()
