"""What holds for every test: the hypothesis profiles, and no leaked thread, process or descriptor."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from sage.platform.process_output import OUTPUT_THREAD
from sage.platform.processes import default_process_pool

# "ci": the same examples in every run, so that a red build means a change, not a draw.
# "dev": new examples each time.
settings.register_profile(
    "ci",
    derandomize=True,
    max_examples=100,
    deadline=None,  # the machine is shared; pytest-timeout bounds the test as a whole
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("dev", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))

# A shell starts what it runs in the background with Ctrl-C ignored, and every program that a test starts would
# inherit it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long a test's threads, children and descriptors may take to go away after it has returned.
GRACE_S = 2.0

_TASKS = Path("/proc/self/task")
_DESCRIPTORS = Path("/proc/self/fd")


@dataclass(frozen=True)
class Holdings:
    """What this process holds at one moment."""

    threads: frozenset[threading.Thread]
    processes: frozenset[int]
    descriptors: frozenset[int]

    @classmethod
    def now(cls) -> Holdings:
        """Take stock; about 0.1 ms."""
        # The pool keeps idle processes for the next job, by design, and says which these are and what it holds open
        # for them; a process that a job has not given back is not among them.
        pool = default_process_pool()
        return cls(
            frozenset(filter(_is_watched, threading.enumerate())),
            _child_processes() - pool.processes,
            _descriptors() - pool.descriptors,
        )

    def beyond(self, before: Holdings) -> list[str]:
        """What is held now and was not held `before`, described."""
        threads = (f"thread {thread.name!r}" for thread in self.threads - before.threads)
        processes = (f"process {pid}: {_command_line(pid)}" for pid in self.processes - before.processes)
        descriptors = (f"descriptor {number}: {_target(number)}" for number in self.descriptors - before.descriptors)
        return sorted((*threads, *processes, *descriptors))


def _is_watched(thread: threading.Thread) -> bool:
    # Daemon threads of other libraries (watchdogs, pools) are theirs; ours carry our name and must end.
    # The one that reads what processes print lives as long as there are processes, which are watched themselves.
    return not thread.daemon or (thread.name.startswith("sage") and thread.name != OUTPUT_THREAD)


def _own(helper: object, *attributes: str) -> frozenset[int]:
    # multiprocessing keeps one tracker and one fork server as long as the process lives, by design.
    values = (getattr(helper, attribute, None) for attribute in attributes)
    return frozenset(value for value in values if isinstance(value, int))


def _child_processes() -> frozenset[int]:
    pids: set[int] = set()
    for task in _TASKS.iterdir() if _TASKS.is_dir() else ():
        try:
            pids.update(int(pid) for pid in (task / "children").read_text().split())
        except OSError:  # the thread has ended between the listing and the reading
            continue
    helpers = _own(resource_tracker._resource_tracker, "_pid") | _own(forkserver._forkserver, "_forkserver_pid")
    return frozenset(pids - helpers)


def _descriptors() -> frozenset[int]:
    if not _DESCRIPTORS.is_dir():  # no Linux: threads and processes are still watched
        return frozenset()
    # The listing names the descriptor that it was read through, which is closed by now.
    numbers = frozenset(int(name) for name in os.listdir(_DESCRIPTORS))
    tracker = _own(resource_tracker._resource_tracker, "_fd")
    server = _own(forkserver._forkserver, "_forkserver_alive_fd", "_forkserver_fd")
    return frozenset(filter(_is_open, numbers - tracker - server))


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _target(number: int) -> str:
    try:
        return str((_DESCRIPTORS / str(number)).readlink())
    except OSError:
        return "closed meanwhile"


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip() or "ended, not waited for"
    except OSError:
        return "ended meanwhile"


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a thread, a child process or a file descriptor behind.

    What fixtures of a wider scope hold was there before and does not count; ``@pytest.mark.leaks(reason)``
    exempts a test.
    """
    before = Holdings.now()
    yield
    leaked = Holdings.now().beyond(before)
    if not leaked or request.node.get_closest_marker("leaks"):
        return
    gc.collect()  # finalizers close what only a reference cycle still holds, as they do in production
    give_up = time.monotonic() + GRACE_S
    while (leaked := Holdings.now().beyond(before)) and time.monotonic() < give_up:
        time.sleep(0.01)
    if leaked:
        pytest.fail("the test leaves behind:\n  " + "\n  ".join(leaked), pytrace=False)
