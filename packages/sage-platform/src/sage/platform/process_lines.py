"""Processes in a row, each of which passes on to the next what it has made of a message: what the parent sends to the
first comes back from the last, without a stop in the parent on the way.

Each process keeps its own link with the parent, over which it is told what to do and tells how it ends. What goes along
the line has pipes and arenas of its own, one pair per step, which the parent makes, hands over and then closes.
"""

from __future__ import annotations

import math
import os
import select
from collections.abc import Sequence
from typing import Any

from .arenas import Arena, create_arena_file
from .errors import LinkClosedError
from .process_links import Link
from .process_server import take_descriptors
from .processes import ProcessPool, WorkerProcess, widen

__all__ = ["ProcessLine", "add_link", "join_line"]

_EXIT_WAIT_S = 5.0
# A poll cannot wait longer than some weeks.
_WAIT_MAX_S = 3600.0


class ProcessLine:
    """Processes of a pool, in a row; one alone is a line too, whose way there and back is its own link.

    Args:
        pool: where they come from.
        size: how many.

    Attributes:
        processes: in order.
        link: to the first and from the last.

    Raises:
        WorkerError: one could not be started.

    Example:
        >>> pool = ProcessPool()
        >>> line = ProcessLine(pool, 3)
        >>> line.begin("sage.platform.process_lines:append_pids", [None] * 3)
        >>> _ = line.link.send([])
        >>> line.link.receive() == line.pids
        True
        >>> line.release(); len(pool.processes), line.link.descriptors
        (4, ())
        >>> pool.shutdown()
    """

    def __init__(self, pool: ProcessPool, size: int) -> None:
        self._pool = pool
        acquired: list[WorkerProcess] = []
        try:
            for _ in range(size):
                acquired.append(pool.acquire())
            self.processes = tuple(acquired)
            self.link = self._join() if size > 1 else acquired[0].link
        except BaseException:
            for process in acquired:
                pool.discard(process)
            raise

    def _join(self) -> Link:
        readers: list[int] = []
        writers: list[int] = []
        arenas: list[int] = []
        first = self.processes[0]
        try:
            for _ in range(len(self.processes) + 1):
                reader, writer = os.pipe2(os.O_CLOEXEC)
                readers.append(reader)
                writers.append(writer)
                widen(writer)
                arenas.append(create_arena_file())
            for index, process in enumerate(self.processes):
                try:
                    process.hand_over((readers[index], writers[index + 1], arenas[index], arenas[index + 1]))
                except LinkClosedError:
                    continue  # who tells it to begin sees that it has ended
            ends = [process.end_fd for process in self.processes]
            inward, outward = Arena(arenas[-1]), Arena(arenas[0])
            first.line_link = Link(readers.pop(), writers.pop(0), inward, outward, drains=True, end_fds=ends)
        finally:
            for descriptor in (*readers, *writers, *arenas):
                os.close(descriptor)
        return first.line_link

    def begin(self, entry: str, arguments: Sequence[Any]) -> None:
        """Let each process call `module:function` with its own of the `arguments`, see `WorkerProcess.begin`.

        Raises:
            LinkClosedError: one has ended.
        """
        for process, mine in zip(self.processes, arguments, strict=True):
            process.begin(entry, mine)

    def receive_any(self) -> Any:
        """The next message of the last process, or of any process over its own link: those come first, so what a
        process has said is here before anything that came of it.

        Raises:
            LinkClosedError: one has ended, and what it had said itself has been received.
        """
        if len(self.processes) == 1:
            return self.link.receive()
        arrivals = select.poll()
        links = [process.link for process in self.processes]
        data, _ = self.link.reading
        for descriptor in (data, *(link.reading[0] for link in links), *(each.end_fd for each in self.processes)):
            arrivals.register(descriptor, select.POLLIN)
        begun = self.link.reading[1]
        arrivals.poll(0 if begun or any(link.reading[1] for link in links) else None)
        # Looked at again: what one process has said before another one ended was not there at the first look, maybe.
        ready = {descriptor for descriptor, _ in arrivals.poll(0)}
        ended = any(process.end_fd in ready for process in self.processes)
        for link in links:
            descriptor, more = link.reading
            if more or descriptor in ready:
                try:
                    return link.receive()
                except LinkClosedError:
                    ended = True
        if begun or data in ready:
            return self.link.receive()
        if ended:
            raise LinkClosedError
        return self.receive_any()

    def tell_all(self, message: Any) -> None:
        """Send a message along the line and to each process by itself; those that have ended do not get it."""
        links = [self.link, *(process.link for process in self.processes)]
        for link in links if len(self.processes) > 1 else links[:1]:
            try:
                link.send(message)
            except LinkClosedError:
                continue  # whoever waits for its answer sees it

    def last_answer(self, index: int, kind: int) -> Any:
        """The first tuple that begins with `kind` of those that a process sends by itself; what comes before it is
        dropped. It has to come soon where another process has ended: who held up the line then does not know it.

        Raises:
            LinkClosedError: it has ended before, or does not answer.
        """
        link = self.processes[index].link
        while True:
            descriptor, has_more = link.reading
            if len(self.processes) > 1 and not has_more:
                arrivals = select.poll()
                for process in self.processes:
                    arrivals.register(process.end_fd, select.POLLIN)
                arrivals.register(descriptor, select.POLLIN)
                arrivals.poll()
                if not select.select([descriptor], [], [], _EXIT_WAIT_S)[0]:
                    raise LinkClosedError
            answer = link.receive()
            if answer[0] == kind:
                return answer

    def has_news(self, timeout_s: float) -> bool:
        """Whether there is something to receive, or a process has ended; waits that long for it, an hour at most."""
        descriptor, has_more = self.link.reading
        if has_more:
            return True
        arrivals = select.poll()
        for watched in (descriptor, *(process.end_fd for process in self.processes)):
            arrivals.register(watched, select.POLLIN)
        return bool(arrivals.poll(math.ceil(min(timeout_s, _WAIT_MAX_S) * 1000)))

    # -- facts

    @property
    def pids(self) -> list[int]:
        """Process ids, in order."""
        return [process.pid for process in self.processes]

    @property
    def ended(self) -> frozenset[int]:
        """Which of them have ended, by number."""
        return frozenset(number for number, process in enumerate(self.processes) if process.has_ended)

    def describe_end(self) -> str:
        """How the process ended that did, and its last words, for an error message."""
        select.select([process.end_fd for process in self.processes], [], [], _EXIT_WAIT_S)
        ended = [process for process in self.processes if process.has_ended]
        # One that goes because its neighbour has gone ends in order.
        ended.sort(key=lambda process: not process.exit_code(0))
        return (ended or self.processes)[0].describe_end()

    def stack(self) -> str:
        """Where the Python code of each is at this moment, as lines of a traceback."""
        return "\n".join(f"  in process {process.pid}:\n{process.stack()}" for process in self.processes)

    # -- the end

    def kill(self) -> None:
        """End all at once (SIGKILL)."""
        for process in self.processes:
            process.kill()

    def release(self) -> None:
        """Give back processes whose entries have returned."""
        for process in self.processes:
            process.leave_line()
            self._pool.release(process)

    def discard(self) -> None:
        """Give up all: whoever lives is killed."""
        self.kill()
        for process in self.processes:
            self._pool.discard(process)


