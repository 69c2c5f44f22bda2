"""Processes, their links and their shared memory for real: forked children, `kill -9`, messages of all sizes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.platform import LinkClosedError, ProcessPool, WorkerError, WorkerProcess
from sage.platform.arenas import Arena, create_arena_file
from sage.platform.process_links import OUT_OF_BAND_BYTES, Link, UnreadableMessageError


@pytest.fixture
def pool() -> Iterator[ProcessPool]:
    pool = ProcessPool()
    # The processes find this module as they find any of ours.
    sys.path.insert(0, str(Path(__file__).parent))
    yield pool
    sys.path.remove(str(Path(__file__).parent))
    pool.shutdown()


@pytest.fixture
def process(pool: ProcessPool) -> Iterator[WorkerProcess]:
    process = pool.acquire()
    yield process
    pool.discard(process)


def echo(link: Link, arguments: Any) -> None:
    """An entry: sends back what comes until None comes."""
    link.send("ready")
    while (message := link.receive()) is not None:
        link.send(message)


def speak(link: Link, arguments: Any) -> None:
    """An entry: prints."""
    print(f"said {arguments}")
    sys.stderr.write(f"complained {arguments}\n")
    sys.stderr.flush()
    link.send("done")


def facts(link: Link, arguments: Any) -> None:
    """An entry: what its process looks like."""
    link.send((str(Path.cwd()), os.environ.get("SAGE_TESTED"), sys.argv, signal.getsignal(signal.SIGINT)))


def begun(process: WorkerProcess, entry: str, arguments: Any = None) -> Any:
    process.begin(f"test_processes:{entry}", arguments)
    return process.link.receive()


# -- links ----------------------------------------------------------------------------------------------------


@pytest.fixture
def ends() -> Iterator[tuple[Link, Link]]:
    """Both ends of a link in this process; the first one drains."""
    files = create_arena_file(1 << 20), create_arena_file(1 << 20)
    (first_in, second_out), (second_in, first_out) = os.pipe(), os.pipe()
    first = Link(first_in, first_out, Arena(files[0]), Arena(files[1]), drains=True)
    second = Link(second_in, second_out, Arena(files[1]), Arena(files[0]))
    for file in files:
        os.close(file)
    yield first, second
    first.close()
    second.close()


def test_messages_arrive_in_order_whatever_their_size(ends: tuple[Link, Link]) -> None:
    first, second = ends
    sizes = [0, 1, 100, 65_000, 65_536, 200_000, 3, 1_500_000, 0]
    sender = threading.Thread(target=lambda: [second.send(bytes(size)) for size in sizes])
    sender.start()
    assert [len(first.receive()) for _ in sizes] == sizes
    sender.join()


def test_two_ends_that_both_write_much_do_not_wait_for_each_other(ends: tuple[Link, Link]) -> None:
    first, second = ends
    large = [bytes(40_000) for _ in range(100)]

    def other() -> None:
        for _ in range(3):
            second.send(large)
            second.receive()

    thread = threading.Thread(target=other)
    thread.start()
    for _ in range(3):
        first.send(large, draining=True)
        assert first.receive() == large
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("writable", [True, False])
def test_large_buffers_are_copies_of_the_receiver_and_writable_as_they_were(
    ends: tuple[Link, Link], writable: bool
) -> None:
    import numpy as np

    first, second = ends
    array = np.arange(OUT_OF_BAND_BYTES, dtype=np.uint8)
    array.flags.writeable = writable
    for _ in range(100):  # many times round the ring
        second.send([array, array[:10].copy()])
        got, small = first.receive()
        assert got.flags.writeable is writable
        assert (got == array).all()
        assert (small == array[:10]).all()
        if writable:
            got[:] = 0


def test_large_messages_go_beside_the_pipe_with_their_buffers_or_without(ends: tuple[Link, Link]) -> None:
    import numpy as np

    first, second = ends
    texts = [f"{number:06d}" * 100 for number in range(OUT_OF_BAND_BYTES // 500)]
    array = np.arange(OUT_OF_BAND_BYTES, dtype=np.uint8)
    for turn in range(100):  # many times round the ring
        message = (turn, texts, array if turn % 3 == 0 else None)
        assert second.send(message) > len(texts) * 600
        number, got, beside = first.receive()
        assert (number, got) == (turn, texts)
        assert beside is None if turn % 3 else bool((beside == array).all())
    assert second.send("small") < 100
    assert first.receive() == "small"


def test_what_does_not_fit_beside_the_pipe_goes_through_it(ends: tuple[Link, Link]) -> None:
    first, second = ends
    texts = ["x" * 200_000 + str(number) for number in range(20)]
    sender = threading.Thread(target=lambda: [second.send(text) for text in texts])
    sender.start()
    time.sleep(0.1)  # the ring is full
    assert [first.receive() for _ in texts] == texts
    sender.join()


def test_what_cannot_be_pickled_is_not_sent_at_all(ends: tuple[Link, Link]) -> None:
    first, second = ends
    with pytest.raises(TypeError):
        second.send([bytearray(100_000), threading.Lock()])
    second.send("next")
    assert first.receive() == "next"


class Refuses:
    def __reduce__(self) -> Any:
        return int, ("no number",)


@pytest.mark.parametrize("beside", ["", "x" * OUT_OF_BAND_BYTES])
def test_what_cannot_be_unpickled_is_one_message_lost(ends: tuple[Link, Link], beside: str) -> None:
    first, second = ends
    second.send((Refuses(), beside))
    second.send("next")
    with pytest.raises(UnreadableMessageError, match="ValueError: invalid literal"):
        first.receive()
    assert first.receive() == "next"


def test_a_closed_link_says_so(ends: tuple[Link, Link]) -> None:
    first, second = ends
    second.send("last")
    second.close()
    assert first.receive() == "last"
    with pytest.raises(LinkClosedError):
        first.receive()
    with pytest.raises(LinkClosedError):
        first.send("more")
    with pytest.raises(LinkClosedError):
        second.send("more")


@settings(max_examples=100, deadline=None)
@given(steps=st.lists(st.tuples(st.integers(1, 5000), st.booleans()), max_size=60))
def test_an_arena_gives_back_what_was_put_in(steps: list[tuple[int, bool]]) -> None:
    file = create_arena_file(16_384)
    writer, reader = Arena(file), Arena(file)
    os.close(file)
    waiting: list[tuple[int, bytes]] = []
    for number, (size, take) in enumerate(steps):
        data = bytes([number % 256]) * size
        position = writer.put(memoryview(data))
        if position is not None:
            waiting.append((position, data))
        else:
            assert sum(len(kept) for _, kept in waiting) + size > 16_384 // 2, "it must take what is far from full"
        if take and waiting:
            position, kept = waiting.pop(0)
            found = reader.take(position, len(kept))
            assert bytes(found) == kept
            found.release()
            reader.release(position, len(kept))
    writer.close()
    reader.close()


# -- processes ------------------------------------------------------------------------------------------------


def test_messages_to_a_process_and_back(process: WorkerProcess) -> None:
    assert begun(process, "echo") == "ready"
    for message in ({"a": [1, 2]}, bytes(3_000_000), bytearray(100_000), list(range(100_000))):
        process.link.send(message, draining=True)
        assert process.link.receive() == message
    process.link.send(None)


def test_a_process_sees_our_folder_command_line_and_environment(
    process: WorkerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAGE_TESTED", "yes")
    monkeypatch.setattr(sys, "argv", ["program", "--flag"])
    assert begun(process, "facts") == (str(tmp_path), "yes", ["program", "--flag"], signal.SIG_IGN)
    monkeypatch.delenv("SAGE_TESTED")
    assert begun(process, "facts")[1] is None


def test_output_is_passed_on_and_the_last_words_are_kept(
    process: WorkerProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    assert begun(process, "speak", 7) == "done"
    process.kill()
    assert "its last words:\ncomplained 7" in process.describe_end()
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("said 7\n", "complained 7\n")


def test_the_end_of_a_process_is_seen_at_once(process: WorkerProcess) -> None:
    begun(process, "echo")
    killer = threading.Timer(0.1, os.kill, (process.pid, signal.SIGKILL))
    killer.start()
    start = time.monotonic()
    with pytest.raises(LinkClosedError):
        process.link.receive()
    assert time.monotonic() - start < 2
    assert process.exit_code() == -signal.SIGKILL
    killer.join()


def test_where_a_process_is(process: WorkerProcess) -> None:
    begun(process, "echo")
    # Just after its answer it may still be on its way out of `send`.
    assert any("in receive" in process.stack() for _ in range(20))


def test_an_entry_that_is_not_there_is_told_and_the_process_goes_on(process: WorkerProcess) -> None:
    process.begin("no_such_module:entry", None)
    what, reason = process.link.receive()
    assert what == "unreadable"
    assert "no_such_module" in reason
    assert begun(process, "echo") == "ready"


def test_an_idle_process_that_died_is_not_given_out(pool: ProcessPool) -> None:
    process = pool.acquire()
    pool.release(process)
    os.kill(process.pid, signal.SIGKILL)
    process.exit_code()
    other = pool.acquire()
    assert other.pid != process.pid
    assert begun(other, "echo") == "ready"
    pool.discard(other)


def test_shutdown_ends_busy_processes_and_the_pool_starts_anew(pool: ProcessPool) -> None:
    process = pool.acquire()
    begun(process, "echo")
    pool.shutdown()
    with pytest.raises(LinkClosedError):
        process.link.receive()
    pool.discard(process)
    again = pool.acquire()
    assert begun(again, "echo") == "ready"
    pool.discard(again)


def test_the_server_is_replaced_when_it_is_killed_and_its_processes_end_with_it(pool: ProcessPool) -> None:
    process = pool.acquire()
    begun(process, "echo")
    (server,) = pool.processes
    os.kill(server, signal.SIGKILL)
    with pytest.raises(LinkClosedError):
        process.link.receive()
    assert process.exit_code(0.1) is None
    assert "nobody knows how" in process.describe_end()
    pool.discard(process)
    again = pool.acquire()
    assert begun(again, "echo") == "ready"
    pool.discard(again)


def test_no_descriptors_left_to_start_a_process(pool: ProcessPool, monkeypatch: pytest.MonkeyPatch) -> None:
    process = pool.acquire()
    pool.release(process)
    pool.acquire()  # the idle one
    before = len(os.listdir("/proc/self/fd"))

    def refuse(flags: int) -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pipe2", refuse)
    with pytest.raises(WorkerError, match=r"no process could be started: .*Too many open files"):
        pool.acquire()
    assert len(os.listdir("/proc/self/fd")) == before
    pool.discard(process)


# -- ends that are hard to see --------------------------------------------------------------------------------


def leave_child(link: Link, arguments: Any) -> None:
    """An entry: forks a child that holds all descriptors, says its pid, and ends by a signal."""
    child = os.fork()
    if child == 0:
        time.sleep(20)
        os._exit(0)
    link.send(child)
    link.receive()
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("way", ["reading", "writing"])
def test_the_end_is_seen_while_a_child_of_the_process_holds_the_link(process: WorkerProcess, way: str) -> None:
    child = begun(process, "leave_child")
    try:
        start = time.monotonic()
        process.link.send("now")
        with pytest.raises(LinkClosedError):
            while way == "writing":
                process.link.send(bytes(50_000))
            process.link.receive()
        assert time.monotonic() - start < 5
        assert process.exit_code() == -signal.SIGKILL
    finally:
        os.kill(child, signal.SIGKILL)


def test_processes_of_a_killed_server_are_not_given_out(pool: ProcessPool) -> None:
    process = pool.acquire()
    pool.release(process)
    (server,) = pool.processes - {process.pid}
    os.kill(server, signal.SIGKILL)
    with pytest.raises(LinkClosedError):
        process.link.receive()
    again = pool.acquire()
    assert again is not process
    assert begun(again, "echo") == "ready"
    pool.discard(again)


def test_a_server_that_is_killed_while_it_is_asked_is_replaced(
    pool: ProcessPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.discard(pool.acquire())
    (server,) = pool.processes
    send_fds, asked = socket.send_fds, []

    def kill_then_send(control: socket.socket, *rest: Any) -> int:
        if not asked:
            os.kill(server, signal.SIGKILL)
        asked.append(control)
        return send_fds(control, *rest)

    monkeypatch.setattr(socket, "send_fds", kill_then_send)
    process = pool.acquire()
    assert len(asked) == 2
    assert begun(process, "echo") == "ready"
    pool.discard(process)


def test_a_forked_child_holds_nothing_of_the_pool_and_makes_its_own(pool: ProcessPool) -> None:
    idle = pool.acquire()
    busy = pool.acquire()
    begun(busy, "echo")
    pool.release(idle)
    held = pool.descriptors | busy.descriptors
    own = {_inode(number) for number in held}
    child = os.fork()
    if child == 0:
        code = 1
        try:
            inodes = {found for number in os.listdir("/proc/self/fd") if (found := _inode(number))}
            process = pool.acquire()
            process.begin("sage.platform.process_server:answer_pid", None)
            alive = process.link.receive() == process.pid
            pool.discard(process)
            pool.shutdown()
            code = 0 if alive and not inodes & own else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    busy.link.send("still here")
    assert busy.link.receive() == "still here"
    pool.discard(busy)


def _inode(number: int | str) -> int | None:
    try:
        return os.fstat(int(number)).st_ino
    except OSError:  # the descriptor with which the folder itself was read
        return None


def speak_in_pieces(link: Link, arguments: Any) -> None:
    """An entry: a character in two writes, one beyond the size of a read, and one that never ends."""
    os.write(1, "é".encode()[:1])
    link.send("half")
    link.receive()
    os.write(1, "é".encode()[1:] + b"x" + "é".encode() * 60_000)
    os.write(1, b"\xc3")
    link.send("done")


def test_characters_that_come_in_pieces_are_put_together(pool: ProcessPool, capsys: pytest.CaptureFixture[str]) -> None:
    process = pool.acquire()
    assert begun(process, "speak_in_pieces") == "half"
    process.drain_output()
    process.link.send("go on")
    assert process.link.receive() == "done"
    pool.discard(process)
    assert capsys.readouterr().out == "éx" + "é" * 60_000 + "\\xc3"


# -- SIGTERM ----------------------------------------------------------------------------------------------------------


def start_others(link: Link, arguments: Any) -> None:
    """An entry: starts a program and forks a process, tells their pids, and how they ended."""
    program = subprocess.Popen(["sleep", "60"])
    forked = os.fork()
    if forked == 0:
        time.sleep(60)
        os._exit(0)
    link.send((program.pid, forked))
    link.send((program.wait(10), os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1])))


def test_sigterm_is_left_to_the_parent(pool: ProcessPool, process: WorkerProcess) -> None:
    (server,) = pool.processes - {process.pid}
    for pid in (server, process.pid):
        os.kill(pid, signal.SIGTERM)
    time.sleep(0.1)
    assert begun(process, "echo") == "ready"
    os.kill(process.pid, signal.SIGTERM)
    process.link.send("still there")
    assert process.link.receive() == "still there"
    process.link.send(None)
    pool.shutdown()
    assert process.has_ended


def test_what_an_operator_starts_ends_by_sigterm(process: WorkerProcess) -> None:
    pids = begun(process, "start_others")
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    assert process.link.receive() == (-signal.SIGTERM, -signal.SIGTERM)
