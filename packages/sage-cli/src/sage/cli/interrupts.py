"""Ctrl-C and SIGTERM while a job runs."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType
from typing import Any, Self

from sage.kernel.api import JobHandle

from .exit_codes import ExitCode
from .terminal import Terminal

__all__ = ["Interrupts"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """The first Ctrl-C stops the sources and drains, the second one aborts, the third one leaves at once.

    Signals are handled where they arrive and no exception is raised, so that a second one cannot break into
    what is done about the first. A signal that the caller of `sage` ignores stays ignored.

    Args:
        terminal: where it is said what happens.
        grace_s: seconds that draining may take, for the message.

    Attributes:
        exit_code: INTERRUPTED or TERMINATED after a signal, None before.
    """

    def __init__(self, terminal: Terminal, grace_s: float) -> None:
        self.exit_code: ExitCode | None = None
        self._terminal = terminal
        self._grace_s = grace_s
        self._job: JobHandle | None = None
        self._times = 0
        self._early = False
        self._old: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._old[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def watch(self, job: JobHandle) -> None:
        """From now on signals go to this job; one that came while it was being started counts as its first."""
        self._job = job
        if self._early:
            self._times = max(self._times, 1)
            self._stop(job)

    @property
    def aborted(self) -> bool:
        """Whether it was asked for twice."""
        return self._times > 1

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        code = ExitCode.TERMINATED if number == signal.SIGTERM else ExitCode.INTERRUPTED
        if self._job is None:
            # Its sources may run already: an exception here would leave items under way behind. Who is in a hurry
            # asks twice.
            self.exit_code = code
            if self._early:
                raise KeyboardInterrupt
            self._early = True
            return
        self._times += 1
        self.exit_code = self.exit_code or code
        if self._times == 1:
            self._stop(self._job)
        elif self._times == 2:
            self._job.abort("interrupted twice")
            self._terminal.say("interrupted again: aborting; items under way are dropped")
        else:
            os._exit(self.exit_code)

    def _stop(self, job: JobHandle) -> None:
        job.stop()
        self._terminal.say(
            f"interrupted: finishing what is under way ({self._grace_s:g} s at most); Ctrl-C again aborts"
        )