def add_link(process: WorkerProcess) -> Link:
    """One more link with a process, which takes its end by `join_line`. Whoever asked for it closes it.

    Raises:
        LinkClosedError: the process has ended.

    Example:
        >>> pool = ProcessPool()
        >>> process = pool.acquire()
        >>> link = add_link(process)
        >>> process.begin("sage.platform.process_lines:append_pids", None)
        >>> _ = link.send([])
        >>> link.receive() == [process.pid]
        True
        >>> link.close(); pool.release(process); pool.shutdown()
    """
    to_read, to_write = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    arenas = create_arena_file(), create_arena_file()
    given = to_write[0], to_read[1], *arenas
    kept = to_read[0], to_write[1]
    try:
        for descriptor in (to_read[1], to_write[1]):
            widen(descriptor)
        process.hand_over(given)
        # In the process the first arena is the one that it reads.
        link = Link(*kept, Arena(arenas[1]), Arena(arenas[0]), drains=True, end_fds=[process.end_fd])
    except BaseException:
        for descriptor in kept:
            os.close(descriptor)
        raise
    finally:
        for descriptor in given:
            os.close(descriptor)
    process.more_links.append(link)
    return link


def join_line() -> Link:
    """In a process of a line with several: its ends of the two steps beside it, as one link that reads from the process
    before it (or the parent) and writes to the one behind it. Likewise its end of a link that was added.

    Raises:
        LinkClosedError: the parent is gone.
    """
    reader, writer, inward, outward = take_descriptors(4)
    link = Link(reader, writer, Arena(inward), Arena(outward))
    os.close(inward)
    os.close(outward)
    return link


def append_pids(link: Link, arguments: object) -> None:
    """An entry that appends the pid to one list and passes it on: the smallest proof of a line."""
    line = join_line()
    line.send([*line.receive(), os.getpid()])
    line.close()
