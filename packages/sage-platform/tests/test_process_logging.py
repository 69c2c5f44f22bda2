"""What processes log, for real: forked children, real pipes, the loggers of this process."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.platform import ProcessPool, WorkerProcess
from sage.platform.process_links import Link
from sage.platform.process_logging import TEXT_MAX, LogIntake, _Forwarding, levels_now


class Kept(logging.Handler):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def messages(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture
def kept() -> Iterator[Kept]:
    """What arrives at the logger "tested", whose level is INFO."""
    handler, log = Kept(), logging.getLogger("tested")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield handler
    log.removeHandler(handler)
    log.setLevel(logging.NOTSET)


@pytest.fixture
def process() -> Iterator[WorkerProcess]:
    pool = ProcessPool()
    sys.path.insert(0, str(Path(__file__).parent))
    process = pool.acquire()
    yield process
    pool.release(process)
    sys.path.remove(str(Path(__file__).parent))
    pool.shutdown()


def run(process: WorkerProcess, entry: str, arguments: Any = None) -> Any:
    """Run an entry of this module and read what it has logged."""
    process.begin(f"test_process_logging:{entry}", arguments)
    answer = process.link.receive()
    process.drain_output()
    return answer


class Odd:
    """Cannot be pickled or unpickled here."""

    def __reduce__(self) -> str:
        raise TypeError

    def __str__(self) -> str:
        return "an odd one"


def log_much(link: Link, arguments: Any) -> None:
    log = logging.getLogger("tested.below")
    for number in range(arguments):
        log.info("number %d of %s", number, Odd())
    link.send(os.getpid())


def log_kinds(link: Link, arguments: Any) -> None:
    log = logging.getLogger("tested.kinds")
    log.debug("not wanted")
    try:
        raise ValueError("the cause")
    except ValueError:
        log.exception("it failed", stack_info=True, extra={"odd": Odd(), "many": [1, (2.5, {3: "x"})], "big": 1 << 99})
    log.log(35, "between %s levels", 2)
    log.warning("x" * (TEXT_MAX + 7))
    link.send("done")


def log_wrongly(link: Link, arguments: Any) -> None:
    log = logging.getLogger("tested")
    log.info("%d", "no number")
    log.info("goes on")
    link.send("done")


def log_levels(link: Link, arguments: Any) -> None:
    names = ["", "tested", "tested.below"]
    link.send(([logging.getLogger(name or None).getEffectiveLevel() for name in names], logging.root.manager.disable))


def configure_and_log(link: Link, arguments: Any) -> None:
    logging.basicConfig(level="DEBUG")
    logging.getLogger("tested").info("configured")
    link.send("done")


def log_in_threads(link: Link, arguments: Any) -> None:
    def speak(who: int) -> None:
        for number in range(200):
            logging.getLogger("tested").info("%d %d %s", who, number, "y" * 5000)

    threads = [threading.Thread(target=speak, args=(who,)) for who in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    link.send("done")


def log_and_die(link: Link, arguments: Any) -> None:
    logging.getLogger("tested").error("last words")
    os._exit(9)


def test_records_arrive_in_order_and_whole(process: WorkerProcess, kept: Kept) -> None:
    pid = run(process, "log_much", 5000)  # more than a pipe holds
    assert kept.messages == [f"number {number} of an odd one" for number in range(5000)]
    record = kept.records[0]
    assert (record.name, record.levelno, record.levelname) == ("tested.below", logging.INFO, "INFO")
    assert record.process == pid != os.getpid()
    assert (record.funcName, record.threadName) == ("log_much", "MainThread")
    assert record.relativeCreated > 0


def test_tracebacks_fields_and_levels_arrive_as_text(process: WorkerProcess, kept: Kept) -> None:
    run(process, "log_kinds")
    failed, between, long = kept.records
    assert failed.exc_info is None
    assert failed.exc_text is not None
    assert failed.exc_text.startswith("Traceback (most recent call last):\n")
    assert failed.exc_text.endswith("ValueError: the cause")
    assert str(failed.stack_info).startswith("Stack (most recent call last):\n")
    assert vars(failed)["odd"] == "an odd one"
    assert vars(failed)["many"] == [1, [2.5, {"3": "x"}]]
    assert vars(failed)["big"] == hex(1 << 99)
    assert logging.Formatter("%(levelname)s %(message)s").format(failed).startswith("ERROR it failed\nTraceback")
    assert (between.levelno, between.levelname, between.getMessage()) == (35, "Level 35", "between 2 levels")
    assert long.getMessage() == "x" * TEXT_MAX + "... (7 characters more)"


def test_the_levels_of_the_parent_hold_for_each_entry(process: WorkerProcess, kept: Kept) -> None:
    root, log = logging.root.level, logging.getLogger("tested.below")
    assert run(process, "log_levels") == ([root, 20, 20], 0)
    log.setLevel(logging.ERROR)
    try:
        assert run(process, "log_levels") == ([root, 20, 40], 0)
        run(process, "log_much", 3)
        assert kept.messages == []
    finally:
        log.setLevel(logging.NOTSET)
    logging.disable(logging.INFO)
    try:
        assert run(process, "log_levels") == ([root, 20, 20], 20)
    finally:
        logging.disable(logging.NOTSET)
    assert run(process, "log_levels") == ([root, 20, 20], 0)


def test_a_level_that_is_raised_meanwhile_holds_at_once(process: WorkerProcess, kept: Kept) -> None:
    process.begin("test_process_logging:log_much", 1)
    logging.getLogger("tested").setLevel(logging.ERROR)
    process.link.receive()
    process.drain_output()
    # Either the reading thread was quicker than this one, or the record was not wanted any more.
    assert kept.messages in ([], ["number 0 of an odd one"])
    run(process, "log_much", 5)
    assert len(kept.messages) <= 1


def test_a_message_that_does_not_fit_its_arguments_is_told_and_the_rest_goes_on(
    process: WorkerProcess, kept: Kept, capsys: pytest.CaptureFixture[str]
) -> None:
    run(process, "log_wrongly")
    assert kept.messages == ["goes on"]
    process.drain_output()
    assert "--- Logging error ---" in capsys.readouterr().err


def test_basic_config_in_the_process_changes_nothing(
    process: WorkerProcess, kept: Kept, capsys: pytest.CaptureFixture[str]
) -> None:
    run(process, "configure_and_log")
    assert kept.messages == ["configured"]
    assert "configured" not in capsys.readouterr().err


def test_records_of_several_threads_do_not_mix(process: WorkerProcess, kept: Kept) -> None:
    run(process, "log_in_threads")
    for who in range(3):
        mine = [message.split()[1] for message in kept.messages if message.startswith(f"{who} ")]
        assert mine == [str(number) for number in range(200)]
    assert len(kept.messages) == 600


def test_what_was_logged_before_the_end_arrives(kept: Kept) -> None:
    pool = ProcessPool()
    sys.path.insert(0, str(Path(__file__).parent))
    try:
        process = pool.acquire()
        process.begin("test_process_logging:log_and_die", None)
        assert process.exit_code() == 9
        pool.discard(process)
        assert kept.messages == ["last words"]
    finally:
        sys.path.remove(str(Path(__file__).parent))
        pool.shutdown()


def test_a_handler_that_raises_does_not_stop_the_others(
    process: WorkerProcess, kept: Kept, capsys: pytest.CaptureFixture[str]
) -> None:
    class Raises(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            if record.getMessage().startswith("number 1 "):
                raise RuntimeError("a filter of the user's")
            return True

    log, raising = logging.getLogger("tested.below"), Raises()
    log.addFilter(raising)
    try:
        # The process has this filter not: filters are the parent's.
        run(process, "log_much", 3)
    finally:
        log.removeFilter(raising)
    assert kept.messages == ["number 0 of an odd one", "number 2 of an odd one"]
    assert "a filter of the user's" in capsys.readouterr().err


def test_lines_that_are_no_records_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    intake = LogIntake(77)
    for line in (b"{}\n", b"[1]\n", b"no json\n", b'{"name": "a", "created": 1e999, "levelno": 1}\n', b"\xff\n"):
        intake.take(line)
    assert [record.getMessage() for record in caplog.records] == (
        ["process 77 has sent a log record that cannot be read"] * 5
    )


@settings(max_examples=60)
@given(
    messages=st.lists(st.text(st.characters(codec=None), max_size=30), max_size=12),
    cuts=st.lists(st.integers(1, 400), max_size=30),
)
def test_records_arrive_however_the_pipe_cuts_them(messages: list[str], cuts: list[int]) -> None:
    reading, writing = os.pipe()
    handler = _Forwarding(writing)
    for message in messages:
        handler.emit(logging.makeLogRecord({"name": "tested.cut", "levelno": 50, "msg": message}))
    os.close(writing)
    sent = b""
    while piece := os.read(reading, 1 << 16):
        sent += piece
    os.close(reading)
    log, kept, intake = logging.getLogger("tested.cut"), Kept(), LogIntake(1)
    log.addHandler(kept)
    log.propagate = False
    try:
        for size in (*cuts, len(sent) + 1):
            intake.take(sent[:size])
            sent = sent[size:]
    finally:
        log.removeHandler(kept)
        log.propagate = True
    assert kept.messages == messages


def test_the_levels_are_small_and_plain() -> None:
    found = levels_now()
    assert found.levels[""] == logging.root.level
    assert json.loads(json.dumps(dict(found.levels))) == found.levels
