"""The standard streams of the process, and the progress line below what they write.

Results of sinks go to standard output, everything else (progress, summary, warnings, errors) to standard
error. Both may be the same terminal, so each write takes the progress line away first; it comes back with the
next update. The live display of rich was not taken for this: it wants every line of output to go through it,
and here operators and sinks write to `sys.stdout` themselves.
"""

from __future__ import annotations

import io
import os
import select
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console
from rich.text import Text

__all__ = ["Terminal", "open_missing_streams"]

_STDERR = 2
_CLEAR_LINE = b"\r\x1b[2K"
# Of a summary that goes into a file: wide enough that nothing is cut.
_WIDTH_WITHOUT_TERMINAL = 120


def open_missing_streams() -> None:
    """Put the null device in the place of standard streams that the caller has closed.

    Otherwise the next file that is opened, the store of dead letters for one, would get their number, and
    what is meant for the terminal would be written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
            assert opened == number
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


class _Stream(io.FileIO):
    """A descriptor; each write to it takes the progress line away first."""

    def __init__(self, number: int, terminal: Terminal, *, is_output: bool) -> None:
        super().__init__(number, "wb", closefd=False)
        self._terminal = terminal
        self._is_output = is_output
        self._on_terminal = os.isatty(number)

    def write(self, data: Any) -> int:
        """Write all of `data`; after an error of standard output it goes nowhere."""
        size = len(memoryview(data).cast("B"))
        if not size:
            return 0
        # What does not go to the terminal must not hold up its progress line while a reader is slow.
        with self._terminal.lock if self._on_terminal else nullcontext():
            if self._is_output and self._terminal.output_error is not None:
                return size
            if self._on_terminal:
                self._terminal.erase()
            try:
                while (written := super().write(data)) is None:
                    # The caller has made the descriptor non-blocking: wait for room, as a blocking one would.
                    select.select((), (self.fileno(),), ())
            except OSError as error:
                if not self._is_output:
                    raise
                self._terminal.fail_output(error)
                return size
            last = bytes(memoryview(data).cast("B")[written - 1 : written]) if written else b"\n"
            if self._is_output:
                self._terminal.output_at_line_start = last == b"\n"
            if self._on_terminal:
                self._terminal.at_line_start = last == b"\n"
            return written


def _is_unbuffered(stream: TextIO) -> bool:
    return isinstance(stream, io.TextIOWrapper) and stream.write_through


class Terminal:
    """Replaces `sys.stdout` and `sys.stderr` while it is entered.

    Attributes:
        lock: held during each write.
        output_error: why standard output can no longer be written: `BrokenPipeError` when its reader is gone.
            From then on what is written there is dropped.
        on_output_error: called once when that happens, from the thread that was writing.
        at_line_start: whether the cursor of the terminal stands at the beginning of a line.
        output_stuck: whether standard output was given up because nobody reads it.
        output_at_line_start: whether the last character of standard output was a newline.

    Example:
        >>> terminal = Terminal()
        >>> terminal.output_error is None
        True
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.output_error: OSError | None = None
        self.on_output_error: Callable[[], None] | None = None
        self.at_line_start = True
        self.output_stuck = False
        self.output_at_line_start = True
        self._shown = False
        self._replaced: tuple[TextIO, TextIO] | None = None

    # -- the streams --------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        old_out, old_err = sys.stdout, sys.stderr
        old_out.flush()
        old_err.flush()
        self._replaced = (old_out, old_err)
        sys.stdout = self._stream(old_out, is_output=True)
        sys.stderr = self._stream(old_err, is_output=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._replaced is not None
        self.hide()
        self.flush()
        sys.stdout, sys.stderr = self._replaced
        self._replaced = None

    def _stream(self, old: TextIO, *, is_output: bool) -> io.TextIOWrapper:
        number = old.fileno()
        return io.TextIOWrapper(
            io.BufferedWriter(_Stream(number, self, is_output=is_output)),
            encoding=old.encoding or "utf-8",
            errors=old.errors or "strict",
            # A person sees each line at once; a pipe gets full blocks, unless PYTHONUNBUFFERED asks for each line.
            line_buffering=os.isatty(number) or not is_output or _is_unbuffered(old),
        )

    def flush(self) -> None:
        """Write out what the streams still hold."""
        if not self.output_stuck:
            sys.stdout.flush()
        try:
            sys.stderr.flush()
        except OSError:  # nobody is left who could be told
            return

    def flush_within(self, limit_s: float) -> None:
        """As `flush`, for the end of a run that was aborted: a thread that was given up may hold standard
        output, in the middle of a write that nobody reads, and waiting for it could not even be interrupted.
        """
        flushing = threading.Thread(target=sys.stdout.flush, name="sage-flush", daemon=True)
        flushing.start()
        flushing.join(limit_s)
        self.output_stuck = flushing.is_alive()
        if self.output_stuck:
            self.say("error: nobody reads standard output; what was left for it is lost")

    def fail_output(self, error: OSError) -> None:
        """Standard output cannot be written any more."""
        self.output_error = error
        if self.on_output_error is not None:
            self.on_output_error()

    def write_output_line(self, line: str) -> None:
        """Write one line to standard output, on a line of its own whatever was written before."""
        if self.output_stuck:
            return
        sys.stdout.flush()
        start = "" if self.output_at_line_start else "\n"
        sys.stdout.write(f"{start}{line}\n")
        sys.stdout.flush()

    def say(self, line: str) -> None:
        """Write one line to standard error at once. Takes no lock and no buffer: signal handlers call it."""
        start = _CLEAR_LINE if self._shown else b""
        if not self.at_line_start:
            start += b"\n"
        try:
            os.write(_STDERR, start + f"{line}\n".encode("utf-8", "backslashreplace"))
        except OSError:  # nobody is left who could be told
            return
        self._shown = False
        self.at_line_start = True

    def console(self) -> Console:
        """A console on standard error, as wide as the terminal, without colour where it is none."""
        width = None if sys.stderr.isatty() or "COLUMNS" in os.environ else _WIDTH_WITHOUT_TERMINAL
        return Console(stderr=True, width=width, highlight=False, soft_wrap=False)

    # -- the progress line --------------------------------------------------------------------------------

    @property
    def shows_progress(self) -> bool:
        """Whether standard error is a terminal on which a line can be overwritten."""
        return os.isatty(_STDERR) and os.environ.get("TERM", "") not in ("", "dumb")

    def show(self, line: str) -> None:
        """Put `line`, cut to the width of the terminal, in the place of the progress line; not while a result
        is half written.
        """
        text = Text(line)
        text.truncate(_columns() - 1, overflow="ellipsis")
        with self.lock:
            if not self.at_line_start:
                return
            os.write(_STDERR, _CLEAR_LINE + text.plain.encode("utf-8", "backslashreplace"))
            self._shown = True

    def hide(self) -> None:
        """Take the progress line away."""
        with self.lock:
            self.erase()

    def erase(self) -> None:
        """As `hide`, for those who hold the lock."""
        if self._shown:
            self._shown = False
            os.write(_STDERR, _CLEAR_LINE)


def _columns() -> int:
    try:
        return max(20, os.get_terminal_size(_STDERR).columns)
    except OSError:
        return 80
