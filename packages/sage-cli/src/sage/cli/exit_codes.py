"""What the exit code of `sage` says."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ExitCode"]


class ExitCode(IntEnum):
    """Exit codes of all commands.

    The last three are what a shell shows for a process that was ended by the signal (128 + its number), so
    that `sage` behaves in scripts as other tools do.

    Example:
        >>> int(ExitCode.DEAD_LETTERS)
        1
    """

    DONE = 0
    DEAD_LETTERS = 1  # finished, but some items could not be processed
    DIFFERENT = 1
    USAGE = 2  # wrong option, or a pipeline that cannot be loaded or compiled: nothing was run
    FAILED = 3  # the job failed, or did not drain within its grace period
    INTERRUPTED = 130  # Ctrl-C
    OUTPUT_GONE = 141  # the reader of standard output went away, as in `sage run ... | head`
    TERMINATED = 143  # SIGTERM
