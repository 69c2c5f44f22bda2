"""Conformance of what carries messages between processes: every form passes this suite (`FORMS`). Of the promises of a
channel these are the ones that hold for a way through pipes and shared memory; how many items are on it is bounded by
who sends, see `WindowChannel` in the suite of the channels.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sage.platform import LinkClosedError, ProcessLine, ProcessPool
from sage.platform.process_lines import add_link, join_line
from sage.platform.process_links import Link

LOOK_S = 0.01
WAIT_S = 15.0


def _pass_on(link: Link, gate: str | None) -> None:
    while gate is not None and not Path(gate).exists():
        time.sleep(LOOK_S)
    while True:
        message = link.receive()
        link.send(message)
        if message is None:
            return


def pass_on_own(link: Link, gate: str | None) -> None:
    """An entry: sends back what comes over its own link, from the moment at which `gate` is there."""
    _pass_on(link, gate)


def pass_on_joined(link: Link, gate: str | None) -> None:
    """An entry: likewise over the link that it takes: one that was added, or the two steps beside it in a line."""
    joined = join_line()
    try:
        _pass_on(joined, gate)
    finally:
        joined.close()


class Carrier:
    """A way to one process or several and back.

    Attributes:
        link: this end of it.
        line: the processes.
    """

    def __init__(self, pool: ProcessPool, form: str, gate: Path | None) -> None:
        self.line = ProcessLine(pool, 3 if form == "line" else 1)
        argument = None if gate is None else str(gate)
        self._added: Link | None = None
        if form == "added link":
            self._added = add_link(self.line.processes[0])
        self.link = self._added or self.line.link
        entry = "pass_on_own" if form == "own link" else "pass_on_joined"
        # Only the first one waits: behind it there is room for what it has not read.
        arguments = [argument, *[None] * (len(self.line.processes) - 1)]
        self.line.begin(f"test_process_carriers:{entry}", arguments)

    def end(self) -> None:
        """Let the processes go, or end them where they are not through."""
        if self._added is not None:
            self._added.close()
        self.line.discard()


FORMS = ("own link", "added link", "line")

Make = Callable[..., Carrier]


@pytest.fixture(params=FORMS)
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    pool = ProcessPool()
    # The processes find this module as they find any of ours.
    sys.path.insert(0, str(Path(__file__).parent))
    made: list[Carrier] = []

    def create(gate: Path | None = None) -> Carrier:
        made.append(Carrier(pool, request.param, gate))
        return made[-1]

    yield create
    for carrier in made:
        carrier.end()
    sys.path.remove(str(Path(__file__).parent))
    pool.shutdown()


def started(call: Callable[[], Any]) -> tuple[threading.Thread, list[BaseException]]:
    """`call` on a thread of its own, and what it raises."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except LinkClosedError as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, raised


@pytest.mark.parametrize("writers", [1, 3])
def test_first_in_first_out_for_each_writer_whatever_the_size(make: Make, writers: int) -> None:
    carrier = make()
    give_up = time.monotonic() + 1.5
    written = [0] * writers
    # Inside a pipe, in shared memory, larger than a pipe; now and then larger than the shared memory.
    sizes = (10, 1_000, 70_000, 1_500_000)

    def write(writer: int) -> None:
        drawn = random.Random(writer)
        while time.monotonic() < give_up and written[writer] < 400:
            size = 20_000_000 if written[writer] == 7 else drawn.choice(sizes)
            what: Any = bytearray(size) if written[writer] % 2 else "x" * size
            carrier.link.send((writer, written[writer], what, size))
            written[writer] += 1
        carrier.link.send((writer, -1, b"", 0))

    threads = [started(lambda writer=writer: write(writer))[0] for writer in range(writers)]
    got: dict[int, list[int]] = defaultdict(list)
    ended = 0
    while ended < writers:
        writer, number, what, size = carrier.link.receive()
        assert len(what) == size
        ended += number < 0
        if number >= 0:
            got[writer].append(number)
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert min(written) > 0
    assert dict(got) == {writer: list(range(count)) for writer, count in enumerate(written)}


def test_a_writer_waits_while_nobody_reads(make: Make, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    carrier = make(gate)
    sent: list[int] = []

    def write() -> None:
        for number in range(400):
            # Small enough to stay out of the shared memory, so that the pipe fills.
            carrier.link.send((number, b"x" * 50_000))
            sent.append(number)

    thread, raised = started(write)
    still, give_up = -1, time.monotonic() + WAIT_S
    while len(sent) != still and time.monotonic() < give_up:
        still = len(sent)
        time.sleep(0.2)
    # Two pipes of at most 1 MiB each, and what a reader has in hand.
    assert 0 < len(sent) < 100
    gate.touch()
    assert [carrier.link.receive()[0] for _ in range(400)] == list(range(400))
    thread.join(WAIT_S)
    assert not thread.is_alive()
    assert not raised


@pytest.mark.parametrize("waits", ["reader", "writer"])
def test_who_waits_is_released_when_a_process_ends(make: Make, tmp_path: Path, waits: str) -> None:
    carrier = make(tmp_path / "never")

    def write() -> None:
        while True:
            carrier.link.send(b"x" * 50_000)

    def read() -> None:
        carrier.link.receive()

    thread, raised = started(write if waits == "writer" else read)
    time.sleep(0.3)
    assert thread.is_alive()
    killed_at = time.monotonic()
    carrier.line.processes[-1].kill()
    thread.join(WAIT_S)
    assert not thread.is_alive()
    assert time.monotonic() - killed_at < 5
    assert [type(error) for error in raised] == [LinkClosedError]


def test_what_was_sent_whole_before_the_end_arrives(make: Make) -> None:
    carrier = make()
    for number in range(50):
        carrier.link.send(number)
    carrier.link.send(None)
    got = []
    while (message := carrier.link.receive()) is not None:
        got.append(message)
    assert got == list(range(50))
